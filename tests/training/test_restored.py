"""Restored pairs are made once, each photo from its own stream, and a run that was cut off goes on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.training.restored import restored_pairs

RANDOM = np.random.default_rng(0)
PHOTOS = [RANDOM.integers(0, 256, (3, 24, 32), dtype=np.uint8), RANDOM.integers(0, 256, (3, 20, 20), dtype=np.uint8)]


class Halved:
    """A restoration that can be told from the input, and counts its calls; fails at a chosen call."""

    def __init__(self, fails_at: int = 99) -> None:
        self.calls, self.fails_at = 0, fails_at

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        assert image.shape[:2] == (1, 3)
        return image / 2


def make(folder: Path, restore: Halved, sigma: float = 0.1) -> list[tuple[np.ndarray, ...]]:
    noise = GaussianNoise((sigma, sigma))
    return restored_pairs(lambda: PHOTOS, restore, noise, folder / "pairs.npz", draws=2)


def test_pairs_are_the_restored_photos(tmp_path: Path) -> None:
    pairs = make(tmp_path, Halved(), sigma=0.0)
    assert len(pairs) == 4
    for (clean, restored), photo in zip(pairs, (PHOTOS[0], PHOTOS[0], PHOTOS[1], PHOTOS[1]), strict=True):
        np.testing.assert_array_equal(clean, photo)
        np.testing.assert_array_equal(restored, np.round(photo / 2).astype(np.uint8))
        assert restored.dtype == np.uint8


def test_draws_differ_and_the_file_is_read_again(tmp_path: Path) -> None:
    restore = Halved()
    first = make(tmp_path, restore)
    assert not np.array_equal(first[0][1], first[1][1])
    again = restored_pairs(lambda: pytest.fail("the cache is there"), restore, GaussianNoise(), tmp_path / "pairs.npz")
    assert restore.calls == 4
    for pair, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(pair[1], other[1])


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "a", Halved(fails_at=3))
    rest = Halved()
    resumed, whole = make(tmp_path / "a", rest), make(tmp_path / "b", Halved())
    assert rest.calls == 2
    for pair, other in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(pair[1], other[1])


def test_a_photo_that_was_cut_off_while_it_was_kept_is_restored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: object, _array: np.ndarray) -> None:
        if isinstance(file, Path):
            file.write_bytes(b"\x93NUMPY")
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(np, "save", half)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, Halved())
    rest = Halved()
    assert len(make(tmp_path, rest)) == rest.calls == 4


def test_without_the_file_all_is_restored_anew(tmp_path: Path) -> None:
    make(tmp_path, Halved(), sigma=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.npz"]
    (tmp_path / "pairs.npz").unlink()
    again = restored_pairs(lambda: PHOTOS, torch.zeros_like, GaussianNoise((0.0, 0.0)), tmp_path / "pairs.npz")
    assert not any(restored.any() for _, restored in again)


def test_the_degraded_photo_comes_along(tmp_path: Path) -> None:
    noise = GaussianNoise((0.1, 0.1))
    triples = restored_pairs(lambda: PHOTOS, Halved(), noise, tmp_path / "triples.npz", sources=True)
    pairs = restored_pairs(lambda: PHOTOS, Halved(), noise, tmp_path / "pairs.npz")
    for (clean, restored, source), pair in zip(triples, pairs, strict=True):
        np.testing.assert_array_equal(restored, pair[1])
        assert float((source - clean / 255).std()) == pytest.approx(0.1, rel=0.1)
        assert np.abs(restored - 255 * np.clip(source.astype(float) / 2, 0, 1)).max() < 1, "to its 10 bits"
    with pytest.raises(KeyError, match="source_0_0"):
        restored_pairs(lambda: PHOTOS, Halved(), noise, tmp_path / "pairs.npz", sources=True)


def test_a_cache_of_other_settings_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def folder(exclude: list[str]) -> list[np.ndarray]:
        return PHOTOS[: 2 - len(exclude)]

    def pairs(exclude: list[str], **settings: int) -> int:
        photos = partial(folder, exclude=exclude)
        return len(restored_pairs(photos, Halved(), GaussianNoise(), tmp_path / "pairs.npz", **settings))

    assert pairs([]) == pairs([]) == 2
    assert not caplog.records
    assert pairs(["a_test_photo"], draws=3) == 2
    assert "pairs.npz was made with other settings (photos, draws)" in caplog.text
    assert "a_test_photo" not in str(np.load(tmp_path / "pairs.npz")["settings"])


def test_a_run_of_other_settings_that_was_cut_off_leaves_nothing(tmp_path: Path) -> None:
    noise, cache = GaussianNoise((0.1, 0.1)), tmp_path / "pairs.npz"
    with pytest.raises(KeyboardInterrupt):
        restored_pairs(lambda: PHOTOS, Halved(fails_at=2), noise, cache, seed=7)
    found = restored_pairs(lambda: PHOTOS, Halved(), noise, cache, seed=8)
    whole = restored_pairs(lambda: PHOTOS, Halved(), noise, tmp_path / "whole.npz", seed=8)
    assert all(np.array_equal(pair[1], other[1]) for pair, other in zip(found, whole, strict=True))
