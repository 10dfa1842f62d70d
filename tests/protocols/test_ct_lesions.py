"""Protocol ``ct-lesions`` on slices made here, and on the test patient where the data are present."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_sasm.evaluation import ct_denoising
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.ct_denoising import OWN_ROW
from monai_sasm.evaluation.data import ct_pairs
from monai_sasm.evaluation.scoring import Case, Image, Method
from monai_sasm.evaluation.table import Row
from monai_sasm.protocols import ct_lesions
from monai_sasm.protocols.ct_lesions import DISCS
from monai_sasm.protocols.evaluate import evaluate_in
from monai_sasm.types import Modality
from tests.evaluation.networks import Blur, blurring, bundle

GAINS = [f"gain {disc.label}" for disc in DISCS]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Two slices of a uniform body, noisy at full and noisier at quarter dose; the expert is a Gaussian blur."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:160, :160] - 79.5
    body = np.where(np.hypot(rows, columns) < 70, 60.0, -1000.0)
    for kind, noise in (("full", 10.0), ("quarter", 20.0)):
        folder = tmp_path / "data" / "ct_ldct_pairs" / "L096_dicom" / kind
        folder.mkdir(parents=True)
        for name in ("L096_D45f_a", "L096_D45f_b"):
            image = np.round(body + random.normal(0, noise, body.shape)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(image[..., None], np.diag([0.8, 0.8, 3, 1])), folder / f"{name}.nii.gz")
    return Context(tmp_path / "data", tmp_path / "docs" / "results", "cpu", peers=False, bundles=blurring(2.0))


def test_gains_of_a_blur(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_lesions, "REALISATIONS", 1)
    table = evaluate_in(context, "ct-lesions")
    assert table.skipped is None
    assert [row.method for row in table.rows] == [
        "input", OWN_ROW, f"{OWN_ROW}, noise as full dose", "default pipeline", "default pipeline, noise as full dose"
    ]  # fmt: skip
    same, blurred, blend, pipeline, _ = table.rows
    assert blurred.scores["quarter"][GAINS[0]] + 0.1 < pipeline.scores["quarter"][GAINS[0]] < 0.9  # half of it
    assert list(same.scores) == ["quarter", "full", ct_lesions.OBSERVED]
    assert all(same.scores[level][name] == pytest.approx(1) for level in ("quarter", "full") for name in GAINS)
    seen = [same.scores[ct_lesions.OBSERVED][f"AUC {disc.label}"] for disc in DISCS]
    assert all(0 <= area <= 1 for area in seen)
    assert same.n[ct_lesions.OBSERVED] >= 4
    assert same.scores["full"]["noise"] == pytest.approx(10, rel=0.1)
    assert same.scores["quarter"]["noise"] == pytest.approx(20, rel=0.1)
    gains = blurred.scores["quarter"]
    assert 0.1 < gains[GAINS[0]] < gains[GAINS[1]] < gains[GAINS[2]] < gains[GAINS[3]] < 1
    assert gains["NPS mean"] < same.scores["quarter"]["NPS mean"] / 2
    assert blend.scores["quarter"]["noise"] == pytest.approx(same.scores["full"]["noise"], rel=0.01)
    strength = blend.scores["quarter"]["strength"]
    assert 0.3 < strength < 0.8
    assert blend.scores["quarter"][GAINS[0]] == pytest.approx(1 - strength * (1 - gains[GAINS[0]]), abs=1e-3)
    low, high = blurred.spreads["quarter"][GAINS[0]]
    assert low < gains[GAINS[0]] < high


def test_rivals_of_the_expert_are_measured_beside_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_lesions, "REALISATIONS", 1)
    rival = bundle("lowdose_ct_esrgan", Blur(3.0), "expert", Modality.CT, "low-dose")
    table = evaluate_in(replace(context, bundles={**blurring(2.0), rival.name: rival}), "ct-lesions")
    rows = {row.method: row.scores for row in table.rows}
    assert list(rows)[-2:] == ["ESRGAN", "ESRGAN, noise as full dose"]
    assert rows["ESRGAN"]["quarter"][GAINS[0]] < rows[OWN_ROW]["quarter"][GAINS[0]] - 0.1  # the stronger blur
    assert ct_lesions.OBSERVED not in rows["ESRGAN"]
    assert "DiT, SiT left out: no bundle lowdose_ct_* with trained weights" in table.flags


def test_the_observer_sees_a_strong_disc_and_not_a_weak_one() -> None:
    """White noise of 20 HU: 40 HU over 3 mm is seen, 0.1 HU is chance."""
    random = np.random.default_rng(0)
    clean = np.full((1, 160, 160), 60, np.float32)
    facts = {"spacing": 0.8, "places": [(40, 40), (40, 120), (120, 40), (120, 120)]}
    cases = [
        Case("a", "", clean=clean, degraded=(clean + random.normal(0, 20, clean.shape)).astype(np.float32), facts=facts)
        for _ in range(40)
    ]
    noisy = [replace(case, facts={**facts, "seed": 9 * (k % 2)}) for k, case in enumerate(cases)]
    row = ct_lesions._observed(Row("x", {}, n={}), noisy, Method("x", lambda case: case.degraded))
    scores = row.scores[ct_lesions.OBSERVED]
    assert row.n[ct_lesions.OBSERVED] == 80
    assert scores["AUC 3 mm/40"] > 0.99
    assert scores["AUC 5 mm/-40"] > 0.99
    assert 0.6 < scores["AUC 10 mm/3"] < 0.95
    low, high = row.spreads[ct_lesions.OBSERVED]["AUC 10 mm/3"]
    assert low < scores["AUC 10 mm/3"] < high


def test_no_noise_is_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_lesions, "REALISATIONS", 1)
    clean = np.full((1, 64, 64), 60, np.float32)
    cases = [Case(name, "full", clean=clean, degraded=clean, facts={"spacing": 0.8}) for name in ("a", "b")]
    noises = [(one.degraded - clean).ravel() for one in ct_lesions._simulated(cases)]
    assert np.abs(np.corrcoef(noises) - np.eye(4)).max() < 0.2


def test_absent_data_are_said(tmp_path: Path) -> None:
    table = evaluate_in(Context(tmp_path, tmp_path / "out", "cpu", bundles=blurring()), "ct-lesions")
    assert str(table.skipped).startswith(f"data not found: {tmp_path}")


def test_slices_of_ct_know_their_patient() -> None:
    slices = np.zeros((1, 48, 48), np.float32)
    for name in ("L096_D45f_i021", "L096_D45f_i041"):
        case = ct_denoising.ct_case(name, "quarter", full=slices, degraded=slices, spacing=0.7, sigma=30.0)
        assert case.group == "L096"


def test_kept_results_of_peers_are_measured_anew_when_a_metric_changes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = next(ct_pairs(context.data / "ct_ldct_pairs" / "L096_dicom"))
    runs: list[str] = []

    def restore(case: Case) -> Image:
        runs.append(case.name)
        return 0.5 * case.degraded

    def scores() -> dict[str, float]:
        row = ct_lesions._peer_row(context, Method("peer", restore, "1.0"), ct_lesions.lesion_cases(pair, "quarter"))
        return dict(row.scores["quarter"])

    first = scores()
    count = len(runs)
    assert scores() == first
    assert len(runs) == count, "kept"
    monkeypatch.setattr(ct_lesions, "BINS", 5)
    assert scores()["NPS mean"] != first["NPS mean"]
    monkeypatch.undo()
    monkeypatch.setattr(ct_lesions, "uniform_regions", lambda hu: ct_denoising.uniform_regions(hu, count=1))
    assert scores()["noise"] != first["noise"]
