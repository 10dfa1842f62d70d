"""Laws that every degradation keeps; a new one is added to ``CASES``."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from monai_sasm.degradations.camera_noise import CameraNoise
from monai_sasm.degradations.defocus import Defocus
from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.degradations.filtered_noise import FilteredNoise
from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.holes import Holes
from monai_sasm.degradations.jpeg import Compressed
from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr
from monai_sasm.degradations.lesions import Lesions
from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.degradations.masked_background import MaskedBackground
from monai_sasm.degradations.raindrop import Raindrop
from monai_sasm.degradations.regions import InRegions
from monai_sasm.degradations.thick_slices import ThickSlices

BATCH, HEIGHT, WIDTH = 2, 45, 64


@dataclass(frozen=True)
class Case:
    """A degradation at work, the same at strength zero, and the images it takes.

    Args:
        model: with strength.
        idle: the same model with strength zero.
        channels: of the images.
        span: lowest and highest value of the images, in their unit.
        random: whether the seed matters at a fixed strength.
        noisy: whether it adds noise, so that a standard deviation can be told.
    """

    model: DegradationModel
    idle: DegradationModel
    channels: int = 1
    span: tuple[float, float] = (0.0, 1.0)
    random: bool = True
    noisy: bool = True


CASES = {
    "camera": Case(CameraNoise((0.01, 0.01)), CameraNoise((0, 0)), channels=3),
    "gaussian": Case(GaussianNoise((0.1, 0.1)), GaussianNoise((0.0, 0.0)), channels=3),
    "gaussian, uneven": Case(GaussianNoise((0.02, 0.3), uneven=1.0), GaussianNoise((0.0, 0.0), uneven=1.0), channels=3),
    "gaussian, clipped": Case(GaussianNoise((0.1, 0.1), clip=True), GaussianNoise((0.0, 0.0), clip=True), channels=3),
    "gaussian, JPEG": Case(
        Compressed(GaussianNoise((0.1, 0.1)), quality=(95, 95), share=1.0),
        Compressed(GaussianNoise((0.0, 0.0)), share=0.0),
        channels=3,
    ),
    "raindrop": Case(
        Raindrop(coverage=(0.1, 0.1), blur=(0.004, 0.01)), Raindrop(coverage=(0.0, 0.0)), channels=3, noisy=False
    ),
    "MR noise without background": Case(
        MaskedBackground(KspaceNoise((0.1, 0.1)), share=1.0), MaskedBackground(KspaceNoise((0.0, 0.0)), share=0.0)
    ),
    "filtered MR noise": Case(
        FilteredNoise((0.05, 0.05), factor=(1.5, 1.5)), FilteredNoise((0.0, 0.0), (1.0, 1.0), (0.0, 0.0))
    ),
    "noise and drops in regions": Case(
        InRegions([GaussianNoise((0.1, 0.1)), Raindrop(coverage=(0.1, 0.1), blur=(0.004, 0.01))]),
        InRegions([GaussianNoise((0.0, 0.0)), Raindrop(coverage=(0.0, 0.0))]),
        channels=3,
    ),
    "raindrop on a crop": Case(
        Raindrop(coverage=(0.1, 0.1), reference=400),
        Raindrop(coverage=(0.0, 0.0), reference=400),
        channels=3,
        noisy=False,
    ),
    "defocus": Case(Defocus((2.0, 5.0)), Defocus((0.0, 0.0)), channels=3, noisy=False),
    "holes": Case(Holes((0.2, 0.4)), Holes((0.0, 0.0)), channels=3, noisy=False),
    "low-dose CT": Case(
        LowDoseCt(spacing=6.0, dose=(0.1, 0.1), views=90),
        LowDoseCt(spacing=6.0, dose=(1.0, 1.0), views=90),
        span=(-1000.0, 1000.0),
    ),
    "lesions": Case(Lesions((0.1, 0.3), count=(2, 5), diameter=(2, 6)), Lesions((0.1, 0.3), count=(0, 0)), noisy=False),
    "k-space noise": Case(KspaceNoise((0.1, 0.1)), KspaceNoise((0.0, 0.0))),
    "k-space truncation": Case(KspaceTruncation((2.0, 2.0)), KspaceTruncation((1.0, 1.0)), random=False, noisy=False),
    "low-quality MR": Case(
        LowQualityMr(KspaceTruncation((1.5, 2.0)), KspaceNoise((0.05, 0.1))),
        LowQualityMr(KspaceTruncation((1.0, 1.0)), KspaceNoise((0.0, 0.0))),
    ),
    "thick slices": Case(ThickSlices((3.0, 5.0), (0.05, 0.1)), ThickSlices((1.0, 1.0))),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def generator(seed: int = 0) -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(seed)


def clean(case: Case) -> torch.Tensor:
    """A smooth image with an edge and some texture, ``(2, C, 45, 64)``."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    picture = 0.3 * rows + 0.3 * columns + 0.3 * (columns > 0.6)
    image = picture + 0.05 * torch.rand(BATCH, case.channels, HEIGHT, WIDTH, generator=generator(7))
    return case.span[0] + (case.span[1] - case.span[0]) * image


@cases
def test_zero_strength_is_the_identity(case: Case) -> None:
    image = clean(case)
    params = case.idle.draw(tuple(image.shape), generator())
    assert torch.equal(case.idle.apply(image, params), image)
    assert torch.equal(reference(case.idle, image, params), image)
    assert not params.mask.any()
    assert not params.sigma.any()


@cases
def test_strength_changes_the_image(case: Case) -> None:
    image = clean(case)
    params = case.model.draw(tuple(image.shape), generator())
    change = (case.model.apply(image, params) - image).abs()
    assert torch.isfinite(change).all()
    assert float(change.max()) > 0.01 * (case.span[1] - case.span[0])


@cases
def test_the_same_seed_gives_the_same_image(case: Case) -> None:
    image = clean(case)
    first, again, other = (case.model.draw(tuple(image.shape), generator(seed)) for seed in (1, 1, 2))
    result = case.model.apply(image, first)
    assert torch.equal(case.model.apply(image, first), result), "apply draws nothing"
    assert torch.equal(case.model.apply(image, again), result)
    assert torch.equal(case.model.apply(image, other), result) != case.random


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_input_are_kept(case: Case, dtype: torch.dtype) -> None:
    image = clean(case).to(dtype)
    before = image.clone()
    result = case.model.apply(image, case.model.draw(tuple(image.shape), generator()))
    assert result.shape == image.shape
    assert result.dtype == dtype
    assert torch.equal(image, before), "the input is not written to"


@cases
def test_pixels_outside_the_mask_are_unchanged(case: Case) -> None:
    image = clean(case)
    params = case.model.draw(tuple(image.shape), generator())
    assert params.mask.shape == (BATCH, 1, HEIGHT, WIDTH)
    assert float(params.mask.min()) >= 0
    assert float(params.mask.max()) <= 1
    assert params.mask.any()
    outside = (params.mask == 0).expand_as(image)
    assert torch.equal(case.model.apply(image, params)[outside], image[outside])


def test_drops_leave_a_part_of_the_picture_dry() -> None:
    case = CASES["raindrop"]
    mask = case.model.draw(tuple(clean(case).shape), generator()).mask
    assert 0.02 < float((mask == 0).float().mean()) < 0.98, "or the law on masks would say nothing"


@cases
def test_each_image_of_a_batch_stands_alone(case: Case) -> None:
    image = clean(case)
    params = case.model.draw(tuple(image.shape), generator())
    changed = image.clone()
    changed[1] = image[1].flip(-1)
    assert torch.equal(case.model.apply(changed, params)[0], case.model.apply(image, params)[0])


@cases
def test_sigma_is_a_map_or_is_asked_for(case: Case) -> None:
    image = clean(case)
    params = case.model.draw(tuple(image.shape), generator())
    if isinstance(case.model, LowDoseCt):
        with pytest.raises(ValueError, match=r"call LowDoseCt.sigma\(clean, params\)"):
            _ = params.sigma
        sigma = case.model.sigma(image, params)
    else:
        sigma = params.sigma
    assert sigma.shape == (BATCH, 1, HEIGHT, WIDTH)
    assert float(sigma.min()) >= 0
    assert bool(sigma.any()) == case.noisy


NOISES = ["gaussian", "gaussian, uneven", "low-dose CT"]  # Rician noise has another spread where the signal is low


@pytest.mark.parametrize("name", NOISES)
def test_the_noise_is_as_strong_as_it_says(name: str) -> None:
    case = CASES[name]
    image = clean(case)
    params = case.model.draw(tuple(image.shape), generator())
    sigma = case.model.sigma(image, params) if isinstance(case.model, LowDoseCt) else params.sigma
    scaled = (case.model.apply(image, params) - image) / sigma
    spread = float(scaled[..., 8:-8, 8:-8].square().mean().sqrt())
    assert spread == pytest.approx(1, abs=0.15 if isinstance(case.model, LowDoseCt) else 0.05)
