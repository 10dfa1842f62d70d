// Measurements on a slice before and after: everything is linear in the strength, so that a region is looked at once.

export const RINGS = 24;

// Pixels whose centre lies in a circle {x, y, radius} in mm; step: mm per pixel [x, y].
function inside({ x, y, radius }, [height, width], step) {
  const found = [], first = Math.max(0, Math.floor((y - radius) / step[1])), last = Math.min(height, Math.ceil((y + radius) / step[1]));
  for (let row = first; row < last; row++) for (let column = 0; column < width; column++) {
    if (Math.hypot((column + 0.5) * step[0] - x, (row + 0.5) * step[1] - y) <= radius) found.push(row * width + column);
  }
  return found;
}

// A function index -> value, the mean of the colours, of an array of api.raw.
export function reader({ data, shape: [, , channels] }) {
  if (channels === 1) return (index) => data[index];
  return (index) => (data[3 * index] + data[3 * index + 1] + data[3 * index + 2]) / 3;
}

// Of sorted numbers, linear between them as numpy.quantile.
export function quantile(sorted, share) {
  const place = share * (sorted.length - 1), low = Math.floor(place), next = sorted[Math.min(low + 1, sorted.length - 1)];
  return sorted[low] + (place - low) * (next - sorted[low]);
}

// Moments of pixels before (b) and of the change (c).
export function moments(indices, before, change) {
  const n = indices.length, sum = (part) => indices.reduce((total, index) => total + part(before(index), change(index)), 0);
  const mb = sum((b) => b) / n, mc = sum((_, c) => c) / n, spread = (part) => sum((b, c) => part(b - mb, c - mc)) / (n - 1);
  return { n, mb, mc, vb: spread((b) => b * b), cov: spread((b, c) => b * c), vc: spread((_, c) => c * c) };
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

// Noise of uniform tissue in slices [{before, change, white}]: the function noise_curve of restoration/target_noise.py. Null
// where too few squares have a mean after within `tissue`, of white; `flips` of rows and columns: squares are counted in the file;
// `uniform`: the rule Uniformity of functional/uniform_tissue.py, and mean over deviation that tissue has at least.
export function noiseCurve(slices, { tissue, flips, uniform }) {
  const { side } = uniform, part = side / 4, found = [], [height, width] = slices[0].shape, whole = slices.reduce((sum, { white }) => sum + white, 0) / slices.length, start = [height, width].map((length, axis) => (flips[axis] ? length % side : 0));
  for (const { before, change, white } of slices) for (let top = start[0]; top + side <= height; top += side) for (let left = start[1]; left + side <= width; left += side) {
    const [x, d] = [before, change].map((read) => square((index) => (whole / white) * read(index), side, width, top, left)), mean = x.reduce((sum, one, i) => sum + one + d[i], 0) / x.length;
    if (!(mean > whole * tissue[0] && mean < whole * tissue[1] && x.some((one) => one !== x[0]))) continue;
    const flat = withoutPlane(x, side);
    if (!uniform.dependence || mean > uniform.dependence * Math.sqrt(product(flat, flat) / x.length)) found.push([flat, withoutPlane(d, side)]);
  }
  if (found.length < 8) return null;
  const structure = found.map(([x, d]) => { // variance of the means of the sixteenths of a square
    const means = new Float64Array(16);
    x.forEach((one, i) => (means[4 * Math.floor(i / side / part) + Math.floor((i % side) / part)] += (one + d[i]) / part ** 2));
    return product(means, means) / 16 - (means.reduce((a, b) => a + b) / 16) ** 2;
  });
  const variance = found.map(([x]) => product(x, x) / x.length);
  const calm = (values, most) => most * quantile(Float64Array.from(values).sort(), uniform.share);
  const limits = [calm(structure, 1), calm(variance, uniform.variance)], kept = found.filter((_, i) => structure[i] <= limits[0] && variance[i] <= limits[1]);
  const mean = (one, other) => kept.reduce((sum, square) => sum + product(square[one], square[other]), 0) / kept.length / (side * side - 3);
  return { n: side * side * kept.length, vb: mean(0, 0), cov: mean(0, 1), vc: mean(1, 1) };
}

// Values along a line {x, y, x2, y2} in mm, one a pixel: [{at (mm), before, change}], bilinear.
export function profile(line, [height, width], step, before, change) {
  const length = Math.hypot(line.x2 - line.x, line.y2 - line.y), count = Math.max(2, Math.round(length / Math.min(...step)) + 1);
  const between = (read, x, y) => {
    const left = Math.min(width - 2, Math.max(0, Math.floor(x))), top = Math.min(height - 2, Math.max(0, Math.floor(y)));
    const u = Math.min(1, Math.max(0, x - left)), v = Math.min(1, Math.max(0, y - top)), first = top * width + left;
    return (1 - v) * ((1 - u) * read(first) + u * read(first + 1)) + v * ((1 - u) * read(first + width) + u * read(first + width + 1));
  };
  return Array.from({ length: count }, (_, i) => {
    const t = i / (count - 1), x = (line.x + t * (line.x2 - line.x)) / step[0] - 0.5, y = (line.y + t * (line.y2 - line.y)) / step[1] - 0.5;
    return { at: t * length, before: between(before, x, y), change: between(change, x, y) };
  });
}

// Spectra of the square in a circle, planes removed, for noise power at any strength (ICRU 87):
// NPS(f) = dx dy / (Nx Ny) |DFT(patch - plane)|^2, mean over rings. Null where it is too small or pixels are not square.
export function spectra(circle, shape, step, before, change) {
  if (Math.abs(step[0] - step[1]) > 0.01 * step[0]) return null;
  const side = Math.min(96, Math.floor((circle.radius * Math.SQRT2) / step[0]));
  if (side < 12) return null;
  const left = Math.round(circle.x / step[0] - side / 2), top = Math.round(circle.y / step[1] - side / 2);
  if (left < 0 || top < 0 || left + side > shape[1] || top + side > shape[0]) return null;
  const [b, c] = [before, change].map((read) => transform(withoutPlane(square(read, side, shape[1], top, left), side), side));
  return { side, left, top, step: step[0], b, c };
}

// Radial noise power at a strength: [{f (cycles per mm), power (unit^2 mm^2)}], without empty rings.
export function power(found, s) {
  const { side, step, b, c } = found, sum = new Float64Array(RINGS), count = new Float64Array(RINGS), last = 0.5 / step;
  const frequency = (k) => (k < side / 2 ? k : k - side) / (side * step);
  for (let i = 0; i < side * side; i++) {
    const ring = Math.floor((Math.hypot(frequency(i % side), frequency(Math.floor(i / side))) / last) * RINGS);
    if (ring >= RINGS) continue;
    sum[ring] += (b.re[i] + s * c.re[i]) ** 2 + (b.im[i] + s * c.im[i]) ** 2;
    count[ring]++;
  }
  const factor = (step * step) / (side * side), rings = [...sum.keys()].filter((ring) => count[ring]);
  return rings.map((ring) => ({ f: ((ring + 0.5) / RINGS) * last, power: (factor * sum[ring]) / count[ring] }));
}

const product = (a, b) => a.reduce((sum, one, i) => sum + one * b[i], 0);

// The values of a square of a slice, row by row.
const square = (read, side, width, top, left) =>
  Float64Array.from({ length: side * side }, (_, i) => read((top + Math.floor(i / side)) * width + left + (i % side)));

function withoutPlane(values, side) {
  const x = (i) => (i % side) - (side - 1) / 2, y = (i) => Math.floor(i / side) - (side - 1) / 2;
  const sum = (part) => values.reduce((total, value, i) => total + part(value, i), 0), square = sum((_, i) => x(i) ** 2);
  const mean = sum((value) => value) / side ** 2, across = sum((value, i) => value * x(i)) / square, down = sum((value, i) => value * y(i)) / square;
  return values.map((value, i) => value - mean - across * x(i) - down * y(i));
}

// The discrete Fourier transform of a square, {re, im}: of its rows, turned, twice.
function transform(values, side) {
  const [cos, sin] = [Math.cos, Math.sin].map((wave) => Float64Array.from({ length: side }, (_, k) => wave((-2 * Math.PI * k) / side)));
  let re = values, im = new Float64Array(side * side);
  for (let pass = 0; pass < 2; pass++) {
    const [re2, im2] = [new Float64Array(side * side), new Float64Array(side * side)];
    for (let row = 0; row < side; row++) for (let k = 0; k < side; k++) for (let n = 0; n < side; n++) {
      const i = row * side + n, turned = k * side + row, turn = (k * n) % side;
      re2[turned] += re[i] * cos[turn] - im[i] * sin[turn];
      im2[turned] += re[i] * sin[turn] + im[i] * cos[turn];
    }
    [re, im] = [re2, im2];
  }
  return { re, im };
}
