"""A quarter of the dose of an image is twice its noise, whatever the image was made with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.functional.intensity import square_spacing
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.own_dose import own_exposure
from monai_sasm.functional.uniform_tissue import uniform_noise
from monai_sasm.io.formats import open_images
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality
from tests.data import shared

SLICES = ("i021", "i062", "i236")


def noise(image: np.ndarray) -> float:
    """HU, in uniform tissue of a slice ``(H, W)``."""
    found = uniform_noise(image[None, None] / 1000, Modality.CT.profile, NoiseEstimator())
    assert found is not None
    return 1000 * found.deviation


def quarter(volume: Volume, exposure: float) -> np.ndarray:
    model = LowDoseCt(square_spacing(volume), (0.25, 0.25), "sharp", exposure=(exposure, exposure))
    image = torch.from_numpy(np.array(volume.slice_at(0)))[None]
    return model.apply(image, model.draw(tuple(image.shape), torch.Generator().manual_seed(5)))[0, 0].numpy()


@pytest.mark.parametrize("name", SLICES)
def test_a_quarter_of_the_dose_is_twice_the_noise(name: str) -> None:
    """L096, from which nothing in the simulation was fit; the real quarter dose shows as much."""
    pairs = shared("ct_ldct_pairs/L096_dicom")
    volume, real = (
        next(iter(open_images(pairs / dose / f"L096_D45f_{name}.IMA", "CT"))) for dose in ("full", "quarter")
    )
    exposure = own_exposure(volume, square_spacing(volume), "sharp")
    assert exposure is not None
    own = noise(volume.slice_at(0)[0])
    assert noise(quarter(volume, exposure)) == pytest.approx(2 * own, rel=0.15)
    assert noise(real.slice_at(0)[0]) == pytest.approx(noise(quarter(volume, exposure)), rel=0.15)


def test_a_noisy_image_has_less_dose_to_lose() -> None:
    """Of an image at a fifth of the usual dose, a quarter is a twentieth."""
    full = shared("ct_ldct_pairs/L096_dicom") / "full" / f"L096_D45f_{SLICES[0]}.IMA"
    volume = next(iter(open_images(full, "CT")))
    exposure = own_exposure(volume, square_spacing(volume), "sharp")
    image = torch.from_numpy(np.array(volume.slice_at(0)))[None]
    model = LowDoseCt(square_spacing(volume), (0.2, 0.2), "sharp", exposure=(exposure or 1, exposure or 1))
    low = model.apply(image, model.draw(tuple(image.shape), torch.Generator().manual_seed(9)))[0].numpy()
    noisy = replace(volume, array=low.reshape(volume.array.shape))
    found = own_exposure(noisy, square_spacing(volume), "sharp")
    assert found is not None
    assert exposure is not None
    assert found == pytest.approx(0.2 * exposure, rel=0.3)
    assert noise(quarter(noisy, found)) == pytest.approx(2 * noise(low[0]), rel=0.15)
    assert noise(quarter(noisy, 1.0)) < 1.5 * noise(low[0]), "a quarter of the usual dose is hardly less than it has"


def test_without_tissue_nothing_is_measured() -> None:
    air = np.random.default_rng(0).normal(-1000, 20, (1, 64, 64)).astype(np.float32)
    assert own_exposure(Volume(air, Modality.CT, np.eye(4)), 1.0, "soft") is None
