// The worker that runs the graphs: on the graphics processor where there is one, else as WebAssembly.

import * as ort from "./vendor/ort.webgpu.bundle.min.mjs";
import { unpacked } from "./decode.js";

const bytes = async (path) => {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path} cannot be loaded`);
  const content = new Uint8Array(await answer.arrayBuffer());
  return content[0] === 0x1f && content[1] === 0x8b ? unpacked(content) : content; // some hosts unpack on the way
};
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
ort.env.logLevel = "error";
const started = (async () => {
  ort.env.wasm.wasmBinary = await bytes("./vendor/ort-wasm-simd-threaded.asyncify.wasm.packed");
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
})();
const sessions = new Map();

// The gate's graphs and what sorts stay off the graphics processor: they are small, and exact there.
async function open(name) {
  const graphics = (await started) && /_(unet|esrgan)$/.test(name), content = await bytes(`./models/${name}.onnx.packed`);
  if (graphics) try { return await ort.InferenceSession.create(content, { executionProviders: ["webgpu"] }); } catch { /* as WebAssembly, then */ }
  return ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
}

onmessage = async ({ data: { id, name, feeds } }) => { // one at a time: whoever asks waits for the answer
  try {
    if (!sessions.has(name)) sessions.set(name, open(name));
    const session = await sessions.get(name), given = {};
    for (const key of feeds ? session.inputNames : []) given[key] = new ort.Tensor("float32", ...feeds[key]);
    const found = feeds ? await session.run(given) : {};
    postMessage({ id, value: Object.fromEntries(Object.entries(found).map(([key, one]) => [key, one.data.slice()])) });
  } catch (error) { sessions.delete(name); postMessage({ id, reason: String(error?.message ?? error) }); }
};
