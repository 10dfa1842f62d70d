// The images there are, as cards; and files that are dropped on the page.

import { get, post, put } from "./api.js";
import { $, element } from "./dom.js";

const list = $("cards");
const seen = new Map(); // id -> {node, card, look, visible}
const queue = [];
let running = 0, ready = false, opened = () => {};

// Thumbnails of what is in sight only: a folder may hold thousands of photos.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const one = seen.get(target.dataset.id);
    one.visible = isIntersecting;
    if (isIntersecting) want(one);
  }
}, { root: list, rootMargin: "200px" });

function want(one) {
  if (one.card.refusal || queue.includes(one) || (one.look && (one.look.noise !== null || !ready))) return;
  queue.push(one);
  if (running < 2) look();
}

async function look() {
  running++;
  for (let one; (one = queue.shift()); ) {
    if (!one.visible) continue;
    try {
      one.look = await get(`images/${one.card.id}/look`);
    } catch (error) {
      one.look = { noise: 0 };
      one.card = { ...one.card, refusal: error.message };
    }
    fill(one);
  }
  running--;
}

function fill(one) {
  const { card, look, node } = one, { geometry, refusal, mayBe, files } = card, [height, width] = look?.shape ?? [];
  const size = height ? [width, height, ...(look.slices > 1 ? [look.slices] : [])].join(" × ") : `${files} file${files > 1 ? "s" : ""}`;
  const lines = refusal ? [mayBe.length ? "The file does not say what made it. It is:" : refusal] : [`${card.modality} · ${size}`];
  if (!refusal && !["single", "regular"].includes(geometry)) lines.push(`slices: ${geometry}`);
  if (!refusal && look?.noise) lines.push(`noise${look.unit === "sRGB" ? " estimate" : ""} ≈ ${say(look.noise, look.unit)}`);
  node.classList.toggle("refused", Boolean(refusal));
  node.title = [card.place, ...card.notes].join("\n");
  node.replaceChildren(element("b", {}, card.place), ...lines.map((text) => element("span", {}, text)));
  if (look?.thumbnail) node.prepend(element("img", { src: look.thumbnail, alt: "" }));
  else if (!refusal) node.prepend(element("div", { className: "blank" }));
  const buttons = mayBe.map((modality) => element("button", { onclick: () => declare(one, modality) }, modality));
  if (buttons.length) node.append(element("div", { className: "ask" }, ...buttons));
}

async function declare(one, modality) {
  one.card = await post(`images/${one.card.id}/modality`, { modality });
  one.look = null;
  remake(one);
  want(one);
}

// A refused image is no button: nothing happens on it.
function remake(one) {
  const { id, refusal } = one.card, node = element(refusal ? "div" : "button", { className: "card" });
  node.dataset.id = id;
  if (!refusal) {
    node.onclick = () => opened(one.card);
    const read = () => get(`images/${id}/gate/about`).catch(() => {}); // who points at it is about to open it
    node.onpointerenter = () => { one.dwelling = setTimeout(read, 150); };
    node.onpointerleave = () => clearTimeout(one.dwelling);
  }
  if (one.node) { watcher.unobserve(one.node); one.node.replaceWith(node); } else list.append(node);
  one.node = node;
  watcher.observe(node);
  fill(one);
}

export const say = (value, unit) => (unit === "sRGB" ? `${(255 * value).toFixed(1)} of 255` : unit === "HU" ? `${value.toFixed(Math.abs(value) < 10 ? 2 : 1)} HU` : `${+value.toPrecision(3)}`);

export function show(state) {
  for (const card of state.images.filter(({ id }) => !seen.has(id))) {
    seen.set(card.id, { card });
    remake(seen.get(card.id));
  }
  if (state.ready && !ready) { ready = true; for (const one of seen.values()) if (one.visible) want(one); }
}

export function mark(id) {
  for (const [other, one] of seen) one.node.setAttribute("aria-current", other === id);
  seen.get(id)?.node.scrollIntoView({ block: "nearest" });
}

// Files of a drop, folders with all that is in them.
async function entries(items) {
  const found = [], told = (ask) => new Promise((done, failed) => ask(done, failed));
  const visit = async (entry) => {
    if (entry.isFile) return found.push(await told((...both) => entry.file(...both)));
    const reader = entry.createReader();
    for (let part; (part = await told((...both) => reader.readEntries(...both))).length; ) for (const one of part) await visit(one);
  };
  for (const entry of [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean)) await visit(entry);
  return found;
}

// open(card): somebody chose it; told(text, wrong): of files on their way.
export function begin(open, told) {
  opened = open;
  const send = async (files) => {
    let sent = 0, trouble = "";
    try {
      for (const file of files) {
        told(`Taking over ${++sent} of ${files.length}…`);
        await put(`files/${encodeURIComponent(file.name)}`, file);
      }
    } catch (error) { trouble = error.message; }
    try {
      if (files.length) show(await post("files"));
    } catch (error) { trouble ||= error.message; }
    told(trouble, Boolean(trouble));
  };
  for (const [button, input] of [[$("add-files"), $("files")], [$("add-folder"), $("folder")]]) {
    button.onclick = () => input.click();
    input.onchange = () => send([...input.files]);
  }
  $("samples").onclick = async () => { told("Loading…"); show(await post("samples")); told(""); };
  const marked = (on) => document.body.classList.toggle("dropping", on);
  addEventListener("dragover", (event) => { event.preventDefault(); marked(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) marked(false); });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    marked(false);
    send(await entries(event.dataTransfer.items));
  });
}
