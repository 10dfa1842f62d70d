"""Random draws of training: other ones in every loader worker, epoch and process; the same in every run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from monai_sasm.datasets import draws
from monai_sasm.datasets.crops import CropDataset, FileCropDataset
from monai_sasm.degradations.kspace import KspaceNoise
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.training.degraded import DegradedBatches
from monai_sasm.training.gate_bank import DegradedSource, GateBank
from monai_sasm.training.volume_blocks import VolumeBlocks
from tests.bundle_cases import clean_image, save

RANDOM = np.random.default_rng(0)
SLICES = [RANDOM.random((1, 48, 48), np.float32) for _ in range(3)]
NOISE = KspaceNoise(sigma=(0.05, 0.1))


def crops(**settings: Any) -> Dataset[Any]:
    return CropDataset(SLICES, 16, length=8, **settings)


def files(tmp_path: Any) -> Dataset[Any]:
    return FileCropDataset([save(clean_image("PHOTO", 64), "PHOTO", tmp_path)], 16, length=8)


DATASETS = {
    "crops": lambda _: crops(),
    "files": files,
    "batches": lambda _: DegradedBatches(SLICES, [NOISE], batch=1, length=8, size=24),
    "blocks": lambda _: VolumeBlocks(
        [RANDOM.random((40, 40, 40), np.float32)], [NOISE], blocks=1, depth=2, cuts=1, size=24, length=16
    ),
}


def epochs(dataset: Dataset[Any], workers: int, count: int = 2, seed: int = 0) -> list[list[bytes]]:
    """Items of each epoch as bytes."""
    torch.manual_seed(seed)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    return [[b"".join(value.numpy().tobytes() for value in item.values()) for item in loader] for _ in range(count)]


@pytest.mark.parametrize("name", DATASETS)
def test_workers_and_epochs_draw_anew(name: str, tmp_path: Any) -> None:
    first, second = epochs(DATASETS[name](tmp_path), workers=2)
    assert len(first) == 8
    assert len({*first, *second}) == 16, "no item twice"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_run_draws_the_same(workers: int) -> None:
    assert epochs(crops(), workers) == epochs(crops(), workers)
    assert epochs(crops(), workers) != epochs(crops(seed=1), workers)


def test_one_process_goes_on_from_the_seed() -> None:
    """As it was before there were workers: numpy's generator of the seed, drawn on from epoch to epoch."""
    (first, second), random = epochs(crops(seed=5), workers=0), np.random.default_rng(5)
    assert first != second
    index = int(random.integers(len(SLICES)))
    top, left = int(random.integers(33)), int(random.integers(33))
    turns, flip = int(random.integers(4)), bool(random.integers(2))
    crop = np.rot90(SLICES[index][:, top : top + 16, left : left + 16], turns, axes=(-2, -1))
    assert first[0] == np.ascontiguousarray(crop[..., ::-1] if flip else crop).tobytes()


def test_validation_is_fixed_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = epochs(crops(fixed=True), workers=0)
    assert alone[0] == alone[1]
    assert epochs(crops(fixed=True), workers=2, seed=7) == alone
    monkeypatch.setattr(draws, "process", lambda: 1)
    assert epochs(crops(fixed=True), workers=0) == alone


def test_processes_draw_apart_and_share_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    first = epochs(crops(), workers=2, count=1)[0]
    monkeypatch.setattr(draws, "process", lambda: 1)
    monkeypatch.setattr(draws, "processes", lambda: 2)
    second = epochs(crops(), workers=2, count=1)[0]
    assert (len(first), len(second)) == (8, 4), "half of the crops for each of two processes"
    assert not set(first) & set(second)


def test_examples_of_the_gate_are_flipped_anew() -> None:
    photos = [(255 * RANDOM.random((3, 40, 40))).astype(np.uint8)]
    source = DegradedSource(photos, "PHOTO", {"noise_photo_unet": NOISE}, size=32, clean_share=1.0)
    bank = GateBank([source], [1], ("clean", "noise_photo_unet"), {}, NoiseEstimator())
    bank.items = bank.items * 12
    first, second = epochs(bank, workers=2)
    assert first != second
    assert first[0::2] != first[1::2], "the two workers take turns"


def drawn(stream: draws.Draws) -> tuple[float, ...]:
    """From a stream, and from all that draws in this process."""
    own = float(stream.random.random()), float(torch.rand((), generator=stream.generator))
    return *own, float(torch.rand(())), float(np.random.random()), random.random()


@pytest.mark.parametrize("before", [0, 3])
def test_what_an_epoch_draws_does_not_depend_on_what_was_drawn(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch(seed: int, start: int, process: int = 0) -> tuple[float, ...]:
        monkeypatch.setattr(draws, "process", lambda: process)
        stream = draws.Draws(5)
        for _ in range(before):
            drawn(stream)
        draws.begin_epoch(seed, start)
        return drawn(stream)

    first = epoch(1, 10)
    assert epoch(1, 10) == first
    others = {*epoch(1, 20), *epoch(1, 10, process=1), *epoch(2, 10)[2:]}
    assert not set(first) & others


def test_a_stream_that_is_made_later_begins_with_its_seed() -> None:
    draws.begin_epoch(1, 10)
    assert draws.Draws(5).random.random() == np.random.default_rng(5).random()
