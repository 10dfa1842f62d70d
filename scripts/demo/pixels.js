// What of restoring a slice is no network: each function does what the one of that name in monai_sasm does, and the tests
// compare them. A slice is a Float32Array, row by row.

const f32 = Math.fround;
const BLOCK = 5, FRINGE = 3, FAR = 64, HALO = 8, LIMIT = 0.05, AIR_LIKE = 0.1; // restoration/shelter.py
const COARSE = 128, SWEEPS = 4; // gate/occupied.py

export function constantRegions(image, height, width) {
  const size = height * width, right = new Uint16Array(size), down = new Uint16Array(size), kept = new Uint8Array(size);
  for (let i = size - 1; i >= 0; i--) {
    right[i] = (i + 1) % width && image[i] === image[i + 1] ? right[i + 1] + 1 : 0;
    down[i] = i + width < size && image[i] === image[i + width] ? down[i + width] + 1 : 0;
    let rows = down[i] >= BLOCK - 1;
    for (let k = 0; rows && k < BLOCK; k++) rows = right[i + k * width] >= BLOCK - 1;
    if (rows) for (let k = 0; k < BLOCK; k++) kept.fill(1, i + k * width, i + k * width + BLOCK);
  }
  for (let round = 0; round < FRINGE; round++) for (const [dy, dx] of [[0, 1], [1, 0], [1, 1], [1, -1]]) {
    const step = dy * width + dx, alike = (i) => { const x = (i % width) + dx; return x >= 0 && x < width && image[i] === image[i + step]; };
    for (let i = 0; i + step < size; i++) if (kept[i + step] && !kept[i] && alike(i)) kept[i] = 1;
    for (let i = size - step - 1; i >= 0; i--) if (kept[i] && !kept[i + step] && alike(i)) kept[i + step] = 1;
  }
  return kept;
}

const atBorder = (i, height, width) => i < width || i >= (height - 1) * width || i % width === 0 || i % width === width - 1;

export function sheltered(image, height, width, profile) {
  const size = image.length, kept = constantRegions(image, height, width), padding = new Uint8Array(size);
  if (profile.nonnegative) {
    const dark = image.reduce((a, b) => Math.min(a, b), Infinity), background = kept.some((one, i) => one && image[i] === dark);
    if (background) image.forEach((one, i) => { if (one === dark) kept[i] = 1; });
  }
  if (!profile.trained) return { image, seen: image, kept, padding, near: null };
  const [air, white] = profile.trained.map((end) => f32(end / profile.scale)), airLike = f32(profile.trained[0] / profile.scale + AIR_LIKE);
  const below = new Set(), border = new Set();
  for (let i = 0; i < size; i++) {
    if (kept[i] && image[i] < air) below.add(image[i]);
    if (kept[i] && image[i] > airLike && image[i] < white && atBorder(i, height, width)) border.add(image[i]);
  }
  for (let i = 0; i < size; i++) if (image[i] < air && below.has(image[i])) padding[i] = 1;
  for (const value of border) grow(image, height, width, kept, value, padding);
  const seen = image.map((value) => Math.min(white, Math.max(air, value))), high = image.map((value) => (value > white ? 1 : 0));
  for (let i = 0; i < size; i++) if (padding[i]) seen[i] = air;
  const back = kept.map((one, i) => (one || padding[i] || seen[i] !== image[i] ? 1 : 0));
  return { image, seen, kept: back, padding, near: high.includes(1) ? window(high, height, width, HALO, extreme(1)) : null };
}

// Kept pixels of one value, and what hangs together with them through that value, into `padding`.
function grow(image, height, width, kept, value, padding) {
  let edge = [];
  const found = new Uint8Array(image.length);
  for (let i = 0; i < image.length; i++) if (kept[i] && image[i] === value) { found[i] = 1; edge.push(i); }
  for (let round = 0; round < FAR && edge.length; round++) {
    const next = [];
    for (const i of edge) for (let k = 0; k < 9; k++) {
      const x = (i % width) + (k % 3) - 1, j = i + (Math.floor(k / 3) - 1) * width + (k % 3) - 1;
      if (x >= 0 && x < width && image[j] === value && !found[j]) { found[j] = 1; next.push(j); }
    }
    edge = next;
  }
  found.forEach((one, i) => { if (one) padding[i] = 1; });
}

// The padding continued from what it borders.
export function continued(image, height, width, missing) {
  if (!missing.includes(1) || !missing.includes(0) || Math.min(height, width) < 2) return image;
  const [coarse, h, w] = pooled(image, height, width, 2, missing), lacking = Uint8Array.from(coarse, (one) => (isNaN(one) ? 1 : 0));
  const finer = resized(continued(coarse.map((one) => one || 0), h, w, lacking), h, w, 2);
  return image.map((value, i) => (missing[i] ? finer[Math.floor(i / width) * 2 * w + (i % width)] : value));
}

// Means of squares, of the pixels that are not missing: [means, rows, columns], NaN where there are none.
function pooled(image, height, width, side, missing) {
  const h = Math.ceil(height / side), w = Math.ceil(width / side), sum = new Float64Array(h * w), count = new Uint32Array(h * w);
  for (let i = 0; i < image.length; i++) {
    const place = Math.floor(Math.floor(i / width) / side) * w + Math.floor((i % width) / side);
    if (!missing?.[i]) { sum[place] += image[i]; count[place]++; }
  }
  return [Float32Array.from(sum, (one, i) => one / count[i]), h, w];
}

// What networks made of `seen`, where they may change the image.
export function result({ image, kept, near }, restored) {
  return restored.map((value, i) => (kept[i] ? image[i] : near?.[i] ? Math.min(Math.max(value, image[i] - LIMIT), image[i] + LIMIT) : value));
}

// Bilinear, to a multiple of the size.
function resized(image, height, width, factor) {
  const taps = (n) => Array.from({ length: n * factor }, (_, i) => { const place = Math.max(0, (i + 0.5) / factor - 0.5), first = Math.floor(place); return [first, Math.min(n - 1, first + 1), place - first]; });
  const out = new Float32Array(height * width * factor * factor), across = taps(width);
  let i = 0;
  for (const [top, bottom, v] of taps(height)) for (const [left, right, u] of across) {
    out[i++] = (1 - v) * ((1 - u) * image[top * width + left] + u * image[top * width + right]) + v * ((1 - u) * image[bottom * width + left] + u * image[bottom * width + right]);
  }
  return out;
}

// A function of the values in the square around each pixel, as far as it lies in the image: along rows, then columns.
function window(image, height, width, reach, one) {
  for (const [step, length] of [[1, width], [width, height]]) {
    const out = new Float32Array(image.length);
    for (let i = 0; i < image.length; i++) {
      const place = step === 1 ? i % width : Math.floor(i / width);
      out[i] = one(image, i - Math.min(place, reach) * step, i + Math.min(length - 1 - place, reach) * step, step);
    }
    image = out;
  }
  return image;
}

const extreme = (sign) => (image, from, to, step) => { let best = -Infinity; for (let i = from; i <= to; i += step) best = Math.max(best, sign * image[i]); return sign * best; };
export const most = (map) => map.reduce((a, b) => Math.max(a, b), -Infinity);
const mean = (image, from, to, step) => { let sum = 0; for (let i = from; i <= to; i += step) sum += image[i]; return sum / ((to - from) / step + 1); };

// 0 in the air around a body, 1 in it, between them a border that fades.
export function body(image, height, width, air) {
  const side = Math.max(1, Math.floor(Math.min(height, width) / COARSE)), [blocks, h, w] = pooled(image, height, width, side);
  const open = Uint8Array.from(window(blocks, h, w, 1, mean), (value) => (value < f32(air) ? 1 : 0)), found = reached(open, h, w);
  const solid = window(Float32Array.from(found, (one) => 1 - one), h, w, 1, extreme(-1));
  const large = resized(window(window(solid, h, w, 2, extreme(1)), h, w, 1, mean), h, w, side);
  return Float32Array.from({ length: height * width }, (_, i) => large[Math.floor(i / width) * w * side + (i % width)]);
}

function reached(air, height, width) {
  const found = air.map((one, i) => (one && atBorder(i, height, width) ? 1 : 0));
  const along = (start, step, count) => { for (let n = 0, i = start, on = false; n < count; n++, i += step) { on = air[i] === 1 && (on || found[i] === 1); if (on) found[i] = 1; } };
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (let x = 0; x < width; x++) { along(x, width, height); along(x + (height - 1) * width, -width, height); }
    for (let y = 0; y < height; y++) { along(y * width, 1, width); along(y * width + width - 1, -1, width); }
  }
  return found;
}

// Which slices of a volume the gate sees, and what each adds to the weights of each slice; restoration/coherence.py.
export function shares(count, distance) {
  const share = count / Math.min(12, Math.max(6, Math.ceil(10 / distance))), near = Math.round(share), parts = Math.max(1, near - share === 0.5 ? near - (near % 2) : near);
  const seen = Array.from({ length: parts }, (_, k) => Math.floor(((k + 0.5) * count) / parts));
  const spread = Math.max(10 / distance, 4.5), reach = Math.ceil(3 * spread);
  const rows = Array.from({ length: count }, (_, index) => {
    const row = new Float64Array(parts);
    for (let d = -reach, sum = 0; d <= reach; d++) {
      const place = Math.min(seen[parts - 1], Math.max(seen[0], index + d)), share = Math.exp(-0.5 * (d / spread) ** 2);
      const after = seen.findIndex((one) => one >= place), t = after ? (place - seen[after - 1]) / (seen[after] - seen[after - 1]) : 1;
      row[after] += t * share;
      if (after) row[after - 1] += (1 - t) * share;
    }
    const total = row.reduce((a, b) => a + b, 0);
    return Array.from(row, (one) => one / total);
  });
  return { seen, rows };
}
