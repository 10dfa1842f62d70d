"""Scoring: means, subsets, kept results; peers and the ways our experts are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.evaluation import peers
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.restoring import expert_with_weights, restoring, with_settings
from monai_sasm.evaluation.scoring import Case, Method, ResultCache, Tally, fingerprint, score
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.evaluation.networks import Blur, blurring, bundle

CLEAN = np.random.default_rng(1).random((3, 16, 16)).astype(np.float32)
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
    (row,) = score(
        "p", cases, [Method("ours", lambda case: case.degraded * 2)], measure=measure, cache=ResultCache(None)
    )
    assert row.scores == {"low": {"mean": 2.0}, "high": {"mean": 4.0}}
    assert row.n == {"low": 3, "high": 3}


def test_no_case_hides_another_of_its_name(cases: list[Case]) -> None:
    with pytest.raises(ValueError, match="two cases of p are named 1 at 'low'"):
        score("p", [*cases, cases[1]], [Method("ours", lambda c: c.clean)], measure=measure, cache=ResultCache(None))
    tally = Tally()
    tally.add("ours", cases[0], {"mean": 1.0}, seconds=0.0)
    with pytest.raises(ValueError, match="two cases are named 0 at 'low'"):
        tally.add("ours", replace(cases[0]), {"mean": 2.0}, seconds=0.0)


def test_a_slow_peer_brings_all_rows_on_its_subset(cases: list[Case]) -> None:
    methods = [Method("ours", lambda case: case.degraded), Method("BM3D", lambda case: case.clean, first=2)]
    rows = {
        row.method: row
        for row in score("p", cases, methods, measure=measure, cache=ResultCache(None), subset_name="BM3D subset")
    }
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
        return score("p", given, [method], measure=measure, cache=ResultCache(tmp_path / "peers.json"))[0].scores[
            "low"
        ]["mean"]

    assert rows_with("1.0", cases) == rows_with("1.0", cases) == 3.0
    assert len(runs) == 6
    rows_with("1.1", cases)
    assert len(runs) == 12
    changed = [Case(c.name, c.level, c.clean, c.degraded + 1) for c in cases]
    rows_with("1.0", changed)
    assert len(runs) == 18


def test_kept_results_are_not_those_of_other_metrics_or_facts(cases: list[Case], tmp_path: Path) -> None:
    def mean_with(measure: Any, given: list[Case] = cases) -> float:
        cache = ResultCache(tmp_path / "peers.json")
        (row,) = score("p", given, [Method("peer", lambda case: case.clean * 3, "1.0")], measure=measure, cache=cache)
        return row.scores["low"]["mean"]

    def masked(case: Case, image: np.ndarray) -> dict[str, float]:
        return {"mean": float(image[case.facts["where"]].mean())}

    def shifted(case: Case, image: np.ndarray) -> dict[str, float]:
        return {"mean": float(image.mean()) + 1}

    assert mean_with(measure) == 3.0
    assert mean_with(shifted) == 4.0
    cases[:] = [replace(c, clean=c.clean + np.eye(4, dtype=np.float32)) for c in cases]
    for kind, mean in ((np.eye(4, dtype=bool), 6.0), (~np.eye(4, dtype=bool), 3.0)):
        assert mean_with(masked, [replace(c, facts={"where": kind[None]}) for c in cases]) == mean


def test_kept_results_of_two_processes_lie_side_by_side(tmp_path: Path) -> None:
    first, second = ResultCache(tmp_path / "peers.json"), ResultCache(tmp_path / "peers.json")
    first.put("a", {"mean": 1.0})
    second.put("b", {"mean": 2.0})
    first.put("c", {"mean": 3.0})
    assert ResultCache(tmp_path / "peers.json").results == {"a": {"mean": 1.0}, "b": {"mean": 2.0}, "c": {"mean": 3.0}}


def test_kept_results_have_the_metrics_that_are_asked_for(cases: list[Case], tmp_path: Path) -> None:
    def more(case: Case, image: np.ndarray) -> dict[str, float]:
        return {**measure(case, image), "largest": float(image.max())}

    for asked, names in ((measure, {"mean"}), (more, {"mean", "largest"}), (measure, {"mean"})):
        method = Method("peer", lambda case: case.degraded * 2, "1.0")
        (row,) = score("p", cases, [method], measure=asked, cache=ResultCache(tmp_path / "peers.json"))
        assert set(row.scores["low"]) == names


def test_images_of_the_same_bytes_and_another_shape_are_others() -> None:
    flat = np.arange(16, dtype=np.float32)
    assert fingerprint(flat.reshape(1, 2, 8)) != fingerprint(flat.reshape(1, 4, 4))
    assert fingerprint({"where": flat}) == fingerprint({"where": flat.copy()}) != fingerprint({"where": flat + 1})
    large = {"where": np.zeros(2000)}
    assert fingerprint(large) != fingerprint({"where": np.zeros(2000) + (np.arange(2000) == 1000)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_peer_keeps_the_image_in_place_and_lowers_the_noise(name: str, channels: int) -> None:
    pytest.importorskip("bm3d") if name == "BM3D" else None
    row, column = np.mgrid[:32, :40] / 40  # not symmetric: a turned result would be far off
    clean = np.repeat((0.2 + 0.6 * (row > 0.3) * (column > 0.7))[None], channels, 0).astype(np.float32)
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    case = Case("x", "10 %", 1000 * clean, 1000 * noisy, 100.0)
    (method,) = peers.methods([name], [case], ResultCache(None), scale=1000.0)
    restored = method.restore(case)
    assert restored.shape == clean.shape
    assert restored.dtype == np.float32
    assert psnr(case.clean, restored, 1000.0) > psnr(case.clean, case.degraded, 1000.0) + 3
    assert method.settings.split()[0] == peers.PEERS[name].package


def test_peers_are_tuned_by_the_validation_image(cases: list[Case]) -> None:
    noisy = np.random.default_rng(0).standard_normal((1, 24, 24)).astype(np.float32)
    case = Case("x", "a", np.zeros_like(noisy), noisy, 1.0)
    strengths = {"TV": (0.01, 3.0)}
    (best,) = peers.methods(["TV"], [case], ResultCache(None), strengths=strengths)
    (worst,) = peers.methods(
        ["TV"],
        [case],
        ResultCache(None),
        strengths=strengths,
        quality=lambda case, image: -psnr(case.clean, image, 1.0),
    )
    assert "weight/sigma 3 at a" in best.note
    assert "weight/sigma 0.01 at a" in worst.note


def test_kept_strengths_and_results_are_those_of_one_aim_and_one_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    noisy = np.random.default_rng(0).standard_normal((1, 24, 24)).astype(np.float32)
    case = Case("x", "a", np.zeros_like(noisy), noisy, 1.0)

    def mean_with(sign: float = 1.0) -> tuple[str, float]:
        cache = ResultCache(tmp_path / "peers.json")
        found = peers.methods(
            ["TV"],
            [case],
            cache,
            strengths={"TV": (0.01, 3.0)},
            quality=lambda case, image: sign * psnr(case.clean, image, 1.0),
        )
        (row,) = score("p", [case], found, measure=measure, cache=cache)
        return found[0].note, row.scores["a"]["mean"]

    (best, mean), (worst, _) = mean_with(), mean_with(-1.0)
    assert "weight/sigma 3 at a" in best
    assert "weight/sigma 0.01 at a" in worst
    changed = replace(peers.PEERS["TV"], denoise=lambda image, sigma, strength: peers._tv(image, sigma, strength) + 1)
    monkeypatch.setitem(peers.PEERS, "TV", changed)
    assert mean_with(-1.0)[1] == pytest.approx(float(noisy.mean()) + 1, abs=0.01)
    monkeypatch.undo()
    assert mean_with() == (best, mean)


def test_peers_run_at_the_strength_of_the_level() -> None:
    noisy = np.random.default_rng(0).standard_normal((1, 24, 24)).astype(np.float32)
    weak, strong = (
        Case("x", level, np.zeros_like(noisy), noisy, sigma) for level, sigma in (("3 %", 1.0), ("6 %", 2.0))
    )

    def quality(case: Case, image: np.ndarray) -> float:
        return float(np.abs(image - noisy).mean()) * (1 if case.level == "6 %" else -1)

    def peer(cases: list[Case], **options: Any) -> Method:
        strengths = {"TV": (0.01, 3.0)}
        return peers.methods(["TV"], cases, ResultCache(None), strengths=strengths, quality=quality, **options)[0]

    both = peer([weak, strong], tuned_at={"stacks, 3 %": "3 %", "stacks, 6 %": "6 %"})
    assert "0.01 at 3 %, 3 at 6 %" in both.settings
    for case in (weak, strong):
        stack = replace(case, level=f"stacks, {case.level}")
        np.testing.assert_array_equal(both.restore(stack), both.restore(case))
    assert np.abs(both.restore(strong)).mean() < 0.1 < np.abs(both.restore(weak)).mean()
    with pytest.raises(ValueError, match="TV was tuned at 3 %, 6 %, not at '12 %'"):
        both.restore(replace(weak, level="12 %"))
    one = peer([weak])
    np.testing.assert_array_equal(one.restore(replace(weak, level="elsewhere")), one.restore(weak))
    with pytest.raises(ValueError, match="TV has several strengths"):
        peer([])


def test_cases_are_restored_in_their_own_unit_and_shape() -> None:
    """A grey photo, a CT slice in HU, and a stack of MR slices, which becomes a volume and comes back."""
    random = np.random.default_rng(0)
    restorer = Restorer.of(blurring(1.0, gate=False))
    images = {
        "noise_photo_unet": (Modality.PHOTO, random.random((1, 24, 32)), {}),
        "lowdose_ct_unet": (Modality.CT, random.uniform(-100, 200, (1, 24, 32)), {}),
        "noise_mri_unet": (Modality.MR, random.uniform(1, 9, (5, 24, 32)), {"affine": np.diag([1.0, 1.0, 3.0, 1.0])}),
    }
    for expert, (modality, image, facts) in images.items():
        case = Case("x", "", image.astype(np.float32), image.astype(np.float32), facts=facts)
        restored = restoring(restorer, modality, expert=expert)(case)
        assert restored.shape == image.shape
        expected = lowpass(torch.from_numpy(image.astype(np.float32))[:, None], 1.0)[:, 0].numpy()
        assert restored == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_other_weights_leave_the_shipped_ones(tmp_path: Path) -> None:
    class Times(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(factor))

        def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.factor * image

    torch.save(Times(0.25).state_dict(), tmp_path / "quarter.pt")
    shipped = {"one": bundle("one", Times(0.5), "expert", Modality.PHOTO, "noise")}
    restorer = Restorer.of(shipped)
    case = Case("x", "", CLEAN, CLEAN)
    other = expert_with_weights(
        restorer, Modality.PHOTO, "one", weights=tmp_path / "quarter.pt", name="one, quarter", note=""
    )
    assert other.restore(case) == pytest.approx(CLEAN / 4)
    assert restoring(restorer, Modality.PHOTO, expert="one")(case) == pytest.approx(CLEAN / 2)


def test_settings_of_a_network_are_those_of_one_bundle_only() -> None:
    first = bundle("one", Blur(1.0))
    second = with_settings(first, sigma=3.0)
    assert (first.network.sigma, second.network.sigma) == (1.0, 3.0)
