// The picture: panes that always show the same place, what is drawn on them, and what pointer and wheel do there.

import { AFTER, BEFORE } from "./colours.js";
import { Renderer } from "./gl.js";

const GRIP = 12; // pixels around the wipe line that take hold of it

export class Stage {
  // changed(what): "look", "measure", "pointer" or "brush"; scrolled(steps): to another slice
  constructor(picture, marks, changed, scrolled) {
    Object.assign(this, { picture, marks, changed, scrolled });
    this.renderer = new Renderer(picture);
    this.context = marks.getContext("2d");
    this.tool = "window";
    this.mode = "wipe";
    this.shown = "after"; // in blink
    this.wipe = 0.5;
    this.look = { strength: 1, low: 0, high: 1, opacity: 0, overlayLow: -1, overlayHigh: 1, colour: false, overlayIsChange: true };
    this.clear();
    new ResizeObserver(() => this.resize()).observe(marks);
    marks.addEventListener("pointerdown", (event) => this.press(event));
    marks.addEventListener("pointermove", (event) => this.move(event));
    marks.addEventListener("pointerup", () => (this.drag = null));
    marks.addEventListener("pointercancel", () => (this.drag = null));
    marks.addEventListener("pointerleave", () => { this.cross = null; this.changed("pointer"); this.draw(); });
    marks.addEventListener("dblclick", () => this.fit());
    marks.addEventListener("contextmenu", (event) => event.preventDefault());
    marks.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  clear() {
    Object.assign(this, { about: null, circle: null, background: null, line: null, cross: null, drag: null, brush: null });
  }

  // A new image: its about of the server, and the size of one pixel in mm (photos: 1).
  open(about) {
    this.clear();
    this.about = about;
    this.step = about.spacing ? [about.spacing[1], about.spacing[0]] : [1, 1];
    this.size = [about.shape[2], about.shape[1]];
    this.look.colour = about.picture && about.shape[0] === 3;
    this.fit();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    for (const canvas of [this.picture, this.marks]) {
      canvas.width = Math.max(1, Math.round(this.marks.clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(this.marks.clientHeight * ratio));
    }
    this.ratio = ratio;
    if (this.about && !this.moved) this.fit(); else this.draw();
  }

  panes() {
    const { width, height } = this.picture;
    if (this.mode === "side") {
      const half = Math.floor(width / 2) - 1;
      return [{ x: 0, y: 0, width: half, height, after: false }, { x: width - half, y: 0, width: half, height, after: true }];
    }
    if (this.mode === "wipe") return [{ x: 0, y: 0, width, height, after: true, wipe: Math.round(this.wipe * width) }];
    return [{ x: 0, y: 0, width, height, after: this.shown === "after" }];
  }

  fit() {
    if (!this.about) return;
    const pane = this.panes()[0], mm = this.size.map((side, axis) => side * this.step[axis]);
    this.centre = [mm[0] / 2, mm[1] / 2];
    this.zoom = Math.min(pane.width / mm[0], pane.height / mm[1]);
    this.moved = false;
    this.draw();
  }

  magnify(factor, at = null) {
    const before = at && this.place(at);
    this.zoom = Math.min(200, Math.max(0.02, this.zoom * factor));
    if (at) {
      const after = this.place(at);
      this.centre = this.centre.map((one, axis) => one + before[axis] - after[axis]);
    }
    this.moved = true;
    this.draw();
  }

  pan(dx, dy) {
    this.centre = [this.centre[0] - dx / this.zoom, this.centre[1] - dy / this.zoom];
    this.moved = true;
    this.draw();
  }

  // Event -> [x, y] on the canvas, and its pane.
  at(event) {
    const box = this.marks.getBoundingClientRect();
    const x = (event.clientX - box.left) * this.ratio, y = (event.clientY - box.top) * this.ratio;
    const panes = this.panes();
    return { x, y, pane: panes.find((one) => x >= one.x && x < one.x + one.width) ?? panes[0] };
  }

  place({ x, y, pane }) {
    return [(x - pane.x - pane.width / 2) / this.zoom + this.centre[0], (y - pane.y - pane.height / 2) / this.zoom + this.centre[1]];
  }

  // mm -> canvas, in a pane
  spot(pane, [x, y]) {
    return [pane.x + pane.width / 2 + (x - this.centre[0]) * this.zoom, pane.y + pane.height / 2 + (y - this.centre[1]) * this.zoom];
  }

  pixel([x, y]) {
    const column = Math.floor(x / this.step[0]), row = Math.floor(y / this.step[1]);
    return column >= 0 && row >= 0 && column < this.size[0] && row < this.size[1] ? [column, row] : null;
  }

  press(event) {
    if (!this.about) return;
    this.marks.setPointerCapture(event.pointerId);
    this.marks.focus({ preventScroll: true });
    const at = this.at(event), place = this.place(at);
    const line = this.mode === "wipe" && Math.abs(at.x - this.wipe * this.picture.width) < GRIP * this.ratio;
    let kind = event.button === 1 || event.shiftKey ? "pan" : event.button === 2 ? "window" : line ? "wipe" : this.tool;
    const grabbed = ["circle", "background"].find((name) => this[name] && kind === name && Math.hypot(place[0] - this[name].x, place[1] - this[name].y) < this[name].radius * 0.8);
    this.drag = { kind, at, place, low: this.look.low, high: this.look.high, grabbed: grabbed && { ...this[grabbed] } };
    if (kind === "brush") this.brush?.(place, true);
  }

  move(event) {
    if (!this.about) return;
    const at = this.at(event), place = this.place(at), drag = this.drag;
    this.cross = place;
    if (drag) {
      const dx = at.x - drag.at.x, dy = at.y - drag.at.y;
      if (drag.kind === "pan") { this.pan(at.x - (drag.last?.x ?? drag.at.x), at.y - (drag.last?.y ?? drag.at.y)); drag.last = at; }
      if (drag.kind === "wipe") this.wipe = Math.min(1, Math.max(0, at.x / this.picture.width));
      if (drag.kind === "window") {
        const width = drag.high - drag.low, speed = width / 300 / this.ratio;
        const wide = Math.max(width / 50, width + dx * speed), level = (drag.low + drag.high) / 2 + dy * speed;
        Object.assign(this.look, { low: level - wide / 2, high: level + wide / 2 });
        this.changed("window");
      }
      if (drag.kind === "circle" || drag.kind === "background") {
        const [x, y] = drag.place;
        if (drag.grabbed) this[drag.kind] = { ...drag.grabbed, x: drag.grabbed.x + place[0] - x, y: drag.grabbed.y + place[1] - y };
        else this[drag.kind] = { x, y, radius: Math.max(1.5 * this.step[0], Math.hypot(place[0] - x, place[1] - y)) };
        this.changed("measure");
      }
      if (drag.kind === "line") {
        this.line = { x: drag.place[0], y: drag.place[1], x2: place[0], y2: place[1] };
        this.changed("measure");
      }
      if (drag.kind === "brush") this.brush?.(place, false);
    }
    this.changed("pointer");
    this.draw();
  }

  wheel(event) {
    if (!this.about) return;
    event.preventDefault();
    if (event.ctrlKey || this.about.slices === 1) { this.magnify(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), this.at(event)); return; }
    this.wheeled = (this.wheeled ?? 0) + event.deltaY * (event.deltaMode ? 30 : 1);
    const steps = Math.trunc(this.wheeled / 30);
    if (steps) { this.wheeled -= 30 * steps; this.scrolled(steps); }
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    if (!this.about || !this.zoom) { this.renderer.draw([], { ...this.look, scale: [1, 1], size: [1, 1], texels: 1 }); this.context.clearRect(0, 0, this.marks.width, this.marks.height); return; }
    const panes = this.panes().map((pane) => ({ ...pane, origin: [pane.width / 2 - this.centre[0] * this.zoom, pane.height / 2 - this.centre[1] * this.zoom] }));
    const texels = (this.renderer.held.before?.shape[1] ?? this.size[0]) / this.size[0];
    this.renderer.draw(panes, { ...this.look, scale: this.step.map((one) => one * this.zoom), size: this.size, texels });
    this.annotate(panes);
    this.frames = (this.frames ?? 0) + 1;
  }

  annotate(panes) {
    const c = this.context, r = this.ratio;
    c.clearRect(0, 0, this.marks.width, this.marks.height);
    c.font = `${13 * r}px system-ui, sans-serif`;
    const tag = (text, x, y, colour, align = "left") => {
      c.textAlign = align;
      c.lineWidth = 3 * r; c.strokeStyle = "#000c"; c.fillStyle = colour;
      c.strokeText(text, x, y); c.fillText(text, x, y);
    };
    for (const pane of panes) {
      const right = pane.x + pane.width, middle = pane.y + pane.height / 2;
      if (this.mode === "wipe") { tag("Before", 12 * r, 24 * r, BEFORE); tag("After", right - 12 * r, 24 * r, AFTER, "right"); }
      else tag(pane.after ? "After" : "Before", pane.x + 12 * r, 24 * r, pane.after ? AFTER : BEFORE);
      if (this.about.ends.length) {
        const [left, far, top, bottom] = this.about.ends;
        tag(left, pane.x + 8 * r, middle, "#d7dce0"); tag(far, right - 8 * r, middle, "#d7dce0", "right");
        tag(top, pane.x + pane.width / 2, pane.y + 18 * r, "#d7dce0", "center"); tag(bottom, pane.x + pane.width / 2, pane.y + pane.height - 10 * r, "#d7dce0", "center");
      }
      c.save();
      c.beginPath(); c.rect(pane.x, pane.y, pane.width, pane.height); c.clip();
      const shape = (path, colour, dashed) => {
        c.setLineDash(dashed ? [6 * r, 4 * r] : []);
        for (const [width, stroke] of [[3.5 * r, "#000a"], [1.6 * r, colour]]) { c.beginPath(); path(); c.lineWidth = width; c.strokeStyle = stroke; c.stroke(); }
        c.setLineDash([]);
      };
      for (const [circle, colour, name] of [[this.circle, "#ffe945", "A"], [this.background, "#e7e7e7", "B"]]) {
        if (!circle) continue;
        const [x, y] = this.spot(pane, [circle.x, circle.y]);
        shape(() => c.arc(x, y, circle.radius * this.zoom, 0, 7), colour, name === "B");
        tag(name, x + circle.radius * this.zoom * 0.71 + 4 * r, y - circle.radius * this.zoom * 0.71, colour);
      }
      if (this.line) {
        const from = this.spot(pane, [this.line.x, this.line.y]), to = this.spot(pane, [this.line.x2, this.line.y2]);
        shape(() => { c.moveTo(...from); c.lineTo(...to); }, "#ffe945");
      }
      if (this.mask) {
        c.globalAlpha = 0.6;
        c.drawImage(this.mask, ...this.spot(pane, [0, 0]), this.size[0] * this.zoom, this.size[1] * this.zoom);
        c.globalAlpha = 1;
      }
      if (this.cross && this.mode === "side") {
        const [x, y] = this.spot(pane, this.cross);
        c.beginPath(); c.moveTo(x - 9 * r, y); c.lineTo(x + 9 * r, y); c.moveTo(x, y - 9 * r); c.lineTo(x, y + 9 * r);
        c.lineWidth = r; c.strokeStyle = "#fff9"; c.stroke();
      }
      c.restore();
      if (pane.wipe !== undefined) {
        const x = pane.wipe, h = pane.height;
        c.fillStyle = "#000a"; c.fillRect(x - 1.5 * r, 0, 3 * r, h);
        c.fillStyle = "#fff"; c.fillRect(x - 0.5 * r, 0, r, h);
        c.beginPath(); c.arc(x, h - 48 * r, 14 * r, 0, 7); c.fillStyle = "#15181bdd"; c.fill(); c.lineWidth = r; c.strokeStyle = "#fff"; c.stroke();
        c.fillStyle = "#fff";
        for (const side of [-1, 1]) { c.beginPath(); c.moveTo(x + side * 10 * r, h - 48 * r); c.lineTo(x + side * 4 * r, h - 53 * r); c.lineTo(x + side * 4 * r, h - 43 * r); c.fill(); }
      }
    }
    if (this.mode === "side") { c.fillStyle = "#3a4148"; c.fillRect(panes[0].width, 0, 2, this.marks.height); }
  }
}
