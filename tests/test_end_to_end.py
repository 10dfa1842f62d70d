"""The main job with the shipped weights: degraded images in, better ones out, through the command a user types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import skimage.data
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from monai_sasm.cli.main import main
from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.kspace import KspaceNoise
from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.degradations.raindrop import Raindrop
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import open_images, write
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.dispatch import restore_tiled
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restore import mixing_weights
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.data import ct_small, mr_volume


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer("cpu")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A clean photo, ``(1, 3, 320, 352)``."""
    return torch.from_numpy(skimage.data.astronaut()[:320, :352].transpose(2, 0, 1) / 255).float()[None]


def sasm(*arguments: object, capsys: Any) -> list[dict[str, Any]]:
    """Run a command; the rows it prints with ``--json``."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments] + ["--json", "-q"])
    assert stop.value.code == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def degrade(model: Any, image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return model.apply(image, model.draw(tuple(image.shape), torch.Generator().manual_seed(seed)))


def as_volume(image: torch.Tensor) -> Volume:
    return Volume(image[0].numpy(), Modality.PHOTO)


def test_a_noisy_photo_gets_clearer(photo: torch.Tensor, tmp_path: Path, capsys: Any) -> None:
    noisy = degrade(GaussianNoise(sigma=(0.1, 0.1), clip=True), photo)
    pixels = (noisy[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    (row,) = sasm("restore", tmp_path / "noisy.png", "-o", tmp_path / "out.png", capsys=capsys)
    result = np.asarray(Image.open(tmp_path / "out.png"))
    assert row["status"] == "ok"
    assert result.shape == pixels.shape
    clean = photo[0].permute(1, 2, 0).numpy() * 255
    before, after = (psnr(image.astype(np.float64), clean, 255) for image in (pixels, result))
    assert after > before + 8


def test_noise_is_seen_up_to_the_last_pixel(photo: torch.Tensor, restorer: Restorer) -> None:
    """Sides that are one more than a multiple of the gate's blocks, as those of 481 x 321 pixels are."""
    noisy = degrade(GaussianNoise(sigma=(0.1, 0.1)), photo)[..., :305, :321]
    restored = restorer(as_volume(noisy), Options(keep_maps=True))
    weight = restored.weights["noise_photo_unet"][0]
    assert float(min(weight[-8:].mean(), weight[:, -8:].mean())) > 0.95
    error = np.abs(restored.volume.array - photo[0, :, :305, :321].numpy())
    assert float(error[..., -4:].mean()) < 2 * float(error.mean())


def test_drops_are_found_and_removed(photo: torch.Tensor, restorer: Restorer) -> None:
    wet = degrade(Raindrop(coverage=(0.3, 0.3), opacity=(0.9, 1.0)), photo, seed=3)
    result = restorer(as_volume(wet), Options(keep_maps=True))
    changed = (wet - photo).abs().amax(1)[0].numpy() > 0.08
    around = binary_dilation(changed, iterations=12)  # targets grow by so much, for the veil of a drop
    drop_weight = result.weights["raindrop_photo_unet"][0]
    assert drop_weight[changed].mean() > drop_weight[~around].mean() + 0.3
    clean = photo[0].numpy()
    assert psnr(result.volume.array, clean, 1.0) > psnr(wet[0].numpy(), clean, 1.0) + 1.5


def test_each_fault_goes_to_its_expert(photo: torch.Tensor, restorer: Restorer) -> None:
    """Noise on the left, nothing on the right."""
    half = photo.clone()
    half[..., :176] = degrade(GaussianNoise(sigma=(0.15, 0.15)), photo)[..., :176]
    result = restorer(as_volume(half), Options(keep_maps=True))
    noise, identity = (result.weights[name][0] for name in ("noise_photo_unet", "identity"))
    assert noise[:, :144].mean() > 0.9
    assert identity[:, 208:].mean() > 0.9
    right = np.abs(result.volume.array - half[0].numpy())[..., 208:]
    assert float(np.sqrt((right**2).mean())) < 0.005


def test_a_clean_photo_is_left_alone(photo: torch.Tensor, restorer: Restorer) -> None:
    result = restorer(as_volume(photo))
    assert psnr(result.volume.array, photo[0].numpy(), 1.0) > 42


def test_a_noisy_mr_volume_gets_clearer_and_keeps_its_header(tmp_path: Path, capsys: Any) -> None:
    source = nibabel.Nifti1Image.from_filename(mr_volume())
    clean = np.asarray(source.dataobj, dtype=np.float32)
    while clean.ndim > 3:
        clean = clean[..., 0]
    white = float(np.percentile(clean[clean > clean.mean()], 99.5))
    slices = torch.from_numpy(np.moveaxis(clean, 2, 0).copy())[:, None]
    noisy = degrade(KspaceNoise(sigma=(0.1, 0.1), scale=white), slices)
    stored = np.moveaxis(noisy[:, 0].numpy(), 0, 2).astype(np.float32)
    image = nibabel.Nifti1Image(stored, source.affine)
    image.header["descrip"] = b"from the test"
    nibabel.save(image, tmp_path / "noisy.nii.gz")
    sasm("restore", tmp_path / "noisy.nii.gz", "-o", tmp_path / "out.nii.gz", "--modality", "MR", capsys=capsys)
    result = nibabel.Nifti1Image.from_filename(tmp_path / "out.nii.gz")
    assert np.array_equal(result.affine, source.affine)
    assert result.header["descrip"] == b"from the test"
    assert result.get_data_dtype() == np.float32
    head = clean > 0.1 * white
    errors = [float(np.sqrt(((array - clean)[head] ** 2).mean())) for array in (stored, np.asarray(result.dataobj))]
    assert errors[1] < 0.8 * errors[0]


def test_a_ct_series_becomes_a_derived_series(tmp_path: Path, capsys: Any) -> None:
    (clean,) = open_images(ct_small())
    model = LowDoseCt(spacing=0.66, dose=(0.05, 0.05), kernel="sharp")
    noisy = clean.from_slices(degrade(model, torch.from_numpy(clean.as_slices().copy())).numpy())
    (source,) = write(noisy, tmp_path / "in", Derivation("test", "0"))
    (row,) = sasm("restore", tmp_path / "in", "-o", tmp_path / "out", capsys=capsys)
    (path,) = sorted((tmp_path / "out").rglob("*.dcm"))
    before, after = pydicom.dcmread(source), pydicom.dcmread(path)
    assert row["status"] == "ok"
    assert after.ImageType[0] == "DERIVED"
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.ImagePositionPatient == before.ImagePositionPatient
    assert after.SeriesDescription.count("[") == before.SeriesDescription.count("[") + 1
    (result,) = open_images(path)
    errors = [float(np.sqrt(((volume.array - clean.array) ** 2).mean())) for volume in (noisy, result)]
    assert errors[1] < 0.6 * errors[0]
    assert abs(float((result.array - noisy.array).mean())) < 3, "HU, the bias"


def test_a_slice_of_full_dose_is_left_alone(restorer: Restorer) -> None:
    (volume,) = open_images(ct_small())
    result = restorer(volume)
    assert float(np.abs(result.volume.array - volume.array).mean()) < 2, "HU"


def test_ct_never_reaches_a_photo_expert(restorer: Restorer) -> None:
    """Even where the gate would see drops or noise: modality masks hard."""
    image = torch.rand(1, 1, 64, 64)
    sigma = torch.full_like(image, 0.2)
    for modality in (Modality.CT, Modality.MR):
        weights = mixing_weights(image, sigma, restorer.plan(modality))
        for index, name in enumerate(restorer.classes):
            if index and restorer.experts[name].modality is not modality:
                assert float(weights[:, index].abs().max()) == 0, name


@pytest.mark.parametrize("name", ["noise_photo_unet", "raindrop_photo_unet"])
def test_tiles_leave_no_seam(name: str) -> None:
    """With the shipped weights a tiled run equals the whole-image run within 0.01 dB."""
    clean = torch.from_numpy(skimage.data.coffee()[:384, :576].transpose(2, 0, 1) / 255).float()[None]
    model: Any = GaussianNoise(sigma=(0.1, 0.1)) if name.startswith("noise") else Raindrop(coverage=(0.3, 0.3))
    image = degrade(model, clean)
    sigma = torch.full_like(image[:, :1], 0.1)
    weights = torch.zeros(1, 2, 384, 576)
    weights[:, 1] = 1
    experts = {1: Restorer("cpu", precision="float32").experts[name].restore}
    whole = restore_tiled(image, sigma, weights, experts, tile=1024, halo=0)
    tiled = restore_tiled(image, sigma, weights, experts, tile=160, halo=128)
    scores = [psnr(result.numpy(), clean.numpy(), 1.0) for result in (whole, tiled)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    # no line of larger differences along the tile borders
    step = (tiled - whole).abs().mean((0, 1))
    border = step[:, 158:162].mean() + step[158:162].mean()
    assert float(border) < 4 * float(step.mean()) + 1e-5
