// Requests to the server that this page came from; the token is in the address, behind the #, and so is never logged.

const token = decodeURIComponent(location.hash.slice(1));

async function ask(path, options = {}) {
  const headers = { authorization: `Bearer ${token}`, ...options.headers };
  const answer = await fetch(`/api/${path}`, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({})); // where no words came
  throw new Error(detail ?? `the server answers ${answer.status}`);
}

export const get = async (path) => (await ask(path)).json();
export const buffer = async (path) => (await ask(path)).arrayBuffer();
export const send = async (path, body, method = "POST") => (await ask(path, { method, body })).json();
export const post = (path, body = {}) => send(path, JSON.stringify(body));
export const put = (path, body) => send(path, body, "PUT");

const kinds = { float32: Float32Array, float16: Float16Array, uint8: Uint8Array };

// {shape: [H, W, c], type, data, ...} or null, where it is not there (yet).
export async function raw(path, options) {
  const answer = await ask(path, options);
  if (answer.status === 204) return null;
  const about = JSON.parse(answer.headers.get("x-sasm"));
  return { ...about, data: new kinds[about.type](await answer.arrayBuffer()) };
}
