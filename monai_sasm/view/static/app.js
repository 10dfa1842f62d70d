// The page: which image and slice is shown, and the controls around it.

import { get, post, raw } from "./api.js";
import { begin, mark, say, show as showCards } from "./cards.js";
import { AFTER, CT_WINDOWS, gradient, table } from "./colours.js";
import { $, element, later } from "./dom.js";
import { EMPTY } from "./gl.js";
import { quantile } from "./measure.js";
import { Measuring } from "./measuring.js";
import { Painting } from "./painting.js";
import { Planes } from "./planes.js";
import { Stage } from "./stage.js";

const HELD = 96; // slices kept in the page
const white = () => (view.study?.unit === "sRGB" ? 255 : 1); // what photos have in their files
const view = (window.sasmView = { study: null, slice: 0, held: new Map(), done: "" });
const told = { window: windowNumbers, measure: () => measuring.look(), pointer, scroll: (steps) => go(view.slice + steps) };
const stage = (view.stage = new Stage($("picture"), $("marks"), told));
const planes = (view.planes = new Planes((text) => busy(text)));
const painting = new Painting(stage, setTool, (expert) => open(view.study, expert), (text) => busy(text, true));
const measuring = (view.measuring = new Measuring(stage, setStrength));

// --- images and slices

async function open(card, expert = "gate") {
  const base = `images/${card.id}/${expert}`, kept = view.study?.id === card.id ? view.slice : null;
  view.study = { id: card.id, base, expert };
  view.held = new Map();
  mark(card.id);
  $("save").disabled = $("copy").disabled = true;
  $("saved").textContent = "";
  busy("Reading…");
  const about = await get(`${base}/about`).catch((error) => ({ trouble: error.message }));
  if (view.study?.base !== base) return;
  if (about.trouble) return busy(about.trouble, true);
  Object.assign(view.study, about);
  $("empty").hidden = true;
  if (kept === null || String(stage.size) !== `${about.shape[2]},${about.shape[1]}`) {
    const { centre, zoom, moved, size: old } = stage, times = kept !== null && moved ? about.shape[2] / old[0] : 0;
    stage.open(about);
    if (times) Object.assign(stage, { centre: centre.map((one) => one * times), zoom: zoom / times, moved }); // the same part, larger
    for (const name of ["before", "change", "overlay"]) stage.renderer.put(name, null);
    offerWindows(about);
    offerOverlays({ weights: {} });
  }
  $("title").textContent = `${about.place}  ·  ${about.modality}  ·  ${about.shape[2]} × ${about.shape[1]}${about.slices > 1 ? ` × ${about.slices}` : ""}`;
  $("title").title = [about.place, ...about.notes].join("\n");
  $("target").textContent = about.target;
  $("save").disabled = $("copy").disabled = false;
  measuring.open(about);
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
  const one = held(index), here = () => view.study === study && view.slice === index;
  const previewed = study.reduction > 1 && !one.change; // a photo at a fraction of its size first
  try {
    if (previewed) await show({}, "0?preview=1", here, { pause: 0 });
    if (previewed && here()) busy(/^enlarge/.test(study.expert) ? "The rest of the photo follows…" : "Preview; the whole photo follows…");
    if (!one.before) await new Promise(requestAnimationFrame); // who scrolls fast wants the last one only
    await show(one, index, here, { pause: force ? 0 : 80, quiet: previewed });
    if (!here()) return;
    busy("");
    ahead(study, index);
  } catch (error) { if (here()) busy(error.message, true); }
}

// A slice as it came, and restored when it is; quiet: not before that.
async function show(one, name, here, { pause, quiet = false }) {
  if (!here()) return;
  const { base } = view.study;
  one.before ??= await raw(`${base}/before/${name}`);
  if (here() && !quiet) put(one);
  if (here() && !quiet && !one.change && view.done[name] !== "1") {
    busy("Restoring…");
    await later(pause); // who scrolls on does not want this one
  }
  while (here() && !one.change) one.change = await raw(`${base}/change/${name}`);
  if (here()) put(one);
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
    if (view.study !== study || view.slice !== index) return;
    if (view.done[index + step] === "1") await fetched(study, index + step, held(index + step));
  }
}

// A slice that is restored.
async function fetched(study, index, one = {}) {
  one.before ??= await raw(`${study.base}/before/${index}`);
  one.change ??= await raw(`${study.base}/change/${index}`);
  return one;
}

function put(one) {
  view.now = one;
  stage.renderer.put("before", one.before);
  stage.renderer.put("change", one.change ?? null);
  if (one.change) { offerOverlays(one.change); explain(one.change); }
  overlay();
  measuring.put(one);
  pointer();
  stage.draw();
  document.body.dataset.shown = `${view.study.id} ${view.study.expert} ${view.slice} ${one.change ? "restored" : "before"}`;
}

// What is restored, until all is.
async function follow(base) {
  for (const here = () => view.study?.base === base; here(); await later(400)) {
    const found = await get(`${base}/progress`).catch(() => null);
    if (!found || !here()) return;
    view.done = found.done;
    offerExperts(found.experts, view.study.expert);
    strip(found);
    measureVolume(view.study);
    if (found.failure || (found.ready && !found.done.includes("0"))) return;
  }
}

// The target noise is of the whole volume, as soon as the slices that tell it are restored.
async function measureVolume(study) {
  const parts = Math.min(study.slices, 7), some = Array.from({ length: parts }, (_, part) => Math.floor(((part + 0.5) * study.slices) / parts));
  if (study.picture || study.measured || some.some((index) => view.done[index] !== "1")) return;
  study.measured = true;
  const slices = await Promise.all(some.map((index) => fetched(study, index)));
  if (view.study === study) measuring.volume(slices, some);
}

function strip({ done, part, failure, ready }) {
  const canvas = Object.assign($("restored"), { width: done.length }), context = canvas.getContext("2d"), several = done.length > 1;
  context.fillStyle = AFTER;
  for (let i = 0; i < done.length; i++) if (done[i] === "1") context.fillRect(i, 0, 1, 4);
  const count = done.replaceAll("0", "").length, share = several ? `${count} of ${done.length} slices` : `${Math.round(100 * part)} %`;
  const text = count < done.length ? `Restored ${share}` : several ? "All slices restored" : "Restored";
  $("progress").textContent = failure || (ready ? text : "Networks are being loaded…");
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
  const { low, high } = stage.look, short = (value) => (view.study?.unit === "HU" ? Math.round(value) : +(value * white()).toPrecision(4));
  $("level").value = short((low + high) / 2);
  $("width").value = short(high - low);
  for (const button of $("presets").children) button.setAttribute("aria-pressed", Math.abs(button.low - low) < 1e-6 && Math.abs(button.high - high) < 1e-6);
}

function offerWindows(about) {
  const [dark, , bright] = about.percentiles;
  let offers = CT_WINDOWS;
  if (about.picture) offers = [["As it is", 0, 1], ["Shadows", 0, 0.4], ["Lights", 0.6, 1]];
  else if (about.unit !== "HU") offers = [["1–99.5 %", dark, bright], ["Dark", dark, dark + 0.5 * (bright - dark)], ["Wide", 0, 1.6 * bright]];
  const button = ([name, low, high]) => element("button", { low, high, onclick: () => setWindow(low, high) }, name);
  $("presets").replaceChildren(...offers.map(button));
  setWindow(offers[0][1], offers[0][2]);
}

function offerExperts(experts, chosen) {
  const names = new Set(["gate", ...experts, chosen]);
  const words = { gate: "the gate decides", fill: "painted area filled", enlarge: "enlarged" };
  const text = (name) => words[name] ?? (words[name.split("-")[0]] ? `${words[name.split("-")[0]]} (${name.split("-")[1]})` : name);
  offer($("expert"), Array.from(names, (name) => [name, text(name)]), chosen);
}

function offerOverlays({ weights, uncertain }) {
  const names = Object.keys(weights).filter((name) => name !== "identity");
  const offers = [["", "None"], ["change", "Change"], ...names.map((name) => [`weight/${name}`, `Weight of ${name}`])];
  if (uncertain) offers.push(["uncertainty", "Uncertainty"]);
  offer($("overlay"), offers, $("overlay").value);
}

// Choices [value, text] of a list; where they are the same it is left alone, for it may be open.
function offer(list, choices, chosen) {
  const offered = String([chosen, ...choices]);
  if (list.dataset.offered === offered) return;
  list.replaceChildren(...choices.map(([value, text]) => new Option(text, value, false, value === chosen)));
  list.dataset.offered = offered;
}

function explain({ weights, notes }) {
  $("notes").textContent = notes.join(" ");
  const parts = Object.entries(weights).filter(([, weight]) => weight >= 0.005).sort((a, b) => b[1] - a[1]);
  const words = parts.map(([name, weight]) => `${name === "identity" ? "unchanged" : name} ${Math.round(100 * weight)} %`).join(", ");
  $("acting").textContent = weights.identity > 0.995 ? "Nothing to repair was found in this slice" : words;
}

async function overlay() {
  const name = $("overlay").value, kind = name.split("/")[0], { study, now } = view, look = stage.look;
  Object.assign(look, { opacity: name ? +$("opacity").value : 0, overlayIsChange: name === "change" });
  $("scale").hidden = !name;
  stage.draw();
  if (!name || !now?.change) return;
  if (kind === "change") {
    study.reach ??= reach(now.change.data, 0.99); // one scale for all slices
    Object.assign(look, { overlayLow: -study.reach, overlayHigh: study.reach });
  } else {
    now.maps ??= {};
    now.maps[name] ??= (await raw(`${study.base}/${name}/${view.slice}`)) ?? EMPTY;
    if (view.now !== now || $("overlay").value !== name) return;
    stage.renderer.put("overlay", now.maps[name]);
    Object.assign(look, { overlayLow: 0, overlayHigh: kind === "weight" ? 1 : reach(now.maps[name].data, 0.995) });
  }
  stage.renderer.put("colours", table(kind));
  $("scale-bar").style.background = gradient(kind);
  const end = (value) => (kind === "weight" ? value : study.unit === "HU" ? `${value} HU` : say(value, study.unit));
  $("scale-low").textContent = end(look.overlayLow);
  $("scale-high").textContent = end(look.overlayHigh);
  stage.draw();
}

// A round number that this share of the numbers does not exceed, by a sample of them.
function reach(numbers, share) {
  const step = Math.ceil(numbers.length / 20000), some = Float32Array.from({ length: numbers.length / step }, (_, i) => Math.abs(numbers[i * step]));
  const value = quantile(some.sort(), share);
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
  const at = (array) => Array.from({ length: count }, (_, k) => array.data[(y * width + x) * count + k]), first = at(before);
  return { before: first, after: change ? at(change).map((value, k) => first[k] + stage.look.strength * value) : null };
};

function setMode(mode) {
  if (mode === "planes" && !(view.study?.slices > 1)) return;
  if (mode === "blink" && view.mode === "blink") stage.shown = stage.shown === "after" ? "before" : "after";
  view.mode = mode;
  for (const button of $("modes").children) button.setAttribute("aria-checked", button.dataset.mode === mode);
  for (const name of ["planes", "report"]) $(name).hidden = mode !== name;
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
  const study = view.study, words = { waiting: "Networks are being loaded…", working: "Measuring…" };
  const { report, reason } = await work($("qualify"), $("qualify-state"), `${study.base}/qualify`, {}, words);
  study.report = report;
  $("qualify-state").textContent = reason;
  if (view.mode === "report") showReport();
}

// A job of the server, begun by a button: its last state. What it is at is told meanwhile, in the words of that.
async function work(button, told, path, body, words) {
  button.disabled = true;
  try {
    for (const { job } = await post(path, body); ; await later(300)) {
      const state = (await get("jobs"))[job];
      if (!words[state.state]) return state;
      told.textContent = words[state.state];
    }
  } catch (error) { return { state: "failed", reason: error.message }; } finally { button.disabled = false; }
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
  const body = { strength: stage.look.strength, overwrite }, words = { waiting: "Waiting for the last slices…", working: "Writing…" };
  const { state, path, reason } = await work($("save"), $("saved"), `${view.study.base}/save`, body, words);
  $("saved").textContent = state === "done" ? `Saved: ${path}` : `Not saved: ${reason}`;
  if (state === "exists") $("saved").append(" ", element("button", { onclick: () => save(true) }, "Replace it"));
}

async function copy() {
  const { command } = await get(`${view.study.base}/command?strength=${stage.look.strength}`);
  try { await navigator.clipboard.writeText(command); $("saved").textContent = `Copied: ${command}`; } catch { $("saved").textContent = command; }
}

// --- keys

const KEYS = [ // one or two keys, and what they do; the first of two goes back: sign is -1
  ["ArrowUp ArrowDown", "Slice before or after", (sign) => go(view.slice + sign)],
  ["PageUp PageDown", "Ten slices", (sign) => go(view.slice + 10 * sign)],
  ["ArrowLeft ArrowRight", "Wipe line to the left or right", (sign) => stage.wipeTo(stage.wipe + 0.02 * sign)],
  ["- +", "Zoom", (sign) => stage.magnify(1.25 ** sign)],
  ["0", "Whole image", () => stage.fit()],
  ["[ ]", "Less or more strength", (sign) => setStrength(stage.look.strength + 0.05 * sign)],
  ["o", "Next overlay", () => { const list = $("overlay"); list.selectedIndex = (list.selectedIndex + 1) % list.length; overlay(); }],
  ["Enter", "Draw with the tool in the middle", () => measuring.draws()],
  ["p n", "Image before or after", (sign) => step(sign)],
];
const BUTTONS = new Map(); // key in small letters -> the button that names it
for (const button of document.querySelectorAll("[aria-keyshortcuts]:not(.tab .served, .tab .served *)")) BUTTONS.set(button.ariaKeyShortcuts.toLowerCase(), button);
const SHIFTED = { ArrowUp: [0, 40], ArrowDown: [0, -40], ArrowLeft: [40, 0], ArrowRight: [-40, 0] };

function step(count) {
  const cards = [...document.querySelectorAll("button.card")];
  cards[cards.findIndex((one) => one.ariaCurrent === "true") + count]?.click();
}

addEventListener("keydown", (event) => {
  const { key, target } = event, button = BUTTONS.get(key === " " ? "space" : key.toLowerCase());
  const [keys, , run] = KEYS.find(([keys]) => keys.split(" ").includes(key)) ?? [];
  if (event.ctrlKey || event.metaKey || $("keys").open || target.closest("input, select")) return;
  if ((key === " " && target.closest("button:not([role=radio])")) || (key === "Enter" && target.closest("button"))) return;
  if (event.shiftKey && SHIFTED[key]) stage.pan(...SHIFTED[key]);
  else if (event.altKey) { if (!measuring.key(key)) return; }
  else if (run) run(keys.startsWith(key) ? -1 : 1);
  else if (button?.checkVisibility()) button.click();
  else return;
  event.preventDefault();
});

const named = [...BUTTONS.values()].map((button) => [button.ariaKeyShortcuts, button.title || button.textContent]);
const others = [["Shift + arrows", "Pan"], ["Alt + arrows", "Move region A or B"], ["Alt with - or +", "Smaller or larger region"]];
for (const [keys, text] of [...named, ...KEYS, ...others]) {
  $("keys").querySelector("dl").append(element("dt", {}, element("kbd", {}, keys.replaceAll("Arrow", ""))), element("dd", {}, text));
}

// --- the start

$("strength").oninput = () => setStrength(+$("strength").value);
$("opacity").oninput = $("overlay").onchange = overlay;
$("expert").onchange = () => open(view.study, $("expert").value);
$("level").onchange = $("width").onchange = () => {
  const [level, half] = [$("level").value / white(), $("width").value / white() / 2];
  setWindow(level - half, level + half);
};
$("slice").oninput = () => go(+$("slice").value);
for (const button of $("modes").children) button.onclick = () => setMode(button.dataset.mode);
for (const button of $("toolbar").children) button.onclick = () => setTool(button.dataset.tool);
$("strength").onchange = () => view.mode === "planes" && showPlanes();
$("save").onclick = () => save();
$("copy").onclick = copy;
$("qualify").onclick = qualify;
$("help").onclick = () => $("keys").showModal();
begin((card) => open(card), busy);
setMode("wipe");
setTool("window");
setStrength(1);

async function start() {
  for (; ; await later(300)) {
    const state = await get("state").catch((error) => ({ trouble: error.message, images: [] }));
    showCards(state);
    if (state.trouble) busy(state.trouble, true);
    if (!view.study) {
      $("progress").textContent = state.looking ? "Looking through the files…" : state.ready || state.trouble ? "" : "Networks are being loaded…";
      const [only, ...others] = state.images;
      if (!state.looking && only && !only.refusal && !others.length) open(only); // nothing to choose
    }
    document.body.dataset.state = state.looking ? "looking" : state.ready ? "ready" : "loading";
    if (!state.looking && (state.ready || state.trouble)) return;
  }
}
start();
