// The picture: panes that always show the same place, what is drawn on them, and what pointer and wheel do there.

import { AFTER, BEFORE } from "./colours.js";
import { Renderer } from "./gl.js";

const GRIP = 12; // pixels around the wipe line that take hold of it
const CROSS = new Path2D("M-9 0H9M0-9V9"), ARROWS = new Path2D("M-10 0L-4-5V5ZM10 0L4-5V5Z"), HANDLE = new Path2D("M-14 0A14 14 0 1 1 14 0A14 14 0 1 1-14 0Z");

export class Stage {
  // told: what is called when the window, the pointer or a region moved, and scroll(steps): to another slice
  constructor(picture, marks, told) {
    Object.assign(this, { picture, marks, told, tool: "window", mode: "wipe", shown: "after", wipe: 0.5 }); // shown: in blink
    this.renderer = new Renderer(picture);
    this.context = marks.getContext("2d");
    this.look = { strength: 1, low: 0, high: 1, opacity: 0, overlayLow: -1, overlayHigh: 1, colour: false, overlayIsChange: true };
    new ResizeObserver(() => this.resize()).observe(marks);
    marks.onpointerdown = (event) => this.press(event);
    marks.onpointermove = (event) => this.move(event);
    marks.onpointerup = marks.onpointercancel = () => (this.drag = null);
    marks.onpointerleave = () => { this.cross = null; this.told.pointer(); this.draw(); };
    marks.ondblclick = () => this.fit();
    marks.oncontextmenu = () => false;
    marks.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  // A new image: its about of the server, and the size of one pixel in mm (photos: 1).
  open(about) {
    const { picture, spacing, shape: [count, height, width] } = about;
    const step = spacing ? [spacing[1], spacing[0]] : [1, 1];
    Object.assign(this, { about, step, size: [width, height], circle: null, background: null, line: null, cross: null, drag: null, brush: null });
    this.look.colour = picture && count === 3;
    this.fit();
  }

  resize() {
    this.ratio = devicePixelRatio || 1;
    const [width, height] = [this.marks.clientWidth, this.marks.clientHeight].map((side) => Math.max(1, Math.round(side * this.ratio)));
    for (const canvas of [this.picture, this.marks]) Object.assign(canvas, { width, height });
    if (this.about && !this.moved) this.fit(); else this.draw();
  }

  panes() {
    const { width, height } = this.picture, half = Math.floor(width / 2) - 1, whole = { x: 0, y: 0, width, height, after: true };
    if (this.mode === "side") return [{ ...whole, width: half, after: false }, { ...whole, width: half, x: width - half }];
    if (this.mode === "wipe") return [{ ...whole, wipe: Math.round(this.wipe * width) }];
    return [{ ...whole, after: this.shown === "after" }];
  }

  fit() {
    if (!this.about) return;
    const pane = this.panes()[0], mm = this.size.map((side, axis) => side * this.step[axis]);
    this.centre = [mm[0] / 2, mm[1] / 2];
    this.zoom = Math.min(pane.width / mm[0], pane.height / mm[1]);
    this.moved = false;
    this.draw();
  }

  // About a point of the canvas, or the middle.
  magnify(factor, at = null) {
    const before = at && this.place(at);
    this.zoom = Math.min(200, Math.max(0.02, this.zoom * factor));
    const after = at && this.place(at);
    this.pan(...[0, 1].map((axis) => (at ? (after[axis] - before[axis]) * this.zoom : 0)));
  }

  pan(dx, dy) {
    this.centre = [this.centre[0] - dx / this.zoom, this.centre[1] - dy / this.zoom];
    this.moved = true;
    this.draw();
  }

  wipeTo(share) {
    this.wipe = Math.min(1, Math.max(0, share));
    this.draw();
  }

  // Event -> [x, y] on the canvas, and its pane.
  at(event) {
    const box = this.marks.getBoundingClientRect();
    const x = (event.clientX - box.left) * this.ratio, y = (event.clientY - box.top) * this.ratio, panes = this.panes();
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
    const kind = event.button === 1 || event.shiftKey ? "pan" : event.button === 2 ? "window" : line ? "wipe" : this.tool;
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
      if (drag.kind === "wipe") this.wipeTo(at.x / this.picture.width);
      if (drag.kind === "window") {
        const width = drag.high - drag.low, speed = width / 300 / this.ratio;
        const wide = Math.max(width / 50, width + dx * speed), level = (drag.low + drag.high) / 2 + dy * speed;
        Object.assign(this.look, { low: level - wide / 2, high: level + wide / 2 });
        this.told.window();
      }
      if (drag.kind === "circle" || drag.kind === "background") {
        const [x, y] = drag.place;
        if (drag.grabbed) this[drag.kind] = { ...drag.grabbed, x: drag.grabbed.x + place[0] - x, y: drag.grabbed.y + place[1] - y };
        else this[drag.kind] = { x, y, radius: Math.max(1.5 * this.step[0], Math.hypot(place[0] - x, place[1] - y)) };
      }
      if (drag.kind === "line") this.line = { x: drag.place[0], y: drag.place[1], x2: place[0], y2: place[1] };
      if (drag.kind === "brush") this.brush?.(place, false);
      if (["circle", "background", "line"].includes(drag.kind)) this.told.measure();
    }
    this.told.pointer();
    this.draw();
  }

  wheel(event) {
    if (!this.about) return;
    event.preventDefault();
    if (event.ctrlKey || this.about.slices === 1) { this.magnify(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), this.at(event)); return; }
    this.wheeled = (this.wheeled ?? 0) + event.deltaY * (event.deltaMode ? 30 : 1);
    const steps = Math.trunc(this.wheeled / 30);
    if (steps) { this.wheeled -= 30 * steps; this.told.scroll(steps); }
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    if (!this.about || !this.zoom) return;
    const panes = this.panes().map((pane) => ({ ...pane, origin: [pane.width / 2 - this.centre[0] * this.zoom, pane.height / 2 - this.centre[1] * this.zoom] }));
    const texels = (this.renderer.held.before?.shape[1] ?? this.size[0]) / this.size[0];
    this.renderer.draw(panes, { ...this.look, scale: this.step.map((one) => one * this.zoom), size: this.size, texels });
    this.annotate(panes);
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
      const right = pane.x + pane.width, middle = pane.height / 2;
      if (this.mode === "wipe") { tag("Before", 12 * r, 24 * r, BEFORE); tag("After", right - 12 * r, 24 * r, AFTER, "right"); }
      else tag(pane.after ? "After" : "Before", pane.x + 12 * r, 24 * r, pane.after ? AFTER : BEFORE);
      if (this.about.ends.length) {
        const beside = pane.x + pane.width / 2 + (pane.wipe === undefined ? -4 : 20) * r; // the wipe line in the middle; above the tools
        const places = [[pane.x + 8 * r, middle, "left"], [right - 8 * r, middle, "right"], [beside, 20 * r, "left"], [beside, pane.height - 52 * r, "left"]];
        this.about.ends.forEach((end, i) => tag(end, places[i][0], places[i][1], "#d7dce0", places[i][2]));
      }
      c.save();
      c.beginPath(); c.rect(pane.x, pane.y, pane.width, pane.height); c.clip();
      for (const [one, colour, name] of [[this.circle, "#ffe945", "A"], [this.background, "#e7e7e7", "B"], [this.line, "#ffe945", ""]]) {
        if (!one) continue;
        const [x, y] = this.spot(pane, [one.x, one.y]), radius = one.radius * this.zoom, path = new Path2D();
        if (name) path.arc(x, y, radius, 0, 7);
        else { path.moveTo(x, y); path.lineTo(...this.spot(pane, [one.x2, one.y2])); }
        c.setLineDash(name === "B" ? [6 * r, 4 * r] : []);
        for (const [width, stroke] of [[3.5 * r, "#000a"], [1.6 * r, colour]]) { c.lineWidth = width; c.strokeStyle = stroke; c.stroke(path); }
        c.setLineDash([]);
        tag(name, x + radius * 0.71 + 4 * r, y - radius * 0.71, colour);
      }
      if (this.mask) {
        c.globalAlpha = 0.6;
        c.drawImage(this.mask, ...this.spot(pane, [0, 0]), this.size[0] * this.zoom, this.size[1] * this.zoom);
        c.globalAlpha = 1;
      }
      if (this.cross && this.mode === "side") {
        c.setTransform(r, 0, 0, r, ...this.spot(pane, this.cross));
        c.strokeStyle = "#fff9"; c.lineWidth = 1; c.stroke(CROSS);
      }
      c.restore();
      if (pane.wipe !== undefined) {
        c.setTransform(r, 0, 0, r, pane.wipe, pane.height - 66 * r);
        const line = (width) => { const path = new Path2D(); path.rect(-width / 2, -pane.height, width, 2 * pane.height); return path; };
        for (const [path, colour] of [[line(3), "#000a"], [line(1), "#fff"], [HANDLE, "#15181b"], [ARROWS, "#fff"]]) { c.fillStyle = colour; c.fill(path); }
        c.strokeStyle = "#fff"; c.lineWidth = 1; c.stroke(HANDLE);
        c.resetTransform();
      }
    }
    if (this.mode === "side") { c.fillStyle = "#3a4148"; c.fillRect(panes[0].width, 0, 2, this.marks.height); }
  }
}
