// Measurements on a slice before and after: everything is linear in the strength, so that a region is looked at once.

export const RINGS = 24;

// Pixels whose centre lies in a circle {x, y, radius} in mm; step: mm per pixel [x, y].
function inside(circle, shape, step) {
  const found = [], [height, width] = shape;
  const rows = [Math.max(0, Math.floor((circle.y - circle.radius) / step[1])), Math.min(height - 1, Math.ceil((circle.y + circle.radius) / step[1]))];
  for (let row = rows[0]; row <= rows[1]; row++) {
    for (let column = Math.max(0, Math.floor((circle.x - circle.radius) / step[0])); column < width; column++) {
      const dx = (column + 0.5) * step[0] - circle.x, dy = (row + 0.5) * step[1] - circle.y;
      if (dx > circle.radius) break;
      if (dx * dx + dy * dy <= circle.radius * circle.radius) found.push(row * width + column);
    }
  }
  return found;
}

// A function index -> value, the mean of the colours; array: of api.raw with its numbers plain.
export function reader(numbers, channels) {
  if (channels === 1) return (index) => numbers[index];
  return (index) => (numbers[3 * index] + numbers[3 * index + 1] + numbers[3 * index + 2]) / 3;
}

// Moments of pixels before (b) and of the change (c).
export function moments(indices, before, change) {
  let mb = 0, mc = 0;
  for (const index of indices) { mb += before(index); mc += change(index); }
  const n = indices.length;
  mb /= n; mc /= n;
  let vb = 0, cov = 0, vc = 0;
  for (const index of indices) {
    const b = before(index) - mb, c = change(index) - mc;
    vb += b * b; cov += b * c; vc += c * c;
  }
  return { n, mb, mc, vb: vb / (n - 1), cov: cov / (n - 1), vc: vc / (n - 1) };
}

export const region = (circle, shape, step, before, change) => moments(inside(circle, shape, step), before, change);

export const meanAt = (m, s) => m.mb + s * m.mc;
export const sdAt = (m, s) => Math.sqrt(Math.max(0, m.vb + 2 * s * m.cov + s * s * m.vc));

// The least strength in [0, 1] at which the standard deviation is at most `target`, or as near as it comes.
export function strengthFor(m, target) {
  if (m.vb <= target * target || m.cov >= 0) return 0;
  const lowest = Math.min(1, -m.cov / m.vc), root = m.cov * m.cov - m.vc * (m.vb - target * target);
  return sdAt(m, lowest) >= target ? lowest : (-m.cov - Math.sqrt(root)) / m.vc;
}

// Noise of uniform tissue in slices [{before, change}]: the function noise_curve of restoration/target_noise.py. Null
// where too few squares have a mean after within `tissue`; `flips` of rows and columns: squares are counted in the file.
export function noiseCurve(slices, { tissue, flips }) {
  const side = 16, found = [], [height, width] = slices[0].shape, start = [height, width].map((length, axis) => (flips[axis] ? length % side : 0));
  for (const { before, change } of slices) for (let top = start[0]; top + side <= height; top += side) for (let left = start[1]; left + side <= width; left += side) {
    const cut = (read) => Float64Array.from({ length: side * side }, (_, i) => read((top + Math.floor(i / side)) * width + left + (i % side)));
    const x = cut(before), d = cut(change), mean = x.reduce((sum, one, i) => sum + one + d[i], 0) / x.length;
    if (mean > tissue[0] && mean < tissue[1] && x.some((one) => one !== x[0])) found.push([withoutPlane(x, side), withoutPlane(d, side)]);
  }
  if (found.length < 8) return null;
  const product = (a, b) => a.reduce((sum, one, i) => sum + one * b[i], 0);
  const structure = found.map(([x, d]) => { // variance of the means of 4 x 4 pixels
    const means = new Float64Array(16);
    x.forEach((one, i) => (means[4 * Math.floor(i / 64) + Math.floor((i % side) / 4)] += (one + d[i]) / 16));
    return product(means, means) / 16 - (means.reduce((a, b) => a + b) / 16) ** 2;
  });
  const variance = found.map(([x]) => product(x, x) / x.length);
  const calm = (values, most) => { const sorted = [...values].sort((a, b) => a - b), place = 0.25 * (values.length - 1), low = Math.floor(place); return most * (sorted[low] + (place - low) * (sorted[Math.min(low + 1, values.length - 1)] - sorted[low])); };
  const limits = [calm(structure, 2.5), calm(variance, 3)], kept = found.filter((_, i) => structure[i] <= limits[0] && variance[i] <= limits[1]);
  const mean = (one, other) => kept.reduce((sum, square) => sum + product(square[one], square[other]), 0) / kept.length / (side * side - 3);
  return { n: 256 * kept.length, vb: mean(0, 0), cov: mean(0, 1), vc: mean(1, 1) };
}

// Values along a line {x, y, x2, y2} in mm, one a pixel: [{at (mm), before, change}], bilinear.
export function profile(line, shape, step, before, change) {
  const [height, width] = shape, length = Math.hypot(line.x2 - line.x, line.y2 - line.y);
  const count = Math.max(2, Math.round(length / Math.min(...step)) + 1), found = [];
  const between = (read, x, y) => {
    const left = Math.min(width - 2, Math.max(0, Math.floor(x))), top = Math.min(height - 2, Math.max(0, Math.floor(y)));
    const u = Math.min(1, Math.max(0, x - left)), v = Math.min(1, Math.max(0, y - top)), first = top * width + left;
    return (1 - v) * ((1 - u) * read(first) + u * read(first + 1)) + v * ((1 - u) * read(first + width) + u * read(first + width + 1));
  };
  for (let i = 0; i < count; i++) {
    const t = i / (count - 1), x = (line.x + t * (line.x2 - line.x)) / step[0] - 0.5, y = (line.y + t * (line.y2 - line.y)) / step[1] - 0.5;
    found.push({ at: t * length, before: between(before, x, y), change: between(change, x, y) });
  }
  return found;
}

// Spectra of the square in a circle, planes removed, for noise power at any strength (ICRU 87):
// NPS(f) = dx dy / (Nx Ny) |DFT(patch - plane)|^2, mean over rings. Null where it is too small or pixels are not square.
export function spectra(circle, shape, step, before, change) {
  if (Math.abs(step[0] - step[1]) > 0.01 * step[0]) return null;
  const side = Math.min(96, Math.floor((circle.radius * Math.SQRT2) / step[0]));
  if (side < 12) return null;
  const left = Math.round(circle.x / step[0] - side / 2), top = Math.round(circle.y / step[1] - side / 2);
  if (left < 0 || top < 0 || left + side > shape[1] || top + side > shape[0]) return null;
  const patch = (read) => {
    const values = new Float64Array(side * side);
    for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) values[y * side + x] = read((top + y) * shape[1] + left + x);
    return withoutPlane(values, side);
  };
  return { side, left, top, step: step[0], b: transform(patch(before), side), c: transform(patch(change), side) };
}

// Radial noise power at a strength: [{f (cycles per mm), power (unit^2 mm^2)}], without empty rings.
export function power(found, s) {
  const { side, step, b, c } = found, sum = new Float64Array(RINGS), count = new Float64Array(RINGS), last = 0.5 / step;
  for (let v = 0; v < side; v++) {
    for (let u = 0; u < side; u++) {
      const fu = (u < side / 2 ? u : u - side) / (side * step), fv = (v < side / 2 ? v : v - side) / (side * step);
      const ring = Math.floor((Math.hypot(fu, fv) / last) * RINGS);
      if (ring >= RINGS) continue;
      const i = v * side + u, re = b.re[i] + s * c.re[i], im = b.im[i] + s * c.im[i];
      sum[ring] += re * re + im * im;
      count[ring]++;
    }
  }
  const factor = (step * step) / (side * side), rings = [...sum.keys()].filter((ring) => count[ring]);
  return rings.map((ring) => ({ f: ((ring + 0.5) / RINGS) * last, power: (factor * sum[ring]) / count[ring] }));
}

function withoutPlane(values, side) {
  const centre = (side - 1) / 2;
  let mean = 0, across = 0, down = 0, square = 0;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const value = values[y * side + x];
      mean += value; across += value * (x - centre); down += value * (y - centre); square += (x - centre) ** 2;
    }
  }
  mean /= side * side; across /= square; down /= square;
  return values.map((value, i) => value - mean - across * ((i % side) - centre) - down * (Math.floor(i / side) - centre));
}

function transform(values, side) {
  const cos = new Float64Array(side), sin = new Float64Array(side);
  for (let k = 0; k < side; k++) { cos[k] = Math.cos((2 * Math.PI * k) / side); sin[k] = -Math.sin((2 * Math.PI * k) / side); }
  let re = values, im = new Float64Array(side * side);
  for (const rows of [true, false]) {
    const re2 = new Float64Array(side * side), im2 = new Float64Array(side * side);
    for (let line = 0; line < side; line++) {
      for (let k = 0; k < side; k++) {
        let a = 0, b = 0;
        for (let n = 0; n < side; n++) {
          const i = rows ? line * side + n : n * side + line, turn = (k * n) % side;
          a += re[i] * cos[turn] - im[i] * sin[turn];
          b += re[i] * sin[turn] + im[i] * cos[turn];
        }
        const i = rows ? line * side + k : k * side + line;
        re2[i] = a; im2[i] = b;
      }
    }
    re = re2; im = im2;
  }
  return { re, im };
}
