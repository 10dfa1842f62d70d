"""Compare simulated with real quarter-dose CT: noise per slice as a table, pictures and noise power spectra as a PNG.

Usage: calibrate_low_dose_ct.py DIR OUT.png, with DIR/<patient>/{full,quarter}/<patient>_<kernel>_<slice>.{IMA,nii.gz}
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pydicom
import torch
from scipy.ndimage import gaussian_filter

from monai_sasm.degradations.low_dose_ct import LowDoseCt, Scanner

PATCH = 32  # pixels; in soft tissue: within 80 HU of 50 HU after smoothing
SHOWN = ("L143_B30f_i146", "L192_D45f_i025", "L096_D45f_i272")


def read(path: Path) -> tuple[np.ndarray, float, float | None]:
    """Image in HU, pixel spacing in mm and exposure in mAs where the file tells."""
    if path.suffix == ".IMA":
        ds = pydicom.dcmread(path)
        return ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept, float(ds.PixelSpacing[0]), float(ds.Exposure)
    image = nibabel.Nifti1Image.from_filename(path)
    return image.get_fdata()[..., 0].T, float(image.header.get_zooms()[0]), None


def spectrum(patches: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Radial noise power spectrum: frequencies in cycles per mm, power in HU^2 mm^2."""
    window = np.hanning(PATCH)[:, None] * np.hanning(PATCH)
    power = (np.abs(np.fft.fft2(patches * window)) ** 2).mean(0) * spacing**2 / np.sum(window**2)
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(PATCH, spacing)] * 2))
    rings = (radius * 20).astype(int)  # 0.05 cycles per mm each
    return np.arange(rings.max()) / 20 + 0.025, np.array([power[rings == k].mean() for k in range(rings.max())])


figure, axes = plt.subplots(3, 4, figsize=(24, 15), layout="constrained")
print("slice            patches  real sd  simulated  ratio  (ratio with the known mAs)")
for path in sorted(Path(sys.argv[1]).glob("*/full/*")):
    (full, spacing, mas), (quarter, *_) = read(path), read(path.parents[1] / "quarter" / path.name)
    tissue, grid = np.abs(gaussian_filter(full, 3) - 50) < 80, range(0, 512 - PATCH, PATCH // 2)
    squares = [np.s_[i : i + PATCH, j : j + PATCH] for i in grid for j in grid]
    spots = [square for square in squares if tissue[square].mean() > 0.8]
    clean, sds, name = torch.tensor(full, dtype=torch.float32)[None, None], [], path.name.split(".")[0]
    for scanner in [Scanner()] + ([Scanner.of_exposure(mas)] if mas else []):
        model = LowDoseCt(spacing, (0.25, 0.25), "soft" if "B30f" in name else "sharp", scanner)
        low = model.apply(clean, model.draw((1, 1, *full.shape), torch.Generator().manual_seed(0)))[0, 0].numpy()
        seen = spots or [np.s_[0:512, 0:512]]
        sds.append([float(np.std([(image - full)[s] for s in seen])) for image in (quarter, low)])
    print(f"{name:16} {len(spots):7} {sds[0][0]:8.1f} {sds[0][1]:9.1f}", *(f"{s / r:8.3f}" for r, s in sds))
    if name in SHOWN:
        *pictures, plot = axes[SHOWN.index(name)]
        for ax, image, title in zip(pictures, (full, quarter, low), ("full", "real quarter", "simulated"), strict=True):
            ax.imshow(image[100:420, 60:460], cmap="gray", vmin=-160, vmax=240).axes.set_title(f"{name} {title}")
        for image, label in ((quarter, "real"), (low, "simulated")):
            plot.plot(*spectrum(np.stack([(image - full)[s] for s in spots]), spacing), label=label)
        plot.legend(title="NPS, HU² mm² over cycles/mm")
figure.savefig(sys.argv[2], dpi=80)
