"""Filtered noise of MR: as much as asked for, within the window of the reconstruction, as is the reference."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.degradations.degradation import reference
from monai_sasm.degradations.filtered_noise import FilteredNoise, FilteredNoiseParams
from monai_sasm.degradations.kspace import KspaceNoise, to_kspace
from monai_sasm.degradations.regions import InRegions
from monai_sasm.training.batches import OneOf

SIDE = 128


def bright() -> torch.Tensor:
    """Two images far above their noise, whose magnitude is real."""
    return 2.0 + 0.1 * torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def params(**changed: object) -> FilteredNoiseParams:
    given = {
        "factor": torch.tensor([[2.0, 1.0], [1.6, 1.3]]),
        "apodisation": torch.tensor([[0.0, 0.0], [0.5, 0.0]]),
        "sigma": torch.full((2, 1, SIDE, SIDE), 0.05),
        "seed": 3,
    }
    return FilteredNoiseParams(**given | changed)  # type: ignore[arg-type]


def test_noise_has_the_deviation_asked_for_and_none_outside_the_window() -> None:
    model, drawn = FilteredNoise(), params()
    noise = model.apply(bright(), drawn) - model.reference(bright(), drawn)
    for one in noise:
        assert float(one.std()) == pytest.approx(0.05, rel=0.03)
    outside = to_kspace(noise).abs()[0, 0, : SIDE // 4 - 1]  # of half the rows
    assert float(outside.max()) < 0.02 * float(to_kspace(noise).abs()[0, 0].max())
    along_columns = to_kspace(noise).abs()[0, 0, SIDE // 2 - 8 : SIDE // 2 + 8, 2:8]  # all of them are there
    assert float(along_columns.mean()) == pytest.approx(0.05 * 2**0.5 * 1.2533 / 2**0.5, rel=0.15)


def test_without_a_window_it_is_plain_noise() -> None:
    whole = params(factor=torch.ones(2, 2), apodisation=torch.zeros(2, 2))
    noise = FilteredNoise().apply(bright(), whole) - bright()
    assert not whole.filtered.any()
    assert float(noise.std()) == pytest.approx(0.05, rel=0.03)
    torch.testing.assert_close(FilteredNoise().reference(bright(), whole), bright(), atol=0, rtol=0)


def test_models_around_it_know_its_reference() -> None:
    side_by_side = InRegions([FilteredNoise(factor=(2.0, 2.0), sigma=(0.1, 0.1)), FilteredNoise(sigma=(0.0, 0.0))])
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    drawn = side_by_side.draw((1, 1, 64, 64), torch.Generator().manual_seed(0))
    wanted = image
    for index in range(2):
        filtered = side_by_side.degradations[index].reference(image, drawn.drawn[index])
        wanted = wanted + drawn.regions[:, index : index + 1] * (filtered - image)
    torch.testing.assert_close(reference(side_by_side, image, drawn), wanted)
    assert not torch.allclose(wanted, image, atol=0.05)


def test_a_window_alone_is_the_reference() -> None:
    silent = params(sigma=torch.zeros(2, 1, SIDE, SIDE))
    torch.testing.assert_close(FilteredNoise().apply(bright(), silent), FilteredNoise().reference(bright(), silent))
    assert float((FilteredNoise().reference(bright(), silent) - bright()).abs().max()) > 0.01


def test_draws_lie_in_their_ranges() -> None:
    drawn = FilteredNoise((0.01, 0.02), (1.2, 1.5), (0.1, 0.3)).draw((64, 1, 8, 8), torch.Generator().manual_seed(0))
    for values, low, high in ((drawn.sigma, 0.01, 0.02), (drawn.factor, 1.2, 1.5), (drawn.apodisation, 0.1, 0.3)):
        assert low <= float(values.min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(values.max()) <= high


@pytest.mark.parametrize(
    "wrong", [{"sigma": (0.2, 0.1)}, {"sigma": (-0.1, 0.1)}, {"factor": (0.5, 2.0)}, {"apodisation": (0.5, 1.5)}]
)
def test_wrong_ranges_are_refused(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FilteredNoise(**wrong)


def test_what_a_perfect_restoration_returns() -> None:
    clean, generator = bright(), torch.Generator().manual_seed(0)
    plain, filtered = KspaceNoise((0.05, 0.05)), FilteredNoise((0.05, 0.05), (1.5, 1.5))
    shape = (2, 1, SIDE, SIDE)
    assert reference(plain, clean, plain.draw(shape, generator)) is clean
    drawn = filtered.draw(shape, generator)
    wanted = filtered.reference(clean, drawn)
    assert torch.equal(reference(filtered, clean, drawn), wanted)
    assert not torch.equal(wanted, clean)
    one = OneOf([plain, filtered], [0.0, 1.0])
    chosen = one.draw(shape, torch.Generator().manual_seed(0))
    assert torch.equal(reference(one, clean, chosen), filtered.reference(clean, chosen.chosen))
