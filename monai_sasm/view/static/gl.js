// Draws one slice before and after: x and x + s * change, windowed, with an overlay, all in one shader, so that a
// slider costs a redraw and nothing else.

const VERTEX = `#version 300 es
in vec2 corner;
void main() { gl_Position = vec4(corner, 0, 1); }`;

const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D before, change, overlay, colours;
uniform vec4 pane;            // left, top, width and height in pixels of the canvas, from its upper left corner
uniform vec2 origin, scale;   // of the image: pixels of the canvas
uniform vec2 size;            // of the image, pixels
uniform float height, strength, low, high, opacity, overlayLow, overlayHigh, wipe, taps;
uniform bool colour, after, overlayIsChange;
out vec4 result;

vec3 sampled(sampler2D image, vec2 place, vec2 step) {
  if (taps == 1.0) return texture(image, place).rgb;
  vec3 sum = vec3(0);
  for (float j = 0.0; j < taps; j++)
    for (float i = 0.0; i < taps; i++)
      sum += texture(image, place + (vec2(i, j) + 0.5 - 0.5 * taps) / taps * step).rgb;
  return sum / (taps * taps);
}

void main() {
  vec2 at = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec2 place = (at - pane.xy - origin) / scale / size;
  if (any(lessThan(place, vec2(0))) || any(greaterThan(place, vec2(1)))) { result = vec4(0, 0, 0, 1); return; }
  vec2 step = 1.0 / scale / size;
  bool shown = after && at.x - pane.x >= wipe;
  vec3 value = sampled(before, place, step), delta = vec3(0);
  if (shown) value += delta = strength * sampled(change, place, step);
  value = clamp((value - low) / (high - low), 0.0, 1.0);
  if (!colour) value = value.rrr;
  if (shown && opacity > 0.0) {
    float found = overlayIsChange ? (colour ? dot(delta, vec3(1.0 / 3.0)) : delta.r) : texture(overlay, place).r;
    float there = clamp((found - overlayLow) / (overlayHigh - overlayLow), 0.0, 1.0);
    vec4 tint = texture(colours, vec2(there * 255.0 / 256.0 + 0.5 / 256.0, 0.5));
    value = mix(value, tint.rgb, tint.a * opacity);
  }
  result = vec4(value, 1);
}`;

export const EMPTY = { shape: [1, 1, 1], type: "uint8", data: new Uint8Array(1) };

export class Renderer {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = (this.gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false }));
    if (!gl) throw new Error("this browser has no WebGL 2; use a recent Firefox, Chrome, Edge or Safari");
    this.smooth = gl.getExtension("OES_texture_float_linear") !== null;
    const program = (this.program = gl.createProgram());
    for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(gl.getAttribLocation(program, "corner"), 2, gl.FLOAT, false, 0, 0);
    gl.enable(gl.SCISSOR_TEST);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.formats = { // type and numbers a pixel
      float32: { 1: [gl.R32F, gl.RED, gl.FLOAT], 3: [gl.RGB32F, gl.RGB, gl.FLOAT] },
      float16: { 1: [gl.R16F, gl.RED, gl.HALF_FLOAT], 3: [gl.RGB16F, gl.RGB, gl.HALF_FLOAT] },
      uint8: { 1: [gl.R8, gl.RED, gl.UNSIGNED_BYTE], 4: [gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE] },
    };
    this.units = ["before", "change", "overlay", "colours"];
    Object.assign(this, { textures: this.units.map(() => gl.createTexture()), held: {} });
    this.units.forEach((name, unit) => gl.uniform1i(gl.getUniformLocation(program, name), unit));
    for (const name of this.units) this.put(name, null);
  }

  // An array of api.raw, or null for zero everywhere.
  put(name, array) {
    if (this.held[name] === array && array) return;
    this.held[name] = array;
    const { gl } = this, { shape: [height, width, count], type, data } = array ?? EMPTY, unit = this.units.indexOf(name);
    const [inner, outer, kind] = this.formats[type][count];
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[unit]);
    gl.texImage2D(gl.TEXTURE_2D, 0, inner, width, height, 0, outer, kind, type === "float16" ? new Uint16Array(data.buffer) : data);
    const filter = type === "float32" && !this.smooth ? gl.NEAREST : gl.LINEAR;
    for (const end of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, end, filter);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  }

  // panes: [{x, y, width, height, after, wipe}] in pixels of the canvas; look: the uniforms they share.
  draw(panes, look) {
    const { gl } = this, { width, height } = this.canvas;
    const set = (name, ...values) => gl[`uniform${values.length}f`](gl.getUniformLocation(this.program, name), ...values);
    gl.viewport(0, 0, width, height);
    const { texels, scale, size, ...others } = look;
    for (const [name, value] of Object.entries({ height, ...others })) set(name, value);
    set("scale", ...scale);
    set("size", ...size);
    set("taps", Math.min(4, Math.max(1, Math.round(texels / Math.min(...scale)))));
    for (const pane of panes) {
      gl.scissor(pane.x, height - pane.y - pane.height, pane.width, pane.height);
      set("pane", pane.x, pane.y, pane.width, pane.height);
      set("origin", ...pane.origin);
      set("wipe", pane.wipe ?? -1);
      set("after", pane.after);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
  }
}
