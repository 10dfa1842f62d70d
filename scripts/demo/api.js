// What api.js of sasm view asks a server, asked a worker of this tab: nothing is sent anywhere.

export function asking(path) {
  const worker = new Worker(new URL(path, import.meta.url), { type: "module" }), waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data: { id, value, reason } }) => {
    const [done, failed] = waiting.get(id);
    waiting.delete(id);
    if (reason === undefined) done(value); else failed(new Error(reason));
  };
  worker.onerror = (event) => { for (const [, failed] of waiting.values()) failed(new Error(event.message ?? `${path} cannot be loaded`)); };
  return (message) => new Promise((done, failed) => { waiting.set(++count, [done, failed]); worker.postMessage({ id: count, ...message }); });
}

const ask = globalThis.document ? asking("./tab.js") : null;
export const get = (path) => ask({ path }), raw = get, buffer = get;
export const post = (path, body = {}) => ask({ path, body }), send = post, put = post;
