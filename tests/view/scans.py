"""A folder to look at: a noisy CT series, an MR volume that does not say it is one, a photo, a damaged file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.data import mr_volume
from tests.io.dicom.dicom_cases import ct_slice, save

SLICES, SIDE = 5, 128


def make(folder: Path) -> Path:
    """Write them; the CT is a disc of soft tissue in air with an insert, noise as a scanner's."""
    rng = np.random.default_rng(3)
    row, column = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    for number in range(SLICES):
        tissue = np.where(np.hypot(row, column) < 52, 40.0, -1000.0)
        tissue[np.hypot(row - 15, column + 12) < 12] = 90 + 5 * number
        tissue = gaussian_filter(tissue, 1.0)
        noise = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 0.7)
        stored = np.rint(tissue + 45 * noise / noise.std() + 1024).astype(np.int16)
        dataset = ct_slice(number, series="viewed", Rows=SIDE, Columns=SIDE, PixelData=stored.tobytes())
        dataset.PixelSpacing = [0.7, 0.7]
        save(dataset, folder / "abdomen" / f"{number}.dcm")
    shutil.copy(mr_volume(), folder / "brain.nii")
    photo = gaussian_filter(rng.uniform(0, 1, (96, 128, 3)), (9, 9, 0))
    photo = (photo - photo.min()) / np.ptp(photo) + rng.normal(0, 0.08, photo.shape)
    Image.fromarray(np.rint(255 * photo.clip(0, 1)).astype(np.uint8)).save(folder / "garden.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder
