// The images there are, as cards; and files that are dropped on the page.

import { get, post, put } from "./api.js";

const list = document.getElementById("cards");
const seen = new Map(); // id -> {node, card, look}
const queue = [];
let running = 0;

const element = (name, text, className) => {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
};

// Thumbnails of what is in sight only: a folder may hold thousands of photos.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const one = seen.get(target.dataset.id);
    if (!one) continue;
    one.visible = isIntersecting;
    if (isIntersecting) want(one);
  }
}, { root: list, rootMargin: "200px" });

function want(one) {
  if (one.card.refusal || queue.includes(one) || (one.look && (one.look.noise !== null || !ready))) return;
  queue.push(one);
  while (running < 2 && queue.length) {
    running++;
    look(queue.shift()).finally(() => { running--; const next = queue.find((other) => other.visible); if (next) { queue.splice(queue.indexOf(next), 1); want(next); } });
  }
}

async function look(one) {
  try {
    one.look = await get(`images/${one.card.id}/look`);
  } catch (error) {
    one.look = { noise: 0 };
    one.card = { ...one.card, refusal: error.message };
  }
  fill(one);
}

function fill(one) {
  const { card, look, node } = one;
  const parts = [];
  if (look?.thumbnail) {
    const image = element("img");
    image.src = look.thumbnail;
    image.alt = "";
    parts.push(image);
  } else if (!card.refusal) parts.push(element("div", undefined, "blank"));
  parts.push(element("b", card.place));
  if (card.refusal) parts.push(element("span", card.mayBe.length ? "The file does not say what made it. It is:" : card.refusal));
  else {
    const size = look?.shape ? `${look.shape[1]} × ${look.shape[0]}${look.slices > 1 ? ` × ${look.slices}` : ""}` : `${card.files} file${card.files > 1 ? "s" : ""}`;
    parts.push(element("span", `${card.modality} · ${size}`));
    if (card.geometry !== "single" && card.geometry !== "regular") parts.push(element("span", `slices: ${card.geometry}`));
    if (look?.noise) parts.push(element("span", `noise ≈ ${say(look.noise, look.unit)}`));
  }
  node.classList.toggle("refused", Boolean(card.refusal));
  node.title = [card.place, ...card.notes].join("\n");
  if (card.mayBe.length) {
    const row = element("div", undefined, "ask");
    for (const modality of card.mayBe) {
      const button = element("button", modality);
      button.onclick = async () => { one.card = await post(`images/${card.id}/modality`, { modality }); one.look = null; remake(one); want(one); };
      row.append(button);
    }
    parts.push(row);
  }
  node.replaceChildren(...parts);
}

// A refused image is no button: nothing happens on it.
function remake(one) {
  const node = element(one.card.refusal ? "div" : "button", undefined, "card");
  node.dataset.id = one.card.id;
  if (!one.card.refusal) {
    node.onclick = () => opened(one.card);
    const read = () => get(`images/${one.card.id}/gate/about`).catch(() => {}); // who points at it is about to open it
    node.onpointerenter = () => { one.dwelling = setTimeout(read, 150); };
    node.onpointerleave = () => clearTimeout(one.dwelling);
  }
  if (one.node) { watcher.unobserve(one.node); one.node.replaceWith(node); } else list.append(node);
  one.node = node;
  watcher.observe(node);
  fill(one);
}

let opened = () => {}, ready = false;
export function onOpen(callback) { opened = callback; }

export const say = (value, unit) => (unit === "sRGB" ? `${(255 * value).toFixed(1)} of 255` : unit === "HU" ? `${value.toFixed(Math.abs(value) < 10 ? 2 : 1)} HU` : `${+value.toPrecision(3)}`);

export function show(state) {
  for (const card of state.images) if (!seen.has(card.id)) { const one = { card }; seen.set(card.id, one); remake(one); }
  if (state.ready && !ready) { ready = true; for (const one of seen.values()) if (one.visible) want(one); }
}

export function mark(id) {
  for (const [other, one] of seen) one.node.setAttribute("aria-current", other === id);
  seen.get(id)?.node.scrollIntoView({ block: "nearest" });
}

export const next = (id, step) => {
  const usable = [...seen.values()].filter((one) => !one.card.refusal), at = usable.findIndex((one) => one.card.id === id);
  return usable[at + step]?.card;
};

// Files of a drop, folders with all that is in them.
async function entries(items) {
  const found = [];
  const visit = async (entry) => {
    if (entry.isFile) found.push(await new Promise((done, failed) => entry.file(done, failed)));
    else {
      const reader = entry.createReader();
      for (let part; (part = await new Promise((done, failed) => reader.readEntries(done, failed))).length; ) for (const one of part) await visit(one);
    }
  };
  for (const entry of [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean)) await visit(entry);
  return found;
}

export function takeDrops(told) {
  const send = async (files) => {
    if (!files.length) return;
    try {
      let sent = 0;
      for (const file of files) {
        told(`Taking over ${++sent} of ${files.length}…`);
        await put(`files/${encodeURIComponent(file.name)}`, file);
      }
      show(await post("files"));
      told("");
    } catch (error) { told(error.message, true); show(await post("files")); }
  };
  for (const [button, input] of [["add-files", "files"], ["add-folder", "folder"]]) {
    const field = document.getElementById(input);
    document.getElementById(button).onclick = () => field.click();
    field.onchange = () => send([...field.files]);
  }
  document.getElementById("samples").onclick = async () => { told("Loading…"); show(await post("samples")); told(""); };
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    await send(event.dataTransfer.items ? await entries(event.dataTransfer.items) : [...event.dataTransfer.files]);
  });
}
