// Three planes before and after, by NiiVue, which is loaded when it is first asked for.

import { buffer } from "./api.js";
import { $, element } from "./dom.js";

const library = () => new Promise((onload, onerror) => document.head.append(element("script", { src: "/static/vendor/niivue.umd.js", onload, onerror })));

export class Planes {
  constructor(told) {
    this.told = told;
    this.held = {};
  }

  // base: of the study; look: window and strength; complete: whether all slices are restored.
  async show(base, look, complete) {
    if (!globalThis.niivue) await library();
    if (!this.views) {
      this.views = [];
      for (const id of ["planes-before", "planes-after"]) {
        const one = new globalThis.niivue.Niivue({ backColor: [0, 0, 0, 1], crosshairColor: [1, 0.91, 0.27, 0.6], crosshairWidth: 0.5, crosshairWidthUnit: "mm", show3Dcrosshair: true, logLevel: "error", isRadiologicalConvention: true, dragAndDropEnabled: false, isColorbar: false });
        await one.attachToCanvas($(id));
        one.setSliceType(one.sliceTypeMultiplanar);
        this.views.push(one);
      }
      for (const one of this.views) one.broadcastTo(this.views.filter((other) => other !== one), { "2d": true, "3d": true });
    }
    const wanted = [`${base}/volume?strength=0`, complete ? `${base}/volume?strength=${look.strength}` : null];
    for (const [i, path] of wanted.entries()) {
      if (this.held[i] === path) continue;
      const view = this.views[i];
      while (view.volumes.length) view.removeVolumeByIndex(0);
      this.held[i] = path;
      if (!path) continue;
      this.told("Loading the volume…");
      await view.loadFromArrayBuffer(await buffer(path), "volume.nii");
    }
    this.told(complete ? "" : "After: when all slices are restored");
    this.window(look);
    document.body.dataset.planes = complete ? "both" : "before";
  }

  window({ low, high }) {
    for (const view of this.views ?? []) for (const volume of view.volumes) {
      Object.assign(volume, { cal_min: low, cal_max: high });
      view.updateGLVolume();
    }
  }
}
