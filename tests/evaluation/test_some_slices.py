"""Some slices come out as those of the whole volume; lesions in them are seen by their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from monai_sasm.evaluation.qualify_sample import sampled
from monai_sasm.evaluation.some_slices import Outcome, by_plan
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.on_demand import OnDemand
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality
from tests.evaluation.test_qualify import EXPERT, body, restorer


def test_they_are_those_of_the_whole_volume() -> None:
    volume = body(30.0, slices=6)
    whole = restorer()(volume, keep_maps=True)
    some = by_plan(restorer().plan(Modality.CT, Options(strength=0.3)))(volume, [1, 4])
    np.testing.assert_allclose(some.after, whole.volume.as_slices()[[1, 4]], atol=1e-3)
    np.testing.assert_allclose(some.weights[EXPERT], whole.weights[EXPERT][[1, 4]], atol=0.5 / 255 + 1e-6)
    assert some.noise == pytest.approx(whole.summary["noise"] / 1000, rel=0.05)


def test_no_magnitude_falls_below_zero_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = body(30.0, Modality.MR, slices=2)
    monkeypatch.setattr(OnDemand, "change", lambda self, index: np.float32(-1.000001) * self.natives[index])
    some = by_plan(restorer().plan(Modality.MR, Options()))(volume, [0, 1])
    assert some.after.min() == some.after.max() == 0


def close(volume: Volume, distance: float) -> Volume:
    """The same slices, so many mm apart."""
    assert volume.affine is not None
    affine = volume.affine.copy()
    affine[:, 0] *= distance / 3
    return replace(volume, affine=affine)


@pytest.mark.parametrize(("distance", "thick"), [(0.8, 3), (3.0, 1)], ids=["a ball", "a disc"])
def test_lesions_are_as_thick_as_wide_where_slices_are_close(distance: float, thick: int) -> None:
    volume, seen = close(body(5.0, Modality.MR, slices=25), distance), []

    def unchanged(given: Volume, indices: Sequence[int]) -> Outcome:
        seen.append(given.as_slices()[:, 0])
        return Outcome(given.as_slices()[list(indices)], {}, 0.0)

    sample = sampled(volume, unchanged, 3)
    added = seen[1] - seen[0]
    middle = sample.indices[1]
    unit = added[middle].max() / sample.lesions[1].max()
    np.testing.assert_allclose(added[middle] / unit, sample.lesions[1], atol=0.02)
    np.testing.assert_allclose(sample.response(1.0), sample.lesions, atol=1e-3)
    (disc, (row, column)) = next(one for one in sample.places[1] if one[0].label == "3 mm/15")
    there = added[middle - 2 : middle + 3, row, column] > 0.5 * added[middle, row, column]
    assert there.sum() == thick, "3 mm in slices of 0.8 mm"
    assert disc.diameter == 3
    wide = [(plane[row - 3 : row + 4, column - 3 : column + 4] > 0).sum() for plane in added[middle : middle + 3]]
    assert wide[0] > wide[1] or thick == 1
    assert not added[middle + 3].any()


def test_lesions_of_one_slice_are_not_seen_in_another() -> None:
    volume = close(body(5.0, Modality.MR, slices=5), 0.8)

    def unchanged(given: Volume, indices: Sequence[int]) -> Outcome:
        return Outcome(given.as_slices()[list(indices)], {}, 0.0)

    sample = sampled(volume, unchanged, 5)
    assert np.diff(sample.indices).min() == 1
    np.testing.assert_allclose(sample.response(1.0), sample.lesions, atol=1e-3)
