"""Small images of each modality on disk, clean and degraded, for tests of bundles and configs."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation
from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.degradations.raindrop import Raindrop
from tests.data import ct_small

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(path for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())
SCHEMA = ROOT / "configs" / "metadata_schema.json"
AFFINE = np.array([[-1.5, 0.2, 0, 30], [0.2, 1.5, 0, -20], [0, 0, 4, 10], [0, 0, 0, 1.0]])
MR_WHITE = 800.0


def clean_image(modality: str, size: int = 128) -> NDArray[np.float32]:
    """``(C, size, size)``: a photo in [0, 1], a real CT slice in HU, or a head phantom in MR magnitudes."""
    if modality == "PHOTO":
        return (skimage.data.astronaut()[60 : 60 + size, 160 : 160 + size].transpose(2, 0, 1) / 255).astype(np.float32)
    if modality == "CT":
        slice_ = pydicom.dcmread(ct_small())
        return (slice_.pixel_array * slice_.RescaleSlope + slice_.RescaleIntercept).astype(np.float32)[
            None, :size, :size
        ]
    step = 400 // size
    phantom = skimage.data.shepp_logan_phantom()[: size * step : step, : size * step : step][None]
    # texture and the shading of a coil: whole numbers so few would be a label map, a rim so even wrapped phase
    texture = 1 + 0.02 * np.random.default_rng(0).standard_normal(phantom.shape)
    texture *= np.linspace(0.5, 1, size)
    return (phantom * texture * MR_WHITE).clip(0).astype(np.float32)


def degraded_image(modality: str, degradation: str, clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """``clean`` with the fault that an expert of this modality and degradation repairs."""
    model: DegradationModel
    if modality == "CT":
        model = LowDoseCt(spacing=0.66, dose=(0.05, 0.05), kernel="sharp")
    elif degradation == "low-resolution":
        model = KspaceTruncation(factor=(2.0, 2.0))
    elif modality == "MR":
        model = KspaceNoise(sigma=(0.1, 0.1), scale=MR_WHITE)
    else:
        model = GaussianNoise(sigma=(0.1, 0.1)) if degradation == "noise" else Raindrop(coverage=(0.3, 0.3))
    image = torch.from_numpy(clean)[None]
    return model.apply(image, model.draw(tuple(image.shape), torch.Generator().manual_seed(0)))[0].numpy()


def save(image: NDArray[np.float32], modality: str, folder: Path, stem: str = "image", slices: int = 1) -> Path:
    """Write as 8-bit PNG, or as int16 NIfTI with ``slices`` equal slices."""
    folder.mkdir(parents=True, exist_ok=True)
    if modality == "PHOTO":
        levels = np.round(image.clip(0, 1) * 255).astype(np.uint8)
        Image.fromarray(levels.transpose(1, 2, 0)).save(folder / f"{stem}.png")
        return folder / f"{stem}.png"
    volume = np.repeat(np.round(image).astype(np.int16).transpose(1, 2, 0), slices, axis=2)
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE), folder / f"{stem}.nii.gz")
    return folder / f"{stem}.nii.gz"


def load(path: Path) -> NDArray[np.float32]:
    """The stored numbers of a file written by :func:`save`, photos as grey levels."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).astype(np.float32)
    return np.asarray(nibabel.load(path).dataobj).astype(np.float32)


def paired_folder(root: Path, modality: str, degradation: str) -> Path:
    """``<root>/{train,val}/{clean,noisy}`` with one pair each."""
    clean = clean_image(modality)
    noisy = degraded_image(modality, degradation, clean)
    for split in ("train", "val"):
        save(clean, modality, root / split / "clean")
        save(noisy, modality, root / split / "noisy")
    return root
