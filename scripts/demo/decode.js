// Files -> images: DICOM slices and NIfTI volumes with what their headers say of them, and photos. What cannot be read
// rightly here is refused with the reason; sasm view reads more.

import dicom from "./vendor/dicomParser.js";

const LARGEST = 1024, HERE = "is not read in the tab; sasm view reads it"; // pixels; larger photos are shown smaller
const SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"], CLASSES = { "1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR" };
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2], norm = (a) => Math.sqrt(dot(a, a)), minus = (a, b) => a.map((one, i) => one - b[i]);
const need = (fine, reason) => { if (!fine) throw new Error(reason); };

// All files of a drop: [{place, modality, refusal, mayBe, files, geometry, notes, ...}].
export async function decode(files, meanings) {
  const series = new Map(), found = [], refused = (place, refusal, modality = null, count = 1) => found.push({ place, modality, refusal, mayBe: [], files: count, notes: [] });
  for (const file of files) {
    const place = file.name;
    try {
      let bytes = new Uint8Array(await file.arrayBuffer());
      if (bytes[0] === 0x1f && bytes[1] === 0x8b) bytes = await unpacked(bytes);
      if (String.fromCharCode(...bytes.subarray(128, 132)) === "DICM") {
        const slice = dicomSlice(bytes, meanings);
        series.set(slice.series, [...(series.get(slice.series) ?? []), { ...slice, place }]);
      } else if ([348, 0x5c010000].includes(new DataView(bytes.buffer).getUint32(0, true))) found.push({ ...nifti(bytes), place });
      else if ((bytes[0] === 0x89 && bytes[1] === 0x50) || (bytes[0] === 0xff && bytes[1] === 0xd8)) found.push({ ...(await photo(file, bytes)), place });
      else refused(place, `this kind of file ${HERE}`);
    } catch (error) { refused(place, error instanceof Error ? error.message : `damaged: ${error}`); }
  }
  for (const slices of series.values()) {
    try { found.push(stack(slices)); } catch (error) { refused(slices[0].place, error.message, slices[0].modality, slices.length); }
  }
  return found;
}

export const unpacked = async (bytes) => new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());

function dicomSlice(bytes, meanings) {
  const data = dicom.parseDicom(bytes), text = (tag) => data.string(tag) ?? "", numbers = (tag) => text(tag).split("\\").map(Number);
  const modality = CLASSES[text("x00080016")], [height, width, allocated, stored, high, signed] = ["x00280010", "x00280011", "x00280100", "x00280101", "x00280102", "x00280103"].map((tag) => data.uint16(tag));
  need(modality, `this kind of DICOM object ${HERE}, or is no CT or MR image`);
  need(SYNTAXES.includes(text("x00020010")), `compressed DICOM ${HERE}`);
  need(text("x00280004") === "MONOCHROME2" && allocated === 16 && high === stored - 1, `this kind of pixels ${HERE}`);
  const kinds = text("x00080008").toUpperCase().replace(/[_\s]+/g, " ").split("\\"), what = Object.keys(meanings[modality]).find((name) => kinds.slice(2).some((kind) => new RegExp(`^(${meanings[modality][name]})$`).test(kind.trim())));
  need(!what && !kinds.includes("LOCALIZER"), `${what ?? "a localizer"} by its Image Type: not to be restored`);
  const position = numbers("x00200032"), orientation = numbers("x00200037"), spacing = numbers("x00280030"), slope = text("x00281053"), element = data.elements.x7fe00010;
  need(position.length === 3 && orientation.length === 6 && spacing.length === 2 && [...position, ...orientation, ...spacing].every(Number.isFinite), "its place in space is not known: no position, orientation or pixel spacing");
  need(modality === "MR" || (slope !== "" && ["", "HU"].includes(text("x00281054"))), "no Hounsfield units: Rescale Slope is missing, or Rescale Type is another one");
  need(element?.length >= 2 * height * width, "the pixel data are cut off");
  const raw = new DataView(bytes.buffer, bytes.byteOffset + element.dataOffset), shift = 32 - stored, intercept = Number(text("x00281052") || 0);
  const pixels = Float32Array.from({ length: height * width }, (_, i) => { const bits = raw.getUint16(2 * i, true) << shift; return (signed ? bits >> shift : bits >>> shift) * Number(slope || 1) + intercept; });
  return { modality, series: text("x0020000e"), height, width, position, orientation, spacing, pixels, kernel: text("x00181210"), part: text("x00180015") };
}

// functional/neighbours.py: whether slices lie straight behind each other, about as close as pixels.
const close = (step, rows, columns) => norm(step) <= 1.5 * Math.min(norm(rows), norm(columns)) && [rows, columns].every((one) => Math.abs(dot(one, step)) <= 1e-3 * norm(one) * norm(step));

// Slices of one series in their order; io/dicom/geometry.py.
function stack(slices) {
  const { modality, height, width, orientation, spacing, kernel, part } = slices[0], like = (one, other) => String(one) === String(other);
  need(slices.every((one) => one.height === height && one.width === width && like(one.orientation, orientation) && like(one.spacing, spacing)), `a series of slices of different size or direction ${HERE}`);
  const across = orientation.slice(0, 3), down = orientation.slice(3), normal = [across[1] * down[2] - across[2] * down[1], across[2] * down[0] - across[0] * down[2], across[0] * down[1] - across[1] * down[0]];
  const sorted = slices.sort((a, b) => dot(a.position, normal) - dot(b.position, normal)), places = sorted.map((one) => one.position), count = places.length;
  const along = places.slice(1).map((one, i) => dot(minus(one, places[i]), normal)), tolerance = Math.max(0.01, 0.01 * ([...along].sort((a, b) => a - b)[along.length >> 1] ?? 0));
  need(along.every((one) => one > tolerance), `a series with two slices at one place ${HERE}`);
  const step = minus(places[count - 1], places[0]).map((one) => one / Math.max(1, count - 1)), off = (one, n) => Math.max(...one.map((x, i) => Math.abs(x - places[0][i] - n * step[i])));
  const even = count > 1 && Math.max(...places.map(off)) <= tolerance && Math.max(...along) - Math.min(...along) <= 2 * tolerance;
  const ras = (one, mm) => [-one[0] * mm, -one[1] * mm, one[2] * mm], place = count > 1 ? `${modality} series` : slices[0].place;
  return { place, modality, refusal: null, mayBe: [], files: count, geometry: count === 1 ? "single" : even ? "regular" : "irregular", notes: [], slices: sorted.map((one) => one.pixels), colours: 1, height, width,
    rows: ras(down, spacing[0]), columns: ras(across, spacing[1]), distance: even ? norm(step) : null, close: even && close(ras(step, 1), ras(down, spacing[0]), ras(across, spacing[1])), kernel, part };
}

// io/nifti: one volume; the axes of a slice are those of the file without the slice axis.
function nifti(bytes) {
  const view = new DataView(bytes.buffer), little = view.getUint32(0, true) === 348, int = (at) => view.getInt16(at, little), real = (at) => view.getFloat32(at, little);
  need(bytes[344] === 0x6e && bytes[345] === 0x2b && bytes[346] === 0x31, `NIfTI in two files, and Analyze, ${HERE}`);
  const sides = [1, 2, 3].map((i) => Math.max(1, int(40 + 2 * i))), reads = { 2: ["Uint8", 1], 4: ["Int16", 2], 8: ["Int32", 4], 16: ["Float32", 4], 64: ["Float64", 8], 256: ["Int8", 1], 512: ["Uint16", 2], 768: ["Uint32", 4] }[int(70)];
  need(reads && int(40) <= 4 && (int(40) < 4 || int(48) <= 1) && sides.filter((one) => one > 1).length > 1, `NIfTI with time points, vectors or this type of numbers ${HERE}`);
  need(![1002, 1003].includes(int(68)) && !(int(68) >= 2 && int(68) < 25), "a label map or parameter map by its header, not an image");
  const [read, size] = reads, start = real(108), total = sides[0] * sides[1] * sides[2], slope = real(112), inter = real(116), plain = !Number.isFinite(slope) || slope === 0;
  need(bytes.length >= start + size * total, "the voxels end early");
  const values = Float32Array.from({ length: total }, (_, i) => { const one = view[`get${read}`](start + size * i, little); return plain ? one : one * slope + inter; });
  if (!values.every(Number.isFinite)) { const least = values.reduce((a, b) => (Number.isFinite(b) ? Math.min(a, b) : a), Infinity); need(least < Infinity, "no voxel is a number"); values.forEach((one, i) => { if (!Number.isFinite(one)) values[i] = least; }); }
  const unit = { 1: 1000, 3: 0.001 }[bytes[123] & 7] ?? 1, axes = [0, 1, 2].map((axis) => [0, 1, 2].map((row) => unit * (int(254) > 0 ? real(280 + 16 * row + 4 * axis) : int(252) > 0 ? turned(real, row, axis) : row === axis ? real(80 + 4 * axis) * (axis ? 1 : -1) : 0)));
  const lengths = axes.map(norm), thick = lengths.indexOf(Math.max(...lengths)), stated = ((bytes[39] >> 4) & 3) - 1;
  need(lengths.every((one) => one > 0 && one < Infinity), "its orientation cannot be: repair the header (sform or qform)");
  const axis = sides.includes(1) ? sides.indexOf(1) : stated >= 0 ? stated : lengths[thick] > 1.2 * [...lengths].sort((a, b) => a - b)[1] ? thick : 2;
  const [first, second] = [0, 1, 2].filter((one) => one !== axis), steps = [1, sides[0], sides[0] * sides[1]], [height, width] = [sides[first], sides[second]];
  const slices = Array.from({ length: sides[axis] }, (_, k) => Float32Array.from({ length: height * width }, (_, i) => values[k * steps[axis] + Math.floor(i / width) * steps[first] + (i % width) * steps[second]]));
  return { modality: null, refusal: "the file does not say what made it", mayBe: ["CT", "MR"], files: 1, geometry: slices.length > 1 ? "regular" : "single", notes: int(254) > 0 || int(252) > 0 ? [] : ["the header gives no orientation; left and right are not known"],
    slices, colours: 1, height, width, rows: axes[first], columns: axes[second], distance: slices.length > 1 ? lengths[axis] : null, close: slices.length > 1 && close(axes[axis], axes[first], axes[second]) };
}

// An element of the affine of the quaternion (NIfTI-1, method 2).
function turned(real, row, axis) {
  const [b, c, d] = [real(256), real(260), real(264)], a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d));
  const matrix = [[a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)], [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)], [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c]];
  return matrix[row][axis] * real(80 + 4 * axis) * (axis === 2 && real(76) < 0 ? -1 : 1);
}

async function photo(file, bytes) {
  const png = bytes[0] === 0x89;
  need(!png || bytes[24] <= 8, `a picture of 16 bits a colour ${HERE}`);
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const every = Math.ceil(Math.max(bitmap.width, bitmap.height) / LARGEST), width = Math.ceil(bitmap.width / every), height = Math.ceil(bitmap.height / every);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height), grey = png && [0, 4].includes(bytes[25]), colours = grey ? 1 : 3;
  const pixels = Float32Array.from({ length: colours * height * width }, (_, i) => { const [k, y, x] = [Math.floor(i / height / width), Math.floor(i / width) % height, i % width]; return data[4 * (y * every * bitmap.width + x * every) + k] / 255; });
  const notes = every > 1 ? [`Every ${every}th pixel of ${bitmap.width} × ${bitmap.height} is shown: the tab is for small photos.`] : [];
  return { modality: "PHOTO", refusal: null, mayBe: [], files: 1, geometry: "single", notes, slices: [pixels], colours, height, width, rows: null, columns: null, distance: null };
}
