"""Examples of CT at a chosen dose: the variance is that dose's, and the label follows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.training.dose_range import DosedPair, measured_pairs
from monai_sasm.training.dose_source import DoseRangeSource, noise_share

SIZE, FULL = 64, 0.02  # pixels; standard deviation of the noise at full dose, HU / 1000


def pair(dose: float, noise_free: bool, seed: int = 0) -> DosedPair:
    """White noise of variance proportional to 1 / dose."""
    random = np.random.default_rng(seed)
    own, more = random.normal(0, FULL, (2, 1, 160, 160)).astype(np.float32)
    clean = np.full((1, 160, 160), 0.05, np.float32)
    if noise_free:
        return DosedPair(clean, clean + more / np.sqrt(np.float32(dose)), dose, True)
    return DosedPair(clean + own, clean + own + more * np.sqrt(np.float32(1 / dose - 1)), dose)


@pytest.mark.parametrize("noise_free", [False, True])
@pytest.mark.parametrize("dose", [0.25, 0.4])
@pytest.mark.parametrize("wanted", [0.15, 0.5, 0.9])
def test_any_dose_is_made_from_any_pair(noise_free: bool, dose: float, wanted: float) -> None:
    made = pair(dose, noise_free)
    image = made.clean + noise_share(wanted, made) * (made.noisy - made.clean)
    assert float(image.std()) == pytest.approx(FULL / wanted**0.5, rel=0.03)


@pytest.mark.parametrize("noise_free", [False, True])
def test_low_doses_are_the_fault_and_normal_ones_are_clean(noise_free: bool) -> None:
    source = DoseRangeSource([pair(0.25, noise_free)], "ct", coarse=0.0, size=SIZE)
    generator = torch.Generator().manual_seed(0)
    examples = [source.draw(generator) for _ in range(40)]
    faulty = [bool(example.faults["ct"].min()) for example in examples]
    assert 10 < sum(faulty) < 30
    for example, fault in zip(examples, faulty, strict=True):
        dose = (FULL / float(example.degraded.std())) ** 2
        assert 0.11 < dose < 0.6 if fault else 0.68 < dose < 2.2
        assert torch.equal(example.clean, example.degraded) != fault
        assert example.degraded.shape == (1, SIZE, SIZE)


def test_coarse_pixels_lie_in_air() -> None:
    source = DoseRangeSource([pair(0.25, True)], "ct", coarse=1.0, coarsest=4.0, size=SIZE)
    generator = torch.Generator().manual_seed(1)
    widths = []
    for _ in range(20):
        image = source.draw(generator).degraded[0]
        inside = image > -0.5
        rows = int(inside.any(1).sum())
        assert int(inside.sum()) == rows**2, "a square of tissue"
        assert torch.all(image[~inside] == -1.024)
        widths.append(rows)
    assert min(widths) < 50
    assert max(widths) == SIZE


def test_full_dose_pairs_teach_nothing_and_measured_ones_have_one_dose() -> None:
    with pytest.raises(ValueError, match=r"no pair below 0\.75"):
        DoseRangeSource([pair(1.0, False)], "ct", size=SIZE)
    image = np.zeros((1, 8, 8), np.float32)
    assert [made.dose for made in measured_pairs([(image, image)])] == [0.25]


@pytest.mark.parametrize("wrong", [{"low": (0.2, 0.8)}, {"normal": 1.2}, {"coarsest": 0.5}])
def test_contradictions_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="needed: 0 < low range"):
        DoseRangeSource([pair(0.25, False)], "ct", size=SIZE, **wrong)
