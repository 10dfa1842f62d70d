// Requests to the server that this page came from; the token is in the address, behind the #, and so is never logged.

const token = decodeURIComponent(location.hash.slice(1));

export class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = { authorization: `Bearer ${token}`, ...options.headers };
  const answer = await fetch(`/api/${path}`, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  let reason = `the server answers ${answer.status}`;
  try { reason = (await answer.json()).detail ?? reason; } catch { /* no words came */ }
  throw new Refused(reason);
}

export const get = async (path) => (await ask(path)).json();

export const post = async (path, body = {}) =>
  (await ask(path, { method: "POST", body: JSON.stringify(body) })).json();

export const send = async (path, body) => (await ask(path, { method: "POST", body })).json();

export const put = async (path, body) => (await ask(path, { method: "PUT", body })).json();

export const buffer = async (path) => (await ask(path)).arrayBuffer();

const kinds = { float32: Float32Array, float16: Uint16Array, uint8: Uint8Array };

// {shape: [H, W, c], type, data, ...} or null, where it is not there (yet).
export async function raw(path, options) {
  const answer = await ask(path, options);
  if (answer.status === 204) return null;
  const about = JSON.parse(answer.headers.get("x-sasm"));
  return { ...about, data: new kinds[about.type](await answer.arrayBuffer()) };
}

// The bits of half-precision numbers -> their values.
let halves = null;
export function plain(array) {
  if (array.type !== "float16") return array.data;
  if (!array.plain) {
    halves ??= Float32Array.from({ length: 65536 }, (_, bits) => {
      const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
      if (exponent === 31) return fraction ? NaN : sign * Infinity;
      return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
    });
    array.plain = Float32Array.from(array.data, (bits) => halves[bits]);
  }
  return array.plain;
}
