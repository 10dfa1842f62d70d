// Regions, profile and target noise beside the picture.

import { say } from "./cards.js";
import { chart } from "./charts.js";
import { meanAt, noiseCurve, power, profile, region, sdAt, spectra, strengthFor } from "./measure.js";

const $ = (id) => document.getElementById(id);

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

  // A slice: {shape, before, change}, functions of the index of a pixel; change is null until it is restored.
  put(data) {
    const full = data && data.shape[1] === this.stage.size[0]; // no measuring on previews
    this.data = full && data.change ? data : null;
    this.quiet = null;
    this.look();
  }

  // The slices of a volume that `sasm restore --target-noise` measures, [{shape, before, change}].
  volume(slices) {
    this.whole = noiseCurve(slices, this.about);
    this.look();
  }

  // Look at the regions anew.
  look() {
    const { stage, data } = this;
    this.a = this.b = this.spectrum = this.line = null;
    if (data) {
      const { shape, before, change } = data, step = stage.step;
      if (stage.circle) {
        this.a = region(stage.circle, shape, step, before, change);
        this.spectrum = spectra(stage.circle, shape, step, before, change);
      }
      if (stage.background) this.b = region(stage.background, shape, step, before, change);
      if (stage.line) this.line = profile(stage.line, shape, step, before, change);
      this.quiet ??= this.about.picture ? null : noiseCurve([data], this.about);
    }
    this.noise = this.a?.n > 8 ? this.a : this.whole ?? this.quiet;
    this.draw();
  }

  draw() {
    const { stage, about } = this, s = stage.look.strength;
    const drawn = stage.circle || stage.background || stage.line;
    $("measure-hint").hidden = Boolean(drawn);
    $("clear").hidden = !drawn;
    $("csv").hidden = !(this.a || this.line);
    $("table").hidden = !this.a;
    if (this.a) {
      const rows = this.rows(s);
      $("table").tBodies[0].replaceChildren(...rows.map(([name, before, after]) => {
        const row = document.createElement("tr");
        for (const [tag, text] of [["th", name], ["td", before], ["td", after]]) row.append(Object.assign(document.createElement(tag), { textContent: text, scope: tag === "th" ? "row" : undefined }));
        return row;
      }));
    }
    $("nps-figure").hidden = !this.spectrum;
    if (this.spectrum) {
      const lines = [0, s].map((one) => power(this.spectrum, one).map(({ f, power: value }) => [f, value]));
      const [across, unit] = about.spacing ? ["cycles/mm", `${about.unit === "MR" ? "unit" : about.unit}² mm²`] : ["cycles/pixel", "unit² pixel²"];
      chart($("nps"), { before: lines[0], after: lines[1], across, up: unit, fromZero: true });
    }
    $("profile-figure").hidden = !this.line;
    if (this.line) {
      const lines = [0, s].map((one) => this.line.map(({ at, before, change }) => [at, before + one * change]));
      chart($("profile"), { before: lines[0], after: lines[1], across: about.spacing ? "mm" : "pixels", up: about.unit });
    }
    $("noise-row").hidden = !this.noise;
    if (this.noise) {
      const [least, most] = [sdAt(this.noise, 1), sdAt(this.noise, 0)].sort((x, y) => x - y);
      Object.assign($("noise"), { min: least, max: most, value: sdAt(this.noise, s) });
      $("noise-number").textContent = say(sdAt(this.noise, s), about.unit);
      $("noise-where").textContent = this.noise === this.a ? "(SD in region A)" : this.noise === this.whole ? "(tissue, all slices)" : "(tissue, this slice)";
    }
  }

  rows(s) {
    const { a, b, about } = this, text = (value) => (Number.isFinite(value) ? say(value, about.unit).replace(" of 255", "") : "–");
    const area = a.n * this.stage.step[0] * this.stage.step[1];
    const rows = [["Mean", ...[0, s].map((one) => text(meanAt(a, one)))], ["SD", ...[0, s].map((one) => text(sdAt(a, one)))]];
    if (b) rows.push(["Mean of B", ...[0, s].map((one) => text(meanAt(b, one)))], ["CNR to B", ...[0, s].map((one) => this.cnr(one).toFixed(2))]);
    rows.push([about.spacing ? "Area, mm²" : "Pixels", area.toFixed(about.spacing ? 1 : 0), ""]);
    return rows;
  }

  // |mean A - mean B| over the standard deviation of B
  cnr(s) { return Math.abs(meanAt(this.a, s) - meanAt(this.b, s)) / sdAt(this.b, s); }

  // The table of everything that is measured, as text.
  csv() {
    const s = this.stage.look.strength, lines = [["what", "x", "before", "after"]];
    const { circle, background } = this.stage, where = (one) => `${one.x.toFixed(2)} ${one.y.toFixed(2)} r ${one.radius.toFixed(2)}`;
    lines.push(["strength", "", 0, s]);
    if (this.a) lines.push([`mean A (${this.about.unit})`, where(circle), meanAt(this.a, 0), meanAt(this.a, s)], [`SD A (${this.about.unit})`, where(circle), sdAt(this.a, 0), sdAt(this.a, s)], ["pixels A", where(circle), this.a.n, this.a.n]);
    if (this.a && this.b) lines.push([`mean B (${this.about.unit})`, where(background), meanAt(this.b, 0), meanAt(this.b, s)], [`SD B (${this.about.unit})`, where(background), sdAt(this.b, 0), sdAt(this.b, s)], ["CNR A to B", "", this.cnr(0), this.cnr(s)]);
    if (this.spectrum) power(this.spectrum, 0).forEach(({ f, power: value }, i) => lines.push(["NPS", f, value, power(this.spectrum, s)[i].power]));
    for (const { at, before, change } of this.line ?? []) lines.push(["profile", at, before, before + s * change]);
    return lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
  }

  export() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" }));
    link.download = `${this.about.name}_slice${$("slice").valueAsNumber + 1}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
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
    const { stage } = this, circle = stage[stage.tool === "background" ? "background" : "circle"], step = 2 / stage.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key];
    if (!circle || !(moves || "+-".includes(key))) return false;
    if (moves) { circle.x += 4 * moves[0]; circle.y += 4 * moves[1]; } else circle.radius *= key === "+" ? 1.1 : 0.91;
    this.look();
    stage.draw();
    return true;
  }
}
