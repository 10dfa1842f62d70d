// The worker behind the page, in place of the server of sasm view: images, and their slices restored one by one as
// monai_sasm/restoration/restore.py does.

import { asking } from "./api.js";
import { decode } from "./decode.js";
import { quantile } from "./measure.js";
import { body, continued, most, result, shares, sheltered } from "./pixels.js";

const [f32, NEGLIGIBLE, FLOOR, SEEN, CONVINCING, ASKED, KEPT] = [Math.fround, 1e-3, 0.05, 0.01, 0.5, 4, 3];
const run = asking("./networks.js"), manifest = fetch(new URL("./manifest.json", import.meta.url)).then((answer) => answer.json());
const images = [], studies = new Map(), dropped = [], asked = [];
let { classes, experts, profiles } = {}, ready = false, trouble = "", working = false;

const loading = (async () => {
  ({ classes, experts, profiles } = await manifest);
  for (const name of ["look", "weigh", "weigh-picture"]) await run({ name });
  ready = true;
  pump();
})().catch((error) => (trouble = `the networks cannot be loaded: ${error.message}`));

const average = (map) => { let sum = 0; for (const one of map) sum += one; return sum / map.length; };
const least = (map) => -most(map.map((one) => -one));

// functional/intensity.py: the 99.5th percentile of the voxels above the mean of all
function scaleOf({ slices, height, width }, { scale, percentile }) {
  if (percentile === null) return scale;
  const step = Math.max(1, Math.ceil(((slices.length * height * width) / 2_000_000) ** (1 / 3))), every = (side) => (side > step ? step : 1), all = [];
  for (let k = 0; k < slices.length; k += every(slices.length)) for (let y = 0; y < height; y += every(height)) for (let x = 0; x < width; x += every(width)) all.push(slices[k][y * width + x]);
  const mean = average(all), bright = Float32Array.from(all.filter((one) => one > mean)).sort(), white = bright.length ? quantile(bright, percentile / 100) : 0;
  return white > 0 && white < Infinity ? white : 1;
}

// io/orientation.py: patient's right on the left, front or head up
function orientationOf({ rows, columns }) {
  if (!rows) return { flips: [false, false], ends: [], spacing: null };
  const length = (one) => Math.hypot(...one), axis = (one) => { const sides = one.map(Math.abs); return sides.indexOf(Math.max(...sides)); };
  let [down, across] = [rows, columns];
  const transposed = axis(down) < axis(across);
  if (axis(down) === axis(across)) return { flips: [false, false], ends: [], spacing: [length(rows), length(columns)] };
  if (transposed) [down, across] = [across, down];
  return { transposed, flips: [down[axis(down)] > 0, across[axis(across)] > 0], spacing: [length(down), length(across)], ends: [...["RL", "AP", "SI"][axis(across)], ...["RL", "AP", "SI"][axis(down)]] };
}

// Colours one after the other -> as the page shows it: rows of pixels.
function shown({ height, width, orientation: { transposed, flips } }, image, type = "float32") {
  const count = image.length / height / width, [tall, wide] = transposed ? [width, height] : [height, width], data = new image.constructor(image.length);
  for (let y = 0, n = 0; y < tall; y++) for (let x = 0; x < wide; x++) {
    const [v, u] = [flips[0] ? tall - 1 - y : y, flips[1] ? wide - 1 - x : x], i = transposed ? u * width + v : v * width + u;
    for (let k = 0; k < count; k++) data[n++] = image[k * height * width + i];
  }
  return { shape: [tall, wide, count], type, data };
}

const placed = (image) => ({ ...image, profile: profiles[image.modality], orientation: orientationOf(image) });

function open(image, expert) {
  const key = `${image.card.id}/${expert}`, count = image.slices.length, names = classes.map((name) => (expert === "gate" ? experts[name]?.modality === image.modality : name === expert) && name);
  const coherent = expert === "gate" && count > 1 && image.distance && image.distance <= 10 ? shares(count, image.distance) : null;
  const study = studies.get(key) ?? { ...placed(image), expert, names, coherent, scale: scaleOf(image, profiles[image.modality]), done: [], waiting: [], focus: count >> 1, failure: null, judged: [] };
  studies.delete(key);
  studies.set(key, study);
  for (const old of studies.keys()) if (studies.size > KEPT) studies.delete(old);
  return study;
}

// --- restoring

async function judged(study, image) {
  const { height, width, profile, names } = study, [low, high] = profile.window, count = image.length / height / width;
  return run({ name: "look", feeds: { image: [image, [1, count, height, width]], low: [Float32Array.of(low), []], span: [Float32Array.of(high - low), []], allowed: [Float32Array.from(names, (name, k) => (!k || name ? 1 : 0)), [names.length]] } });
}

async function weighed(study, blocks, image) {
  const { height, width, profile } = study, size = height * width, shape = [1, 1, height, width];
  const there = profile.air === null ? new Float32Array(size).fill(1) : body(image, height, width, profile.air);
  const feeds = { blocks: [blocks, [1, classes.length, Math.ceil(height / 8), Math.ceil(width / 8)]], image: [image, [1, image.length / size, height, width]], there: [there, shape] };
  const { weights } = await run({ name: profile.picture ? "weigh-picture" : "weigh", feeds });
  return classes.map((_, k) => weights.subarray(k * size, (k + 1) * size));
}

const workingOf = ({ slices, scale, colours, profile }, index) => {
  const one = slices[index].map((value) => f32(value / scale));
  return profile.picture && colours === 1 ? Float32Array.of(...[0, 1, 2].flatMap(() => [...one])) : one;
};

async function coherentBlocks(study, index) {
  const sum = [], { seen, rows } = study.coherent;
  for (const [k, share] of rows[index].entries()) {
    if (!share) continue;
    study.judged[k] ??= (await judged(study, sheltered(workingOf(study, seen[k]), study.height, study.width, study.profile).seen)).blocks;
    study.judged[k].forEach((one, i) => (sum[i] = (sum[i] ?? 0) + share * one));
  }
  return Float32Array.from(sum);
}

// Weights of a later pass: nothing is repaired twice, and a fault that no earlier pass saw has to show on much of the image.
function heldBack(weights, known, spent) {
  const acts = weights.map((map, k) => k && (known[k] || average(map) >= CONVINCING));
  const acting = weights.map((map, k) => map.map((one, i) => (acts[k] ? one * Math.max(0, 1 - spent[k][i]) : 0)));
  acting[0] = acting[0].map((_, i) => 1 - acting.reduce((sum, map, k) => (k ? sum + map[i] : 0), 0));
  return acting;
}

// A slice between its neighbours, as they came, for an expert that looks at some; each stands in for its own where they are not close.
function slab(study, index, given, near) {
  const { slices, height, width, profile, close } = study, size = height * width, found = new Float32Array((2 * near + 1) * size);
  for (let k = -near; k <= near; k++) {
    const other = Math.min(Math.max(index + k, 0), slices.length - 1);
    const one = !close || other === index ? null : sheltered(workingOf(study, other), height, width, profile);
    found.set(one ? continued(one.seen, height, width, one.padding) : given, (k + near) * size);
  }
  return found;
}

async function restore(study, index) {
  const { height, width, profile, scale, colours, names } = study, size = height * width, image = workingOf(study, index);
  const shelter = profile.picture ? null : sheltered(image, height, width, profile), start = shelter?.seen ?? image, lowest = Math.min(0, least(start));
  const passes = study.expert === "gate" ? profile.passes : 1;
  let current = start, known = null, spent = null, first = null;
  for (let pass = 0; pass < passes; pass++) {
    let { sigma, blocks } = await judged(study, current), weights;
    if (study.expert !== "gate") weights = names.map((name) => new Float32Array(size).fill(name ? 1 : 0));
    else if (study.coherent) weights = await weighed(study, await coherentBlocks(study, index), image);
    else weights = await weighed(study, blocks, current);
    if (known) weights = heldBack(weights, known, spent);
    spent = weights.map((map, k) => (spent ? map.map((one, i) => one + spent[k][i]) : map));
    known = weights.map((map, k) => known?.[k] || average(map.map((one) => (one > 0.5 ? 1 : 0))) > SEEN);
    if (pass && least(weights[0]) > 1 - FLOOR) break;
    first ??= { noise: quantile(sigma.slice().sort(), 0.5) * scale, weights };
    const given = shelter ? continued(current, height, width, shelter.padding) : current, mixed = current.slice(), shape = [1, image.length / size, height, width];
    for (const [k, name] of names.entries()) {
      if (!k || !name || most(weights[k]) <= NEGLIGIBLE) continue;
      const near = experts[name].neighbours, image = near ? [slab(study, index, given, near), [1, 2 * near + 1, height, width]] : [given, shape];
      const { restored } = await run({ name, feeds: { image, sigma: [sigma, [1, 1, height, width]] } });
      for (let i = 0; i < mixed.length; i++) mixed[i] += weights[k][i % size] * (restored[i] - current[i]);
    }
    current = mixed;
  }
  if (profile.nonnegative) current = current.map((one) => Math.max(one, lowest));
  if (shelter) current = result(shelter, current);
  let change = current.map((one, i) => scale * f32(one - image[i]));
  if (profile.picture && colours === 1) change = change.slice(0, size).map((one, i) => (one + change[size + i] + change[2 * size + i]) / 3);
  const weights = Object.fromEntries(names.flatMap((name, k) => (k && name && most(first.weights[k]) > 0 ? [[name, first.weights[k]]] : [])));
  return { change, weights, identity: average(first.weights[0]), notes: [...study.notes, ...outside(study, first.noise, weights)] };
}

// restoration/operating_range.py
function outside(study, noise, weights) {
  return Object.entries(weights).flatMap(([name, map]) => {
    const { range } = experts[name], level = study.profile.percentile === null ? noise : noise / study.scale, reasons = [], sides = study.orientation.spacing;
    if (average(map) < 0.01 || study.profile.picture) return [];
    if (range.noise && level > range.noise[1]) reasons.push(`noise estimate ${+level.toPrecision(3)} (up to ${range.noise[1]})`);
    if (range.pixel_mm && (Math.min(...sides) < range.pixel_mm[0] * 0.98 || Math.max(...sides) > range.pixel_mm[1] * 1.02)) reasons.push(`pixels of ${sides.map((one) => +one.toPrecision(3)).join(" × ")} mm (${range.pixel_mm.join(" to ")} mm)`);
    for (const [word, key, value] of [["kernel", "kernels", study.kernel], ["body part", "body_parts", study.part]]) if (range[key] && value && !range[key].some((one) => one.toLowerCase() === value.toLowerCase())) reasons.push(`${word} ${value} (${range[key].join(", ")})`);
    return reasons.length ? [`outside the range that ${name} was trained and measured for: ${reasons.join(", ")}`] : [];
  });
}

// What is on the screen first, then what is nearest to it.
async function pump() {
  if (working || !ready) return;
  working = true;
  for (;;) {
    let [study, index] = asked.pop() ?? [[...studies.values()].findLast((one) => !one.failure && one.slices.some((_, i) => !one.done[i]))];
    if (!study) break;
    index ??= study.slices.map((_, i) => i).filter((i) => !study.done[i]).sort((a, b) => Math.abs(a - study.focus) - Math.abs(b - study.focus))[0];
    try { if (!study.failure) study.done[index] ??= await restore(study, index); } catch (error) { study.failure = error.message; }
    for (const wake of study.waiting.splice(0)) wake();
  }
  working = false;
}

// --- what the page asks for

const state = () => ({ ready, trouble, looking: false, output: "", images: images.map((one) => one.card) });

async function add(files) {
  for (const image of await decode(files, (await manifest).meanings)) {
    const { place, modality, refusal, mayBe, files: count, geometry, notes } = image;
    images.push({ ...image, card: { id: String(images.length), place, name: place.replace(/\.\w+$/, ""), modality, refusal, mayBe, files: count, geometry, notes } });
  }
  return state();
}

async function thumbnail(image) {
  const study = placed(image), { data, shape: [height, width, count] } = shown(study, study.slices[study.slices.length >> 1]), [low, , high] = limits(study, data);
  const value = (i) => (i % 4 === 3 ? 255 : (255 * (data[(i >> 2) * count + Math.min(i % 4, count - 1)] - low)) / (high - low));
  const pixels = new ImageData(Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => value(i)), width);
  const [y, x] = study.orientation.spacing ?? [1, 1], scale = 176 / Math.max(height * y, width * x);
  const small = new OffscreenCanvas(Math.max(1, Math.round(width * x * scale)), Math.max(1, Math.round(height * y * scale)));
  small.getContext("2d").drawImage(await createImageBitmap(pixels), 0, 0, small.width, small.height);
  const url = new FileReaderSync().readAsDataURL(await small.convertToBlob());
  return { thumbnail: url, shape: [height, width], slices: study.slices.length, noise: 0, unit: study.profile.unit };
}

function limits({ profile }, data) {
  const some = data.filter((_, i) => i % 16 === 0).sort(), percentiles = [0.01, 0.5, 0.995].map((share) => quantile(some, share));
  return profile.picture ? [0, percentiles[1], 1] : profile.unit === "HU" ? [-160, percentiles[1], 240] : percentiles;
}

function about(study) {
  const { card, modality, profile, slices, orientation, notes } = study, { data, shape: [height, width, count] } = shown(study, slices[slices.length >> 1]);
  return { name: card.name, place: card.place, modality, unit: profile.unit, picture: profile.picture, slices: slices.length, shape: [count, height, width], spacing: orientation.spacing, ends: orientation.ends,
    reduction: 1, percentiles: limits(study, data), flips: orientation.flips, tissue: profile.tissue, whites: slices.map(() => study.scale), uniform: profile.uniform, enlarges: false, notes, target: "" };
}

async function answer(path, body) {
  const [what, id, expert, part, name, index = name] = path.split("/");
  if (what === "state") return state();
  if (what === "samples") return add(await Promise.all((await manifest).samples.map(async (one) => new File([await (await fetch(new URL(`./samples/${one}`, import.meta.url))).blob()], one))));
  if (what === "files" && id) return dropped.push(body);
  if (what === "files") return add(dropped.splice(0));
  const image = images[id];
  if (expert === "modality") { Object.assign(image, { modality: body.modality }); return Object.assign(image.card, { modality: body.modality, refusal: null, mayBe: [] }); }
  if (image.card.refusal) throw new Error(image.card.refusal);
  if (!ready) await loading;
  if (trouble) throw new Error(trouble);
  if (expert === "look") return thumbnail(image);
  const study = open(image, expert);
  if (part === "about") return about(study);
  if (part === "progress") { pump(); return { done: study.slices.map((_, i) => (study.done[i] ? 1 : 0)).join(""), part: 0, failure: study.failure, ready, experts: Object.keys(experts).filter((one) => experts[one].modality === image.modality) }; }
  if (part === "before") return shown(study, study.slices[index]);
  if (part === "weight") return study.done[index]?.weights[name] ? shown(study, Uint8Array.from(study.done[index].weights[name], (one) => Math.round(255 * one)), "uint8") : null;
  if (part !== "change") throw new Error("only sasm view on a computer does this; see the project's page");
  study.focus = +index;
  asked.push([study, +index]);
  asked.splice(0, asked.length - ASKED);
  pump();
  while (!study.done[index] && !study.failure) await new Promise((wake) => study.waiting.push(wake));
  if (study.failure) throw new Error(study.failure);
  const { change, noise, weights, identity, notes } = study.done[index];
  return { ...shown(study, change), noise, weights: { identity, ...Object.fromEntries(Object.entries(weights).map(([one, map]) => [one, average(map)])) }, uncertain: false, notes };
}

onmessage = async ({ data: { id, path, body } }) => {
  try { postMessage({ id, value: await answer(path, body) }); } catch (error) { postMessage({ id, reason: error.message }); }
};
