// Regions, profile and target noise beside the picture.

import { say } from "./cards.js";
import { chart } from "./charts.js";
import { $, element } from "./dom.js";
import { meanAt, noiseCurve, power, profile, reader, region, sdAt, spectra, strengthFor } from "./measure.js";

const readable = ({ before, change }) => ({ shape: before.shape, before: reader(before), change: reader(change) });

export class Measuring {
  constructor(stage, setStrength) {
    Object.assign(this, { stage, setStrength });
    $("noise").oninput = () => this.noise && setStrength(strengthFor(this.noise, +$("noise").value));
    $("csv").onclick = () => this.export();
    $("clear").onclick = () => this.clear();
  }

  open(about) {
    this.about = about;
    this.data = this.noise = this.whole = this.a = this.b = this.spectrum = this.line = null;
    this.draw();
  }

  // A slice of api.raw: {before, change}; change is null until it is restored.
  put(slice) {
    this.data = slice.change && slice.before.shape[1] === this.stage.size[0] ? readable(slice) : null; // no measuring on previews
    this.look();
  }

  // The slices of a volume that `sasm restore --target-noise` measures, and their numbers.
  volume(slices, numbers) {
    this.whole = noiseCurve(slices.map((one, i) => ({ ...readable(one), white: this.about.whites[numbers[i]] })), this.about);
    this.look();
  }

  // Look at the regions anew.
  look() {
    const { stage, data } = this, { circle, background, line } = data ? stage : {};
    const all = data && [data.shape, stage.step, data.before, data.change];
    this.a = circle && region(circle, ...all);
    this.b = background && region(background, ...all);
    this.spectrum = circle && spectra(circle, ...all);
    this.line = line && profile(line, ...all);
    this.noise = this.a?.n > 8 ? this.a : this.whole;
    this.draw();
  }

  draw() {
    const { stage, about } = this, s = stage.look.strength;
    const drawn = stage.circle || stage.background || stage.line;
    $("measure-hint").hidden = Boolean(drawn);
    $("clear").hidden = !drawn;
    $("csv").hidden = !(this.a || this.line);
    $("table").hidden = !this.a;
    const cells = (values) => values.map((text) => element("td", {}, text));
    const rows = this.rows(s).map(([name, ...values]) => element("tr", {}, element("th", { scope: "row" }, name), ...cells(values)));
    $("table").tBodies[0].replaceChildren(...rows);
    const { unit, spacing } = about ?? {}, squared = `${unit === "HU" ? "HU" : "unit"}²`;
    const powers = (one) => power(this.spectrum, one).map(({ f, power: value }) => [f, value]);
    const values = (one) => this.line.map(({ at, before, change }) => [at, before + one * change]);
    const labels = spacing ? { across: "cycles/mm", up: `${squared} mm²` } : { across: "cycles/pixel", up: `${squared} pixel²` };
    this.curves("nps", this.spectrum && powers, { ...labels, fromZero: true });
    this.curves("profile", this.line && values, { across: spacing ? "mm" : "pixels", up: unit });
    $("noise-row").hidden = !this.noise;
    if (this.noise) {
      const [least, most] = [sdAt(this.noise, 1), sdAt(this.noise, 0)].sort((x, y) => x - y);
      Object.assign($("noise"), { min: least, max: most, value: sdAt(this.noise, s) });
      $("noise-number").textContent = say(sdAt(this.noise, s), about.unit);
      $("noise-where").textContent = this.noise === this.a ? "(SD in region A)" : "(tissue, all slices)";
    }
  }

  // The lines of a chart before and after, points(strength), where there are any.
  curves(name, points, labels) {
    $(`${name}-figure`).hidden = !points;
    $(`${name}-unit`).textContent = labels.up;
    if (points) chart($(name), { before: points(0), after: points(this.stage.look.strength), ...labels });
  }

  // What is measured in the regions: [name, in the unit of the image, before, after].
  figures(s) {
    const { a, b } = this, at = (name, inUnit, measure) => [name, inUnit, measure(0), measure(s)];
    const of = (name, m) => (m ? [at(`Mean ${name}`, true, (one) => meanAt(m, one)), at(`SD ${name}`, true, (one) => sdAt(m, one))] : []);
    const contrast = (one) => Math.abs(meanAt(a, one) - meanAt(b, one)) / sdAt(b, one);
    return [...of("A", a), ...of("B", b), ...(a && b ? [at("CNR A to B", false, contrast)] : [])];
  }

  rows(s) {
    if (!this.a) return [];
    const { about: { unit, spacing }, stage: { step } } = this, area = this.a.n * step[0] * step[1];
    const text = (value, inUnit) => (inUnit ? say(value, unit).replace(" of 255", "") : value.toFixed(2));
    const rows = this.figures(s).map(([name, inUnit, ...values]) => [name, ...values.map((one) => (Number.isFinite(one) ? text(one, inUnit) : "–"))]);
    return [...rows, spacing ? ["Area A, mm²", area.toFixed(1), ""] : ["Pixels A", area, ""]];
  }

  // The table of everything that is measured, as text.
  csv() {
    const s = this.stage.look.strength, lines = [["what", "x", "before", "after"], ["strength", "", 0, s]];
    const { circle, background } = this.stage, place = (one) => [one.x, one.y, one.radius].map((value) => value.toFixed(2)).join(" ");
    for (const [name, one] of Object.entries({ A: circle, B: background })) if (one) lines.push([`${name}: x y radius`, place(one), "", ""]);
    for (const [name, inUnit, ...values] of this.figures(s)) lines.push([inUnit ? `${name} (${this.about.unit})` : name, "", ...values]);
    if (this.a) lines.push(["pixels A", "", this.a.n, this.a.n]);
    if (this.spectrum) power(this.spectrum, 0).forEach(({ f, power: value }, i) => lines.push(["NPS", f, value, power(this.spectrum, s)[i].power]));
    for (const { at, before, change } of this.line ?? []) lines.push(["profile", at, before, before + s * change]);
    return lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
  }

  export() {
    const href = URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" }));
    element("a", { href, download: `${this.about.name}_slice${$("slice").valueAsNumber + 1}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  }

  clear() {
    Object.assign(this.stage, { circle: null, background: null, line: null });
    this.look();
    this.stage.draw();
  }

  // With the keyboard: the tool's shape in the middle of what is shown.
  draws() {
    const { stage } = this, kind = stage.tool;
    if (!stage.about) return;
    const [x, y] = stage.centre, reach = (0.12 * Math.min(stage.picture.width, stage.picture.height)) / stage.zoom;
    if (kind === "line") stage.line = { x: x - reach, y, x2: x + reach, y2: y };
    else if (kind === "circle" || kind === "background") stage[kind] = { x, y, radius: reach / 2 };
    this.look();
    stage.draw();
  }

  key(key) {
    const { stage } = this, circle = stage[stage.tool === "background" ? "background" : "circle"], step = 8 / stage.zoom;
    const moves = { ArrowLeft: [-step, 0, 1], ArrowRight: [step, 0, 1], ArrowUp: [0, -step, 1], ArrowDown: [0, step, 1], "+": [0, 0, 1.1], "-": [0, 0, 0.91] };
    if (!circle || !moves[key]) return false;
    const [across, down, times] = moves[key];
    Object.assign(circle, { x: circle.x + across, y: circle.y + down, radius: times * circle.radius });
    this.look();
    stage.draw();
    return true;
  }
}
