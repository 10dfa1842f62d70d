"""The gate on a volume: seldom asked, steady from slice to slice whatever it says, the same however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.io.volume import Volume
from monai_sasm.restoration.coherence import FEWEST, CoherentWeights, seen_slices, shares, slice_distance
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.toy_bundles import bundle


class Half(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image / 2


class Moody(torch.nn.Module):
    """Says yes or no to a whole slice by its mean, and counts how often it is asked."""

    classes = ("clean", "half")
    asked = 0

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        height, width = (-(-side // 8) for side in image.shape[-2:])
        logits = torch.zeros(1, 2, height, width)
        logits[:, 1] = 40 if float(image.mean()) > 0.3 else -40
        return logits


def restorer(network: torch.nn.Module, modality: Modality = Modality.MR) -> Restorer:
    return Restorer.of({"half": bundle("half", "expert", modality, Half())}, bundle("gate", "gate", None, network))


def volume(count: int, distance: float, period: int = 1, geometry: str = "regular") -> Volume:
    """MR whose slices are bright and dark in turns."""
    array = np.random.default_rng(0).uniform(100, 200, (1, 24, 32, count)).astype(np.float32)
    array[..., np.arange(count) // period % 2 == 0] *= 4
    return Volume(array, Modality.MR, np.diag([1.0, 1.0, distance, 1.0]), slice_axis=2, geometry=geometry)


@pytest.mark.parametrize("distance", [0.4, 1.0, 3.0, 5.0, 10.0])
@pytest.mark.parametrize("count", [2, 3, 7, 13, 40, 300])
def test_no_weight_changes_by_a_tenth_whatever_the_gate_says(count: int, distance: float) -> None:
    table = shares(count, distance)
    assert table.shape == (count, len(seen_slices(count, distance)))
    np.testing.assert_allclose(table.sum(1), 1)
    # the worst gate says 1 where the share grows and 0 where it falls
    steepest = np.clip(np.diff(table, axis=0), 0, None).sum(1).max(initial=0)
    assert steepest / 0.95 < 0.1  # the floor of the weights makes them steeper


@pytest.mark.parametrize("period", [4, 6, 20])
def test_a_moody_gate_does_not_show(period: int) -> None:
    result = restorer(Moody())(volume(60, 3.0, period), Options(keep_maps=True))
    weights = result.weights["half"]
    assert weights.max() > 0.2
    assert np.abs(np.diff(weights, axis=0)).max() < 0.1


def test_the_gate_sees_one_slice_in_six_at_most() -> None:
    gate = Moody()
    restorer(gate)(volume(120, 3.0))
    assert gate.asked == 120 / FEWEST
    gate = Moody()
    restorer(gate)(volume(120, 0.5))
    assert gate.asked == 10


@pytest.mark.parametrize("geometry", ["irregular", "gap"])
def test_scattered_slices_stand_alone(geometry: str) -> None:
    alone = restorer(Moody())(volume(20, 3.0, geometry=geometry), Options(keep_maps=True)).weights["half"]
    assert np.abs(np.diff(alone, axis=0)).min() > 0.9
    far = restorer(Moody())(volume(20, 25.0), Options(keep_maps=True)).weights["half"]
    assert np.array_equal(far, alone)


def test_single_slices_and_photos_stand_alone() -> None:
    assert slice_distance(volume(1, 3.0)) is None
    assert slice_distance(Volume(np.zeros((3, 8, 8), np.float32), Modality.PHOTO)) is None
    assert slice_distance(Volume(np.zeros((1, 8, 8, 4), np.float32), Modality.MR, None, 2)) is None
    assert slice_distance(volume(2, 3.0)) == 3


def test_chunks_places_and_time_points_make_no_difference() -> None:
    """In place, in batches, and every time point for itself."""
    whole = volume(30, 2.0, 7)
    once = restorer(Moody())(whole).volume.array
    twice = Volume(np.concatenate([whole.array, whole.array]), Modality.MR, whole.affine, slice_axis=2)
    np.testing.assert_allclose(restorer(Moody())(twice).volume.array, np.concatenate([once, once]), rtol=1e-6)
    copied = whole.with_array(whole.array.copy())
    np.testing.assert_array_equal(restorer(Moody())(copied, in_place=True).volume.array, once)
    turned = Volume(
        np.ascontiguousarray(whole.array.transpose(0, 3, 1, 2)),
        Modality.MR,
        np.asarray(whole.affine)[:, [2, 0, 1, 3]],
        slice_axis=0,
    )
    np.testing.assert_array_equal(restorer(Moody())(turned).volume.array.transpose(0, 2, 3, 1), once)


def test_no_more_maps_are_kept_than_the_gaussian_reaches() -> None:
    asked: list[int] = []

    def judge(index: int) -> torch.Tensor:
        asked.append(index)
        return torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(index))

    weights = CoherentWeights(judge, count=1000, distance=1.0, modality=Modality.MR, size=(24, 32), floor=0.05)
    image = torch.rand(1, 1, 24, 32)
    most = 0
    for index in range(1000):
        assert weights(index, image).shape == (1, 2, 24, 32)
        most = max(most, len(weights._known))
        assert not asked or max(asked) <= index + 40  # never far ahead
    assert asked == sorted(set(asked)) == weights.seen.tolist()
    assert most <= 9
