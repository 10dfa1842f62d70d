"""Scoring: means, subsets, kept results; peers and the ways our experts are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_sasm.evaluation.context import on_grey, self_ensemble
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import Case, Kept, Method, score
from monai_sasm.protocols import peers

NAMES = sorted(peers.PEERS)


def measure(case: Case, image: np.ndarray) -> dict[str, float]:
    return {"mean": float(image.mean())}


@pytest.fixture
def cases() -> list[Case]:
    made = []
    for level in ("low", "high"):
        for index in range(3):
            clean = np.full((1, 4, 4), float(index), np.float32)
            made.append(Case(str(index), level, clean, clean + (level == "high")))
    return made


def test_rows_are_means_over_images_of_a_level(cases: list[Case]) -> None:
    (row,) = score("p", cases, [Method("ours", lambda case: case.degraded * 2)], measure, Kept(None))
    assert row.scores == {"low": {"mean": 2.0}, "high": {"mean": 4.0}}
    assert row.n == {"low": 3, "high": 3}


def test_a_slow_peer_brings_all_rows_on_its_subset(cases: list[Case]) -> None:
    methods = [Method("ours", lambda case: case.degraded), Method("BM3D", lambda case: case.clean, first=2)]
    rows = {row.method: row for row in score("p", cases, methods, measure, Kept(None), "BM3D subset")}
    assert list(rows) == ["ours", "ours (BM3D subset)", "BM3D (BM3D subset)"]
    assert rows["ours"].scores["high"]["mean"] == 2.0
    assert rows["ours (BM3D subset)"].scores["high"]["mean"] == 1.5
    assert rows["BM3D (BM3D subset)"].scores["high"]["mean"] == 0.5
    assert rows["BM3D (BM3D subset)"].n["high"] == 2


def test_kept_results_are_not_computed_again_until_settings_or_data_change(cases: list[Case], tmp_path: Path) -> None:
    runs: list[str] = []

    def restore(case: Case) -> np.ndarray:
        runs.append(case.name)
        return case.clean * 3

    def rows_with(settings: str, given: list[Case]) -> float:
        method = Method("peer", restore, settings)
        return score("p", given, [method], measure, Kept(tmp_path / "peers.json"))[0].scores["low"]["mean"]

    assert rows_with("1.0", cases) == rows_with("1.0", cases) == 3.0
    assert len(runs) == 6
    rows_with("1.1", cases)
    assert len(runs) == 12
    changed = [Case(c.name, c.level, c.clean, c.degraded + 1) for c in cases]
    rows_with("1.0", changed)
    assert len(runs) == 18


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_peer_keeps_the_image_in_place_and_lowers_the_noise(name: str, channels: int) -> None:
    pytest.importorskip("bm3d") if name == "BM3D" else None
    row, column = np.mgrid[:32, :40] / 40  # not symmetric: a turned result would be far off
    clean = np.repeat((0.2 + 0.6 * (row > 0.3) * (column > 0.7))[None], channels, 0).astype(np.float32)
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    case = Case("x", "10 %", 1000 * clean, 1000 * noisy, 100.0)
    (method,) = peers.methods([name], [case], Kept(None), scale=1000.0)
    restored = method.restore(case)
    assert restored.shape == clean.shape
    assert restored.dtype == np.float32
    assert psnr(case.clean, restored, 1000.0) > psnr(case.clean, case.degraded, 1000.0) + 3
    assert method.settings.split()[0] == peers.PEERS[name].package


def test_peers_are_tuned_by_the_validation_image(cases: list[Case]) -> None:
    noisy = np.random.default_rng(0).standard_normal((1, 24, 24)).astype(np.float32)
    case = Case("x", "a", np.zeros_like(noisy), noisy, 1.0)
    strengths = {"TV": (0.01, 3.0)}
    (best,) = peers.methods(["TV"], [case], Kept(None), strengths=strengths)
    (worst,) = peers.methods(
        ["TV"], [case], Kept(None), strengths=strengths, score=lambda case, image: -psnr(case.clean, image, 1.0)
    )
    assert "weight/sigma 3 at a" in best.note
    assert "weight/sigma 0.01 at a" in worst.note


def test_grey_photos_go_through_a_colour_expert_and_come_back() -> None:
    grey = np.random.default_rng(0).random((1, 6, 8)).astype(np.float32)
    tint = np.array([0.0, 0.3, 0.6], np.float32)[:, None, None]
    assert on_grey(lambda image, sigma: image + tint)(grey) == pytest.approx(grey + 0.3)


def test_self_ensemble_undoes_every_turn() -> None:
    image = np.random.default_rng(0).random((3, 6, 8)).astype(np.float32)
    seen: list[tuple[int, ...]] = []

    def identity(given: np.ndarray, sigma: float | None) -> np.ndarray:
        seen.append(given.shape)
        return given

    assert self_ensemble(identity)(image) == pytest.approx(image)
    assert len(seen) == 8
    assert set(seen) == {(3, 6, 8), (3, 8, 6)}
