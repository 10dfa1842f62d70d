// Photos: paint over what is to be filled, and enlarge.

import { post, send } from "./api.js";
import { $, element } from "./dom.js";

export class Painting {
  // opened(expert): show a result of the server; failed(reason)
  constructor(stage, setTool, opened, failed) {
    Object.assign(this, { stage, setTool, opened, failed, on: false });
    $("brush").oninput = () => ($("brush-number").textContent = `${$("brush").value} px`);
    $("fill").onclick = () => this.ask(async () => send(`${this.base}/fill`, this.known()));
    $("unpaint").onclick = () => this.clear();
    for (const factor of [2, 4]) $(`enlarge-${factor}`).onclick = () => this.ask(() => post(`${this.base}/enlarge`, { factor, view: this.view() }));
  }

  open(about, base) {
    this.on = about.enlarges;
    this.base = base;
    $("photo").hidden = !this.on;
    $("toolbar").querySelector("[data-tool=brush]").hidden = !this.on;
    if (!this.on && this.stage.tool === "brush") this.setTool("window");
    this.clear();
    this.stage.brush = (place, begin) => this.paint(place, begin);
  }

  // What of the photo is on the screen: top, left, bottom, right.
  view() {
    const { centre: [x, y], zoom } = this.stage, pane = this.stage.panes()[0], [across, down] = [pane.width / zoom / 2, pane.height / zoom / 2];
    return [y - down, x - across, y + down, x + across];
  }

  clear() {
    this.stage.mask = null;
    $("fill").disabled = $("unpaint").disabled = true;
    this.stage.draw();
  }

  paint(place, begin) {
    if (!this.on) return;
    const { stage } = this, [width, height] = stage.size;
    stage.mask ??= element("canvas", { width, height });
    const c = stage.mask.getContext("2d"), from = begin ? place : this.last;
    c.lineCap = c.lineJoin = "round";
    c.lineWidth = +$("brush").value / Math.max(stage.zoom / stage.ratio, 1e-3); // as wide on the screen
    c.strokeStyle = "#ff4fa0";
    c.beginPath(); c.moveTo(...from); c.lineTo(place[0] + 0.01, place[1]); c.stroke();
    this.last = place;
    $("fill").disabled = $("unpaint").disabled = false;
    stage.draw();
  }

  // A byte a pixel, 0 where it is painted over.
  known() {
    const { mask } = this.stage, pixels = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height).data;
    return Uint8Array.from({ length: pixels.length / 4 }, (_, i) => (pixels[4 * i + 3] > 127 ? 0 : 255));
  }

  async ask(what) {
    try { this.opened((await what()).expert); } catch (error) { this.failed(error.message); }
  }
}
