// Colour scales that people who are colour-blind can read, and the window presets.

export const BEFORE = "#f0a830", AFTER = "#5bbcf2"; // of Okabe and Ito, lightened for a dark page

// stops: [place, red, green, blue, opacity], values 0 to 255, opacity 0 to 1
const scales = {
  change: [[0, 94, 60, 200, 1], [0.3, 90, 140, 235, 0.8], [0.45, 110, 150, 220, 0.2], [0.5, 128, 128, 128, 0], [0.55, 230, 160, 100, 0.2], [0.7, 245, 150, 60, 0.8], [1, 255, 205, 70, 1]],
  weight: [[0, 0, 32, 76, 0], [0.25, 66, 78, 107, 0.5], [0.5, 124, 123, 120, 0.7], [0.75, 187, 173, 107, 0.85], [1, 255, 233, 69, 1]],
};
scales.uncertainty = scales.weight;

// 256 RGBA colours of a scale, as a picture of one row.
export function table(name) {
  const stops = scales[name], out = new Uint8Array(1024);
  for (let i = 0; i < 256; i++) {
    const place = i / 255, next = Math.max(1, stops.findIndex((stop) => stop[0] >= place));
    const [a, b] = [stops[next - 1], stops[next]], t = (place - a[0]) / (b[0] - a[0]);
    for (let k = 0; k < 4; k++) out[4 * i + k] = (k === 3 ? 255 : 1) * (a[k + 1] + t * (b[k + 1] - a[k + 1]));
  }
  return { shape: [1, 256, 4], type: "uint8", data: out };
}

export const gradient = (name) =>
  `linear-gradient(to right, ${scales[name].map(([p, r, g, b]) => `rgb(${r} ${g} ${b}) ${100 * p}%`).join(", ")})`;

// Windows: [name, black, white] in HU
export const CT_WINDOWS = [["Abdomen", -160, 240], ["Lung", -1350, 150], ["Bone", -500, 1300], ["Brain", 0, 80]];
