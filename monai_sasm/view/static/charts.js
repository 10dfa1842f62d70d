// Small charts of lines, as SVG.

import { AFTER, BEFORE } from "./colours.js";

const WIDTH = 272, HEIGHT = 116, LEFT = 40, BOTTOM = 26, TOP = 6, RIGHT = 8;

// lines: {before: [[x, y], ...], after: ...}
export function chart(svg, { before, after, across, fromZero }) {
  const all = [...before, ...after], xs = all.map((p) => p[0]), ys = all.map((p) => p[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const y0 = fromZero ? 0 : Math.min(...ys), y1 = Math.max(...ys) > y0 ? Math.max(...ys) : y0 + 1;
  const x = (value) => LEFT + ((value - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - BOTTOM - TOP);
  const path = (points) => "M" + points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("L");
  const short = (value) => (Math.abs(value) >= 1000 ? `${+(value / 1000).toPrecision(3)}k` : `${+value.toPrecision(3)}`);
  const parts = [["rect", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - BOTTOM - TOP, class: "frame" }]];
  for (const value of [y0, (y0 + y1) / 2, y1]) parts.push(["text", { x: LEFT - 4, y: y(value) + 3.5, "text-anchor": "end" }, short(value)]);
  for (const value of [x0, (x0 + x1) / 2, x1]) parts.push(["text", { x: x(value), y: HEIGHT - BOTTOM + 12, "text-anchor": value === x1 ? "end" : "middle" }, short(value)]);
  parts.push(["text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 2 }, across]);
  parts.push(["path", { d: path(before), stroke: BEFORE, "stroke-dasharray": "5 3" }], ["path", { d: path(after), stroke: AFTER }]);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren(...parts.map(([name, attributes, text]) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }));
}
