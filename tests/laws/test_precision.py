"""Networks in bfloat16 restore as well as in float32, and keep as much of the contrast of small things."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from monai_sasm.bundles import available, load, read_metadata, shipped_folder
from monai_sasm.functional.precision import resolve_precision
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality

SECTIONS = {path.name: read_metadata(path)["sasm"] for path in sorted(shipped_folder().iterdir()) if path.is_dir()}
EXPERTS = [name for name, section in SECTIONS.items() if section["role"] == "expert"]
NOISE = {"CT": 0.06, "MR": 0.06, "PHOTO": 0.1}  # working scale
PSNR, GAIN = 0.01, 0.005  # dB, share: how far the two may be apart


def image_of(modality: str) -> torch.Tensor:
    """A real photo, as colours, or as tissue in the working scale of a modality; ``(1, C, 128, 128)``."""
    photo = skimage.data.astronaut()[64:192, 160:288] / 255
    grey = photo.mean(-1) if modality != "PHOTO" else photo.transpose(2, 0, 1)
    grey = grey.reshape(-1, 128, 128)
    return torch.from_numpy(0.2 * grey - 0.05 if modality == "CT" else grey).float()[None]


def disc(modality: str) -> torch.Tensor:
    """A soft disc of 8 pixels, 40 HU, or a tenth of white."""
    rows, columns = np.mgrid[:128, :128] - 64
    edge = torch.sigmoid(torch.from_numpy(4.0 - np.hypot(rows, columns)).float() * 2)
    return (0.04 if modality == "CT" else 0.1) * edge


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERTS)
def test_bfloat16_restores_as_float32_does(name: str) -> None:
    modality = SECTIONS[name]["modality"]
    clean, lesion = image_of(modality), disc(modality)
    noise = NOISE[modality] * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.full_like(clean[:, :1], NOISE[modality])
    scores, gains = [], []
    for precision in ("float32", "bfloat16"):
        expert = load(name, precision=precision)
        torch.manual_seed(0)  # some draw samples
        plain = expert.restore(clean + noise, sigma)
        torch.manual_seed(0)
        marked = expert.restore(clean + noise + lesion, sigma)
        scores.append(-10 * float(torch.log10((plain - clean).square().mean())))
        inside = (lesion > 0.5 * lesion.max()).expand_as(clean[0])
        gains.append(float((marked - plain)[0][inside].mean() / lesion.expand_as(clean[0])[inside].mean()))
    assert scores[1] == pytest.approx(scores[0], abs=PSNR)
    assert gains[1] == pytest.approx(gains[0], abs=GAIN)


def test_auto_is_what_the_hardware_is_fast_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for there, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        assert resolve_precision("auto", "cpu") == expected
        assert Restorer("cpu").plan(Modality.PHOTO).derivation.parameters["precision"] == expected
    assert resolve_precision("float32", "cpu") == "float32"
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'float16'"):
        resolve_precision("float16", "cpu")


def test_networks_that_may_round_the_image_stay_in_float32() -> None:
    assert all(SECTIONS[name]["bfloat16"] for name in EXPERTS)
    assert load("segment_cardiac_unet", precision="auto").precision == "float32"


def test_every_shipped_expert_is_under_the_law() -> None:
    assert set(EXPERTS) == {name for name in available() if name in SECTIONS and SECTIONS[name]["role"] == "expert"}
