// The page: which image and slice is shown, and the controls around it.

import { get, plain, post, raw } from "./api.js";
import { mark, next, onOpen, say, show as showCards, takeDrops } from "./cards.js";
import { CT_WINDOWS, gradient, table } from "./colours.js";
import { Measuring } from "./measuring.js";
import { reader } from "./measure.js";
import { Painting } from "./painting.js";
import { Planes } from "./planes.js";
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const HELD = 96; // slices kept in the page
const view = (window.sasmView = { study: null, slice: 0, held: new Map(), done: "" });
const stage = (view.stage = new Stage($("picture"), $("marks"), changed, (steps) => go(view.slice + steps)));
const planes = (view.planes = new Planes((text) => busy(text)));
const painting = new Painting(stage, setTool, (expert) => open(view.study, expert), (text) => busy(text, true));
const measuring = (view.measuring = new Measuring(stage, setStrength));

// --- images and slices

async function open(card, expert = "gate") {
  const base = `images/${card.id}/${expert}`, kept = view.study?.id === card.id ? view.slice : null;
  const size = String(kept !== null && stage.size);
  view.study = { id: card.id, base, expert };
  view.held = new Map();
  mark(card.id);
  $("save").disabled = $("copy").disabled = true;
  $("saved").textContent = "";
  busy("Reading…");
  let about;
  try { about = await get(`${base}/about`); } catch (error) { return view.study?.base === base && busy(error.message, true); }
  if (view.study?.base !== base) return;
  Object.assign(view.study, about);
  $("empty").hidden = true;
  if (kept === null || size !== `${about.shape[2]},${about.shape[1]}`) {
    const { centre, zoom, moved, size: old } = stage, times = kept !== null && moved ? about.shape[2] / old[0] : 0;
    stage.open(about);
    if (times) Object.assign(stage, { centre: centre.map((one) => one * times), zoom: zoom / times, moved }); // the same part, larger
    measuring.open(about);
    for (const name of ["before", "change", "overlay"]) stage.renderer.put(name, null);
    offerWindows(about);
    offerOverlays({ weights: {} });
  }
  $("title").textContent = `${about.place}  ·  ${about.modality}  ·  ${about.shape[2]} × ${about.shape[1]}${about.slices > 1 ? ` × ${about.slices}` : ""}`;
  $("title").title = [about.place, ...about.notes].join("\n");
  $("target").textContent = `Will be written to ${about.target}, as sasm restore does.`;
  $("save").disabled = $("copy").disabled = false;
  painting.open(about, base);
  $("slices").hidden = about.slices === 1;
  $("slice").max = about.slices - 1;
  offerExperts([], expert);
  view.done = "";
  $("modes").querySelector("[data-mode=planes]").disabled = about.slices === 1;
  if (["planes", "report"].includes(view.mode)) setMode(view.mode === "planes" && about.slices > 1 ? "planes" : stage.mode);
  if (/^(fill|enlarge)-/.test(expert)) { stage.shown = "before"; view.mode = "blink"; setMode("blink"); }
  $("marks").focus({ preventScroll: true });
  follow(base);
  await go(kept ?? Math.floor(about.slices / 2), true);
}

async function go(index, force = false) {
  const study = view.study;
  if (!study?.slices) return;
  index = Math.min(study.slices - 1, Math.max(0, index));
  if (index === view.slice && !force) return;
  view.slice = index;
  $("slice").value = index;
  $("slice-number").textContent = `${index + 1} / ${study.slices}`;
  const here = () => view.study === study && view.slice === index;
  const one = held(index);
  try {
    if (study.reduction > 1 && !one.change) await showPreview(study, one, here);
    if (!one.before) await new Promise(requestAnimationFrame); // who scrolls fast wants the last one only
    if (!here()) return;
    one.before ??= await raw(`${study.base}/before/${index}`);
    if (!here()) return;
    if (!one.preview || one.change) put(one);
    if (!one.change && view.done[index] !== "1") {
      if (!one.preview) busy("Restoring…");
      if (!force) await new Promise((later) => setTimeout(later, 80)); // who scrolls on does not want this one
    }
    while (here() && !one.change) one.change = await raw(`${study.base}/change/${index}`);
    if (!here()) return;
    one.preview = null;
    busy("");
    put(one);
    ahead(study, index);
  } catch (error) { if (here()) busy(error.message, true); }
}

// A photo at a fraction of its size first.
async function showPreview(study, one, here) {
  const before = await raw(`${study.base}/before/0?preview=1`);
  if (!here()) return;
  put({ before });
  busy("Restoring…");
  let change = null;
  while (here() && !change) change = await raw(`${study.base}/change/0?preview=1`);
  one.preview = { before, change };
  if (here()) { put(one.preview); busy(/^enlarge/.test(study.expert) ? "The rest of the photo follows…" : "Preview; the whole photo follows…"); }
}

function held(index) {
  const one = view.held.get(index) ?? {};
  view.held.delete(index);
  view.held.set(index, one);
  while (view.held.size > HELD) view.held.delete(view.held.keys().next().value);
  return one;
}

// Slices around the one that is shown, as far as they are restored.
async function ahead(study, index) {
  for (const step of [1, -1, 2, -2, 3, -3, 4, -4]) {
    const other = index + step;
    if (view.study !== study || view.slice !== index) return;
    if (other < 0 || other >= study.slices || view.done[other] !== "1") continue;
    const one = held(other);
    one.before ??= await raw(`${study.base}/before/${other}`);
    one.change ??= await raw(`${study.base}/change/${other}`);
  }
}

function put(one) {
  view.now = one;
  stage.renderer.put("before", one.before);
  stage.renderer.put("change", one.change ?? null);
  if (one.change) { offerOverlays(one.change); explain(one.change); }
  overlay();
  const numbers = one.change && reader(plain(one.change), one.change.shape[2]);
  measuring.put(one.before && { shape: one.before.shape, before: reader(plain(one.before), one.before.shape[2]), change: numbers });
  pointer();
  stage.draw();
  document.body.dataset.shown = `${view.study.id} ${view.study.expert} ${view.slice} ${one.change ? "restored" : "before"}`;
}

// What is restored, until all is.
async function follow(base) {
  while (view.study?.base === base) {
    try {
      const found = await get(`${base}/progress`);
      if (view.study?.base !== base) return;
      view.done = found.done;
      offerExperts(found.experts, view.study.expert);
      strip(found);
      measureVolume(view.study);
      if (found.failure || (found.ready && !found.done.includes("0"))) return;
    } catch { return; }
    await new Promise((later) => setTimeout(later, 400));
  }
}

// The target noise is of the whole volume, as soon as the slices that tell it are restored.
async function measureVolume(study) {
  const parts = Math.min(study.slices, 7), some = Array.from({ length: parts }, (_, part) => Math.floor(((part + 0.5) * study.slices) / parts));
  if (study.picture || study.measured || some.some((index) => view.done[index] !== "1")) return;
  study.measured = true;
  const slices = [];
  for (const index of some) {
    const before = await raw(`${study.base}/before/${index}`), change = await raw(`${study.base}/change/${index}`);
    slices.push({ shape: before.shape, before: reader(before.data, 1), change: reader(change.data, 1) });
  }
  if (view.study === study) measuring.volume(slices);
}

function strip({ done, part, failure, ready }) {
  const canvas = $("restored"), context = canvas.getContext("2d");
  canvas.width = done.length;
  for (let i = 0; i < done.length; i++) { context.fillStyle = done[i] === "1" ? "#5bbcf2" : "#282d33"; context.fillRect(i, 0, 1, 4); }
  const count = [...done].filter((one) => one === "1").length;
  if (failure) $("progress").textContent = failure;
  else if (!ready) $("progress").textContent = "Networks are being loaded…";
  else if (count === done.length) $("progress").textContent = done.length > 1 ? "All slices restored" : "Restored";
  else $("progress").textContent = done.length > 1 ? `Restored ${count} of ${done.length} slices` : `Restored ${Math.round(100 * part)} %`;
}

// --- controls

function setStrength(value) {
  stage.look.strength = Math.min(1, Math.max(0, Math.round(value * 1000) / 1000));
  $("strength").value = stage.look.strength;
  $("strength-number").textContent = `${Math.round(100 * stage.look.strength)} %`;
  measuring.draw();
  pointer();
  stage.draw();
}

function setWindow(low, high) {
  Object.assign(stage.look, { low, high });
  windowNumbers();
  planes.window(stage.look);
  stage.draw();
}

function windowNumbers() {
  const { low, high } = stage.look, short = (value) => (view.study?.unit === "HU" ? Math.round(value) : +value.toPrecision(4));
  $("level").value = short((low + high) / 2);
  $("width").value = short(high - low);
  for (const button of $("presets").children) button.setAttribute("aria-pressed", Math.abs(button.low - low) < 1e-6 && Math.abs(button.high - high) < 1e-6);
}

function offerWindows(about) {
  const [dark, , bright] = about.percentiles;
  let offers = Object.entries(CT_WINDOWS).map(([name, [level, width]]) => [name, level - width / 2, level + width / 2]);
  if (about.picture) offers = [["As it is", 0, 1], ["Shadows", 0, 0.4], ["Lights", 0.6, 1]];
  else if (about.unit !== "HU") offers = [["1–99.5 %", dark, bright], ["Dark", dark, dark + 0.5 * (bright - dark)], ["Wide", 0, 1.6 * bright]];
  $("presets").replaceChildren(...offers.map(([name, low, high]) => {
    const button = Object.assign(document.createElement("button"), { textContent: name, low, high });
    button.onclick = () => setWindow(low, high);
    return button;
  }));
  setWindow(offers[0][1], offers[0][2]);
}

function offerExperts(experts, chosen) {
  const names = ["gate", ...experts];
  if (!names.includes(chosen)) names.push(chosen);
  if (String(names) === String([...$("expert").options].map((one) => one.value)) && $("expert").value === chosen) return;
  const words = { gate: "the gate decides", fill: "painted area filled", enlarge: "enlarged" };
  const text = (name) => words[name] ?? (words[name.split("-")[0]] ? `${words[name.split("-")[0]]} (${name.split("-")[1]})` : name);
  $("expert").replaceChildren(...names.map((name) => new Option(text(name), name, false, name === chosen)));
}

function offerOverlays({ weights, uncertain }) {
  const chosen = $("overlay").value, names = Object.keys(weights).filter((name) => name !== "identity");
  const offers = [["", "None"], ["change", "Change"], ...names.map((name) => [`weight/${name}`, `Weight of ${name}`])];
  if (uncertain) offers.push(["uncertainty", "Uncertainty"]);
  if (offers.map(String).join() === view.offered) return;
  view.offered = offers.map(String).join();
  $("overlay").replaceChildren(...offers.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

function explain({ noise, weights, notes }) {
  $("notes").textContent = notes.join(" ");
  const parts = Object.entries(weights).filter(([, weight]) => weight >= 0.005).sort((a, b) => b[1] - a[1]);
  const words = parts.map(([name, weight]) => `${name === "identity" ? "unchanged" : name} ${Math.round(100 * weight)} %`);
  const nothing = weights.identity > 0.995 ? "Nothing to repair was found in this slice. " : "";
  const grain = noise ? `noise ≈ ${say(noise, view.study.unit)}` : "";
  $("acting").textContent = `${nothing || `${words.join(", ")}${words.length && grain ? "; " : ""}`}${grain}`;
}

async function overlay() {
  const name = $("overlay").value, now = view.now, look = stage.look;
  look.opacity = name ? +$("opacity").value : 0;
  look.overlayIsChange = name === "change";
  $("scale").hidden = !name;
  if (!name || !now?.change) return stage.draw();
  const kind = name.split("/")[0];
  if (kind === "change") {
    now.reach ??= nice(quantile(plain(now.change), 0.99));
    view.study.reach ??= now.reach; // one scale for all slices
    Object.assign(look, { overlayLow: -view.study.reach, overlayHigh: view.study.reach });
  } else {
    now.maps ??= {};
    now.maps[name] ??= (await raw(`${view.study.base}/${name}/${view.slice}`)) ?? { shape: [1, 1, 1], type: "uint8", data: new Uint8Array(1) };
    if (view.now !== now || $("overlay").value !== name) return;
    stage.renderer.put("overlay", now.maps[name]);
    Object.assign(look, { overlayLow: 0, overlayHigh: kind === "weight" ? 1 : nice(quantile(now.maps[name].data, 0.995)) });
  }
  stage.renderer.colours(table(kind));
  $("scale-bar").style.background = gradient(kind);
  const unit = kind === "weight" ? null : view.study.unit;
  const ends = [look.overlayLow, look.overlayHigh].map((value) => (value && unit !== "HU" ? say(value, unit) : `${value}${unit === "HU" ? " HU" : ""}`));
  [$("scale-low").textContent, $("scale-high").textContent] = ends;
  stage.draw();
}

function quantile(numbers, share) {
  const step = Math.max(1, Math.floor(numbers.length / 20000)), some = [];
  for (let i = 0; i < numbers.length; i += step) some.push(Math.abs(numbers[i]));
  return some.sort((a, b) => a - b)[Math.floor(share * (some.length - 1))];
}

function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 5, 7, 10].find((one) => one * power >= value);
}

function pointer() {
  const place = stage.cross, now = view.now, pixel = place && now?.before && stage.pixel(place);
  if (!pixel) return ($("value").textContent = "");
  const shown = view.valueAt(...pixel), unit = view.study.unit;
  const text = (values) => values.map((value) => (unit === "sRGB" ? Math.round(255 * value) : unit === "HU" ? value.toFixed(1) : +value.toPrecision(4))).join(" ");
  const after = shown.after ? `   after ${text(shown.after)}   change ${text(shown.after.map((value, i) => value - shown.before[i]))}` : "";
  $("value").textContent = `x ${pixel[0]}  y ${pixel[1]}   before ${text(shown.before)}${after}${unit === "HU" ? " HU" : ""}`;
}

// Values before and after, at the strength that is shown, of a pixel of the full image: one number a colour.
view.valueAt = (column, row) => {
  const { before, change } = view.now, [height, width, count] = before.shape;
  const x = Math.min(width - 1, Math.floor((column * width) / stage.size[0])), y = Math.min(height - 1, Math.floor((row * height) / stage.size[1]));
  const at = (array) => Array.from({ length: count }, (_, k) => plain(array)[(y * width + x) * count + k]);
  const first = at(before);
  return { before: first, after: change ? at(change).map((value, k) => first[k] + stage.look.strength * value) : null };
};

function changed(what) {
  if (what === "window") windowNumbers();
  if (what === "measure") measuring.look();
  if (what === "pointer") pointer();
}

function setMode(mode) {
  if (mode === "planes" && !(view.study?.slices > 1)) return;
  if (mode === "blink" && view.mode === "blink") stage.shown = stage.shown === "after" ? "before" : "after";
  view.mode = mode;
  for (const button of $("modes").children) button.setAttribute("aria-checked", button.dataset.mode === mode);
  $("planes").hidden = mode !== "planes";
  $("report").hidden = mode !== "report";
  $("toolbar").hidden = mode === "planes" || mode === "report";
  if (mode === "planes") return showPlanes();
  if (mode === "report") return showReport();
  stage.mode = mode;
  if (stage.about && !stage.moved) stage.fit();
  stage.draw();
}

async function showPlanes() {
  const { base } = view.study, complete = !view.done.includes("0") && view.done !== "";
  try {
    await planes.show(base, stage.look, complete);
    if (!complete) setTimeout(() => view.mode === "planes" && view.study?.base === base && showPlanes(), 1000);
  } catch (error) { busy(error.message, true); }
}

function showReport() {
  const page = view.study?.report;
  $("report-offer").hidden = Boolean(page);
  $("report-page").hidden = !page;
  $("qualify").disabled = !view.study;
  if (page && $("report-page").dataset.page !== page) Object.assign($("report-page"), { src: `/report/${page}` }).dataset.page = page;
}

async function qualify() {
  const study = view.study;
  $("qualify").disabled = true;
  try {
    const { job } = await post(`${study.base}/qualify`);
    const state = await finished(job, (one) => ($("qualify-state").textContent = one.state === "waiting" ? "Networks are being loaded…" : "Measuring…"));
    study.report = state.report;
    $("qualify-state").textContent = state.reason;
  } catch (error) { $("qualify-state").textContent = error.message; }
  $("qualify").disabled = false;
  if (view.mode === "report") showReport();
}

// Wait for a job of the server; told is called with its state meanwhile.
async function finished(job, told) {
  for (;;) {
    const state = (await get("jobs"))[job];
    if (!["waiting", "working"].includes(state.state)) return state;
    told(state);
    await new Promise((later) => setTimeout(later, 300));
  }
}

function setTool(tool) {
  stage.tool = tool;
  for (const button of $("toolbar").children) button.setAttribute("aria-checked", button.dataset.tool === tool);
  $("marks").style.cursor = { window: "default", pan: "grab" }[tool] ?? "crosshair";
}

function busy(text, wrong = false) {
  $("busy").textContent = text;
  $("busy").hidden = !text;
  $("busy").classList.toggle("wrong", wrong);
  if (wrong) document.body.dataset.trouble = text;
}

// --- saving

async function save(overwrite = false) {
  const { base } = view.study;
  $("save").disabled = true;
  try {
    const { job } = await post(`${base}/save`, { strength: stage.look.strength, overwrite });
    const state = await finished(job, (one) => ($("saved").textContent = one.state === "waiting" ? "Waiting for the last slices…" : "Writing…"));
    $("saved").textContent = state.state === "done" ? `Saved: ${state.path}` : `Not saved: ${state.reason}`;
    if (state.state === "exists") $("saved").append(" ", Object.assign(document.createElement("button"), { textContent: "Replace it", onclick: () => save(true) }));
  } catch (error) { $("saved").textContent = `Not saved: ${error.message}`; }
  $("save").disabled = false;
}

async function copy() {
  const { command } = await get(`${view.study.base}/command?strength=${stage.look.strength}`);
  try { await navigator.clipboard.writeText(command); $("saved").textContent = `Copied: ${command}`; } catch { $("saved").textContent = command; }
}

// --- keys

const KEYS = {
  "1": ["side by side", () => setMode("side")],
  "2": ["wipe", () => setMode("wipe")],
  " ": ["blink: before and after in turn", () => setMode("blink")],
  "3": ["three planes", () => setMode("planes")],
  "4": ["report of this image", () => setMode("report")],
  ArrowUp: ["slice before", () => go(view.slice - 1)],
  ArrowDown: ["slice after", () => go(view.slice + 1)],
  PageUp: ["ten slices before", () => go(view.slice - 10)],
  PageDown: ["ten slices after", () => go(view.slice + 10)],
  ArrowLeft: ["wipe line to the left", () => wipeBy(-0.02)],
  ArrowRight: ["wipe line to the right", () => wipeBy(0.02)],
  "+": ["zoom in", () => stage.magnify(1.25)],
  "-": ["zoom out", () => stage.magnify(0.8)],
  "0": ["whole image", () => stage.fit()],
  "[": ["less strength", () => setStrength(stage.look.strength - 0.05)],
  "]": ["more strength", () => setStrength(stage.look.strength + 0.05)],
  o: ["next overlay", () => { const list = $("overlay"); list.selectedIndex = (list.selectedIndex + 1) % list.length; overlay(); }],
  w: ["tool: window", () => setTool("window")],
  h: ["tool: pan", () => setTool("pan")],
  c: ["tool: region A", () => setTool("circle")],
  b: ["tool: region B", () => setTool("background")],
  l: ["tool: profile", () => setTool("line")],
  m: ["photos: tool that paints what is to be filled", () => painting.on && setTool("brush")],
  Enter: ["draw with the tool in the middle", () => measuring.draws()],
  Escape: ["remove regions and profile", () => measuring.clear()],
  n: ["next image", () => { const card = next(view.study?.id, 1); if (card) open(card); }],
  p: ["previous image", () => { const card = next(view.study?.id, -1); if (card) open(card); }],
  s: ["save", () => view.study && save()],
  "?": ["these keys", () => $("keys").showModal()],
};
if (document.documentElement.classList.contains("tab")) for (const key of ["3", "4", "m", "s"]) delete KEYS[key]; // no server
const SHIFTED = { ArrowUp: [0, 40], ArrowDown: [0, -40], ArrowLeft: [40, 0], ArrowRight: [-40, 0] };

function wipeBy(step) {
  stage.wipe = Math.min(1, Math.max(0, stage.wipe + step));
  stage.draw();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || $("keys").open || event.target.closest("input, select")) return;
  if (event.target.closest("button:not([role=radio])") && [" ", "Enter"].includes(event.key)) return;
  if (event.target.closest("[role=radio]") && event.key === "Enter") return;
  if (event.shiftKey && SHIFTED[event.key]) stage.pan(...SHIFTED[event.key]);
  else if (event.altKey) { if (!measuring.key(event.key)) return; }
  else if (KEYS[event.key]) KEYS[event.key][1]();
  else return;
  event.preventDefault();
});

for (const [key, [text]] of [...Object.entries(KEYS), ["Shift + arrows", ["pan"]], ["Alt + arrows", ["move region A or B"]], ["Alt + plus or minus", ["larger or smaller region"]]]) {
  const term = document.createElement("dt");
  term.append(Object.assign(document.createElement("kbd"), { textContent: { " ": "Space", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" }[key] ?? key }));
  $("keys").querySelector("dl").append(term, Object.assign(document.createElement("dd"), { textContent: text }));
}

// --- the start

$("strength").oninput = () => setStrength(+$("strength").value);
$("opacity").oninput = overlay;
$("overlay").onchange = overlay;
$("expert").onchange = () => open(view.study, $("expert").value);
for (const field of ["level", "width"]) $(field).onchange = () => setWindow(+$("level").value - $("width").value / 2, +$("level").value + $("width").value / 2);
$("slice").oninput = () => go(+$("slice").value);
for (const button of $("modes").children) button.onclick = () => setMode(button.dataset.mode);
for (const button of $("toolbar").children) button.onclick = () => setTool(button.dataset.tool);
$("save").onclick = () => save();
$("copy").onclick = copy;
$("qualify").onclick = qualify;
$("strength").onchange = () => view.mode === "planes" && showPlanes();
$("help").onclick = () => $("keys").showModal();
onOpen((card) => open(card));
takeDrops(busy);
setMode("wipe");
setTool("window");
setStrength(1);
$("slices").hidden = true;

async function start() {
  for (;;) {
    let state;
    try { state = await get("state"); } catch (error) { return busy(error.message, true); }
    showCards(state);
    if (state.trouble) busy(state.trouble, true);
    if (!view.study) {
      const usable = state.images.filter((card) => !card.refusal);
      if (state.looking) $("progress").textContent = "Looking through the files…";
      else $("progress").textContent = state.ready ? "" : "Networks are being loaded…";
      if (!state.looking && usable.length === 1 && state.images.length === 1) open(usable[0]); // nothing to choose
    }
    document.body.dataset.state = state.looking ? "looking" : state.ready ? "ready" : "loading";
    if (!state.looking && (state.ready || state.trouble)) return;
    await new Promise((later) => setTimeout(later, 300));
  }
}
start();
