"""A network may see neighbouring slices: the right ones, only where they are close, the same by every way to run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.schedulers import RFlowScheduler

from monai_sasm.bundles import Bundle
from monai_sasm.datasets.images import slices
from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr
from monai_sasm.diffusion.process import Flow
from monai_sasm.errors import RefusedError
from monai_sasm.experts.generative import GenerativeRestorer, Prediction
from monai_sasm.experts.unet import ResidualUNet
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.neighbours import adjacent, fit_neighbours, neighbours_of, run_on_slices, slabs
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.inferers import SliceInferer
from monai_sasm.restoration.network import Pipeline
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.thin import Thinning, thin_volume
from monai_sasm.training.batches import PreparePaired
from monai_sasm.training.checkpoints import starting_from
from monai_sasm.training.degraded import degraded_pairs
from monai_sasm.training.generative import PrepareGenerative
from monai_sasm.types import Modality
from tests.data import mr_volume

NAME = "mean"


class MeanOfThree(torch.nn.Module):
    """The mean of a slice and the one on either side; remembers how many slices it was shown."""

    neighbours = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.shown: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.add(image.shape[1])
        self.shown += image
        return fit_neighbours(image, 1).mean(1, keepdim=True)


def restorer(network: torch.nn.Module) -> Restorer:
    kind = (NAME, Path("nowhere"), "expert", Modality.MR, "low-resolution", False, "1", "ab" * 32)
    return Restorer.of({NAME: Bundle(*kind, network, {"sasm": {}})})


def volume(step: float = 1.0, points: int = 2, axis: int = 1) -> Volume:
    """Random MR ``(points, 6, 5, 7)`` with pixels of 1 mm and slices along ``axis``."""
    array = np.random.default_rng(0).uniform(100, 900, (points, 6, 5, 7)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[axis, axis] = step
    return Volume(array, Modality.MR, affine, slice_axis=axis)


def mean_of_three(array: np.ndarray, axis: int) -> np.ndarray:
    """Along ``axis``, the outermost slices counting twice; never across time points."""
    padded = np.pad(array, [(1, 1) if index == axis else (0, 0) for index in range(array.ndim)], mode="edge")
    parts = [np.take(padded, range(start, start + array.shape[axis]), axis) for start in range(3)]
    return np.mean(parts, axis=0)


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [
        (0, 3, ["0", "1", "2", "3", "4", "5"]),
        (1, 3, ["001", "012", "122", "334", "345", "455"]),
        (2, 6, ["00012", "00123", "01234", "12345", "23455", "34555"]),
        (2, 2, ["00011", "00111", "22233", "22333", "44455", "44555"]),
        (2, 1, ["00000", "11111", "22222", "33333", "44444", "55555"]),
    ],
)
def test_each_slice_comes_between_its_neighbours(count: int, length: int, expected: list[str]) -> None:
    assert ["".join(map(str, around)) for around in slabs(range(6), count, length)] == expected


def test_no_more_slices_are_read_than_are_needed() -> None:
    read = []

    def source() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    around = slabs(source(), 2, 100)
    assert not read
    next(around)
    assert read == [0, 1, 2]
    next(around)
    assert read == [0, 1, 2, 3]


def test_a_stack_becomes_slabs() -> None:
    stack = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 3, 2)
    assert torch.stack(list(run_on_slices(lambda slab: slab, stack, neighbours=1, length=len(stack))))[
        :, :, 2, 1
    ].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]


@pytest.mark.parametrize(
    ("sides", "axis", "expected"),
    [
        ((1, 1, 1), 2, True),
        ((1, 1, 1.49), 2, True),
        ((1, 1, 1.6), 2, False),
        ((5, 0.7, 0.7), 0, False),
        ((0.5, 2, 2), 0, True),
        ((1, 1, 0), 2, False),
    ],
)
def test_neighbours_are_close_where_slices_are_about_as_far_apart_as_pixels(
    sides: tuple[float, ...], axis: int, expected: bool
) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(sides)
    assert adjacent(affine, axis) is expected


def test_slices_that_do_not_lie_straight_behind_each_other_are_no_neighbours() -> None:
    tilted = np.eye(4)
    tilted[0, 2] = 0.2
    assert adjacent(np.eye(4), 2)
    assert not adjacent(tilted, 2)
    assert not adjacent(None, 2)
    assert not adjacent(np.eye(4), None)
    assert not adjacent(np.eye(4), 0, spatial=2)
    assert neighbours_of(volume(), 2) == 2
    assert neighbours_of(volume(step=3.0), 2) == 0
    for geometry in ("gap", "irregular", "tilted", "single"):
        assert neighbours_of(replace(volume(), geometry=geometry), 2) == 0


def test_a_slab_is_narrowed_and_a_slice_stands_in_for_missing_neighbours() -> None:
    image = torch.arange(5.0).view(1, 5, 1, 1)
    assert fit_neighbours(image, 1).flatten().tolist() == [1, 2, 3]
    assert fit_neighbours(image, 0).flatten().tolist() == [2]
    assert fit_neighbours(image[:, :1], 2).flatten().tolist() == [0] * 5
    colours = torch.arange(9.0).view(1, 9, 1, 1)
    assert fit_neighbours(colours, 0, channels=3).flatten().tolist() == [3, 4, 5]
    for channels in (2, 3, 4):
        with pytest.raises(ValueError, match="expected 1 channels, or 5 for a slice between 2 neighbours"):
            fit_neighbours(torch.zeros(1, channels, 2, 2), 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("in_place", [False, True])
def test_restoring_shows_the_neighbours_as_they_came(axis: int, in_place: bool) -> None:
    source, network = volume(axis=axis), MeanOfThree()
    expected = mean_of_three(source.array.astype(np.float64), axis + 1)
    restored = restorer(network)(source, Options(expert=NAME), in_place=in_place).volume.array
    assert network.seen == {3}
    np.testing.assert_allclose(restored, expected, rtol=1e-5)


def test_thick_slices_are_restored_alone() -> None:
    source, network = volume(step=4.0), MeanOfThree()
    restored = restorer(network)(source, Options(expert=NAME)).volume.array
    np.testing.assert_allclose(restored, source.array, rtol=1e-5)


def test_a_later_pass_does_not_mix_restored_with_unrestored_slices() -> None:
    source, network = volume(), MeanOfThree()
    once = restorer(network)(source, Options(expert=NAME)).volume.array
    twice = restorer(network)(source, Options(expert=NAME, passes=2)).volume.array
    np.testing.assert_allclose(twice, once, rtol=1e-5)


def test_an_expert_without_neighbours_is_given_the_slice_alone() -> None:
    double = torch.nn.Conv2d(1, 1, 1, bias=False).requires_grad_(False)
    double.weight.fill_(2.0)
    bundle = restorer(double).experts[NAME]
    assert bundle.neighbours == 0
    image = torch.arange(5.0).view(1, 5, 1, 1)
    assert bundle.restore(image).flatten().tolist() == [4]


@pytest.mark.parametrize("axis", [0, 2])
def test_inferer_and_pipeline_see_what_restoring_sees(axis: int) -> None:
    source, network = volume(axis=axis), MeanOfThree()
    scaling = scaling_for(source)
    expected = scaling.forward(restorer(network)(source, Options(expert=NAME)).volume.array)
    image = torch.from_numpy(scaling.forward(source.array))[None]
    meta = {"slice_axis": torch.tensor([axis]), "slices_close": torch.tensor([True])}
    inputs = MetaTensor(image, meta=meta)
    pipeline = Pipeline("MR", expert=NAME)
    pipeline.plan = restorer(network).plan(Modality.MR, pipeline.options)
    assert pipeline.neighbours == 1
    for run in (network, pipeline):
        for chunk in (1, 4):
            found = SliceInferer(chunk=chunk, neighbours=1)(inputs, run)
            np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4, atol=1e-6)
    far = MetaTensor(image, meta=meta | {"slices_close": torch.tensor([False])})
    np.testing.assert_allclose(SliceInferer(neighbours=1)(far, network).numpy(), image.numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match="neighbours not negative"):
        SliceInferer(neighbours=-1)


def test_thin_slices_are_restored_between_neighbouring_planes() -> None:
    source, network = volume(step=2.0, points=1, axis=2), MeanOfThree()
    thin = thin_volume(source, restorer(network), Thinning(NAME))
    assert thin.array.shape == (1, 6, 5, 14)
    assert network.seen == {3}, "planes follow one another at the distance of pixels"
    for before, one in pairwise(network.shown[:6]):
        torch.testing.assert_close(one[:2], before[1:])
    network.seen.clear()
    thin_volume(source, restorer(network), Thinning(NAME, factor=8.0))
    assert network.seen == {1}, "planes 1 mm apart, with pixels of 0.25 mm"


def test_training_pairs_are_slabs_and_slices(tmp_path: Path) -> None:
    cut = slices([mr_volume()], "MR", min_std=0.0, neighbours=1)
    alone = slices([mr_volume()], "MR", min_std=0.0)
    assert len(cut) == len(alone)
    assert all(around.shape == (3, *one.shape[1:]) for around, one in zip(cut, alone, strict=True))
    for number in range(1, len(cut) - 1):
        np.testing.assert_array_equal(cut[number], np.concatenate(alone[number - 1 : number + 2]))
    low = LowQualityMr(KspaceTruncation(factor=(2.0, 2.0)), KspaceNoise(sigma=(0.0, 0.0)))
    pairs = degraded_pairs(cut, [low], neighbours=1, alone=0.0)
    singles = degraded_pairs(alone, [low])
    for number in range(1, len(cut) - 1):
        clean, degraded = pairs[number]
        np.testing.assert_array_equal(clean, alone[number])
        expected = np.concatenate([single[1] for single in singles[number - 1 : number + 2]])
        np.testing.assert_allclose(degraded, expected, atol=1e-5)
    for clean, degraded in degraded_pairs(cut, [low], neighbours=1, alone=1.0):
        assert clean.shape[0] == 1
        np.testing.assert_array_equal(degraded, np.repeat(degraded[1:2], 3, 0))


def test_a_unet_with_neighbours_adds_to_the_middle_slice() -> None:
    network = ResidualUNet(1, [8, 16], neighbours=2, zero_init=True).eval()
    image = torch.rand(2, 5, 20, 22, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(image), image[:, 2:3])
    torch.testing.assert_close(network(image[:, :1]), image[:, :1])
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    assert not torch.allclose(network(image), network(image.flip(1)))
    with pytest.raises(ValueError, match="neighbours and conditions cannot be negative"):
        ResidualUNet(1, [8, 16], neighbours=-1)


def test_a_generative_restorer_is_told_the_neighbours_last() -> None:
    class Recorder(torch.nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **_: object) -> torch.Tensor:
            self.seen = x
            return torch.zeros_like(x[:, :1])

    network, image = Recorder(), torch.rand(2, 5, 20, 22, generator=torch.Generator().manual_seed(0))
    restorer = GenerativeRestorer(network, Flow(RFlowScheduler(1000)), neighbours=2)
    torch.testing.assert_close(restorer(image), image[:, 2:3])
    assert network.seen.shape[1] == 3 + 4
    torch.testing.assert_close(network.seen[:, 1], image[:, 2])
    torch.testing.assert_close(network.seen[:, 3:], image[:, [0, 1, 3, 4]])
    torch.testing.assert_close(restorer(image[:, :1]), image[:, :1])
    torch.testing.assert_close(network.seen[:, 3:], image[:, :1].expand(-1, 4, -1, -1))


def test_generative_training_aims_at_the_middle_slice() -> None:
    class Knowing(torch.nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **_: object) -> torch.Tensor:
            return self.wanted

    clean = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noisy = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(1))
    network = Knowing()
    restorer = GenerativeRestorer(network, Flow(RFlowScheduler(1000)), neighbours=2, scale=0.5)
    z, target, (t, image), _ = PrepareGenerative(restorer, PreparePaired())({"clean": clean, "noisy": noisy})
    network.wanted = target[:, :1]
    torch.testing.assert_close(Prediction(restorer)(z, t, image)[:, 1:], clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("noise", [False, True])
def test_a_network_with_neighbours_starts_as_the_one_without(tmp_path: Path, noise: bool) -> None:
    told = {"noise_estimator": lambda image: image.abs()} if noise else {}
    alone = ResidualUNet(1, [8, 16], **told)
    torch.save(alone.state_dict(), tmp_path / "alone.pt")
    between = starting_from(ResidualUNet(1, [8, 16], neighbours=2, **told), tmp_path / "alone.pt", "cpu")
    slab = torch.rand(1, 5, 16, 16)
    torch.testing.assert_close(between(slab), alone(slab[:, 2:3]))
    with pytest.raises(RefusedError, match="another shape"):
        starting_from(ResidualUNet(1, [8, 12]), tmp_path / "alone.pt", "cpu")
    plain = torch.nn.Conv2d(3, 4, 3)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    wide = starting_from(torch.nn.Conv2d(7, 4, 3), tmp_path / "plain.pt", "cpu")
    image = torch.rand(1, 7, 9, 9)
    torch.testing.assert_close(wide(image), plain(image[:, :3]))
