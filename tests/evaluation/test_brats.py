"""BraTS at scale: one subject a row, resumed after a crash, the same on a cluster; who makes which subject worse."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.manifest import read
from monai_sasm.batch.work import MAX_DEATHS
from monai_sasm.cli.main import main
from monai_sasm.datasets.brats import BratsSubject, subjects
from monai_sasm.degradations.kspace import KspaceTruncation
from monai_sasm.errors import BundleError
from monai_sasm.evaluation import brats_subject
from monai_sasm.evaluation.brats_subject import BratsJob, key_of, measure_subject, prepare
from monai_sasm.evaluation.data import DataAbsentError
from monai_sasm.evaluation.named_experts import find_experts
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.brats import in_process
from monai_sasm.protocols.evaluate import evaluate_brats
from tests.data import CHECKOUT
from tests.evaluation.tumours import DIES, Mortal, write_models, write_subjects
from tests.rows import check_rows

NAMES = ("same", "dimmer")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Judge and experts where a user's own bundles lie."""
    monkeypatch.setenv("SASM_BUNDLES", str(write_models(tmp_path / "models")))
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path / "none"))  # no feature distances: they take longer than all else
    return tmp_path / "models"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four subjects, the last one without labels."""
    return write_subjects(tmp_path / "data", 4, unlabelled=3)


def run(root: Path, output: Path, **options: Any) -> Table:
    return evaluate_brats(root, NAMES, output / "results", "cpu", **options)


def rows(output: Path) -> list[dict[str, Any]]:
    return read(output / "results" / "brats" / "manifest.jsonl")


def job_of(tmp_path: Path) -> BratsJob:
    return BratsJob(
        tmp_path / "run" / "brats", tmp_path / "run", tuple(find_experts(NAMES)), "segment_brats_segresnet", None,
        ("t1ce", "flair"), device="cpu",
    )  # fmt: skip


def test_the_table(models: Path, root: Path, tmp_path: Path) -> None:
    table = run(root, tmp_path)
    assert [row.method for row in table.rows] == ["clean", "input", *NAMES]
    clean, degraded, same, dimmer = (row.scores["x2"] for row in table.rows)
    assert clean["Dice"] == clean["Dice ET"] == 1
    assert clean["HD95"] == 0
    assert math.isnan(clean["PSNR"])
    assert degraded["Dice"] < 0.99
    assert table.rows[0].n == {"x2": 4, "x4": 4}
    for metric in ("PSNR", "SSIM", "Dice WT", "Dice TC", "Dice ET", "HD95 ET"):
        assert same[metric] == pytest.approx(degraded[metric], abs=1e-5), metric
    assert same["recovered"] == pytest.approx(0, abs=1e-6)
    assert dimmer["recovered"] == pytest.approx((dimmer["Dice"] - degraded["Dice"]) / (1 - degraded["Dice"]))
    assert dimmer["worse"] == 3
    assert dimmer["M params"] == 2e-6
    assert "p PSNR (against same)" in dimmer
    assert math.isnan(dimmer["p PSNR (against same)"]), "four subjects are too few"
    assert table.row("dimmer").interval("x2", "Dice") is None
    assert table.row("input").scores["x4"]["PSNR"] < degraded["PSNR"] - 1
    worse = table.details["worse"]["x2"]["dimmer"]  # type: ignore[index]
    assert list(worse) == sorted(worse, key=lambda name: worse[name])
    assert "BraTS2021_00003" not in worse
    assert any(flag.startswith("Dice made worse by dimmer at x2: BraTS2021_0000") for flag in table.flags)
    assert "Dice made worse by same at x4: none" in table.flags
    assert any("4 of 4 subjects measured, 3 with labels" in flag for flag in table.flags)
    assert table.figures == ("brats-x2.png", "brats-x4.png", "brats-dice.png", "brats-time.png")
    assert all(0 < (tmp_path / "results" / name).stat().st_size < 300_000 for name in table.figures)
    assert "## brats" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    lines = (tmp_path / "results" / "brats" / "manifest.jsonl").read_text().splitlines()
    check_rows(json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert len(lines) == 4


def test_numbers_of_one_subject(models: Path, root: Path, tmp_path: Path) -> None:
    job, subject = job_of(tmp_path), subjects(root)[0]
    scene = prepare(subject, job, 2)
    Ledger(job.folder).open()
    (row,) = in_process([subject], job)
    error = (scene.degraded - scene.clean)[:, scene.brain]
    assert row["scores"]["x2"]["input"]["PSNR"] == pytest.approx(-10 * math.log10(np.mean(error**2)), abs=1e-3)
    # the stated degradation, once for each slice of each modality
    batch = torch.from_numpy(scene.clean[1]).permute(2, 0, 1)[:, None]
    model = KspaceTruncation(factor=(2.0, 2.0))
    truncated = model.apply(batch, model.draw(tuple(batch.shape), torch.Generator()))[:, 0].permute(1, 2, 0).numpy()
    bright = truncated > 0.3
    assert (scene.degraded[1] - truncated)[bright].std() == pytest.approx(0.02, rel=0.05)
    assert np.array_equal(prepare(subject, job, 2).degraded, scene.degraded)
    assert not np.array_equal(prepare(subjects(root)[1], job, 2).degraded[0][:9, :9, :9], scene.degraded[0][:9, :9, :9])
    assert scene.spacing == (1, 1, 1)
    assert {name: int(region.sum()) for name, region in scene.truth.items()} == {
        "WT": int((np.isin(_labels(subject), (1, 2, 4))).sum()),
        "TC": int((np.isin(_labels(subject), (1, 4))).sum()),
        "ET": int((_labels(subject) == 4).sum()),
    }


def _labels(subject: Any) -> np.ndarray:
    import nibabel

    return np.asarray(nibabel.load(subject.label).dataobj)


def test_a_background_that_is_not_zero_changes_nothing(models: Path, root: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    shifted = write_subjects(tmp_path / "shifted", 1, background=-500.0)
    plain, other = (prepare(subjects(folder)[0], job, 4) for folder in (root, shifted))
    assert np.array_equal(plain.brain, other.brain)
    np.testing.assert_allclose(plain.clean, other.clean, atol=1e-5)
    np.testing.assert_allclose(plain.degraded, other.degraded, atol=1e-5)


@pytest.mark.slow
def test_resume_takes_over_what_is_still_right(models: Path, root: Path, tmp_path: Path) -> None:
    def counted(found: Sequence[BratsSubject], job: BratsJob) -> Iterator[Any]:
        asked.append([subject.name[-1] for subject in found])
        return in_process(found, job)

    asked: list[list[str]] = []
    first = run(root, tmp_path, limit=2, engine=counted)
    both = run(root, tmp_path, resume=True, engine=counted)
    assert asked == [["0", "1"], ["0", "2", "3"]], "the first is drawn, and the drawing is in another folder"
    assert any("limited to the first 2" in flag for flag in first.flags)
    kept = both.details["subjects"][1]  # type: ignore[index]
    assert kept == first.details["subjects"][1]  # type: ignore[index]
    again = run(root, tmp_path, resume=True, engine=counted)
    assert len(asked) == 2, "nothing left to do, so that no cluster is asked"
    assert again.details == both.details
    label = root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz"
    label.write_bytes((root / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz").read_bytes())
    run(root, tmp_path, resume=True, engine=counted)
    assert asked[2:] == [["1"]], "other labels"
    state = torch.load(models / "dimmer" / "models" / "model.pt", weights_only=True)
    torch.save({**state, "weight": 0.9 * state["weight"]}, models / "dimmer" / "models" / "model.pt")
    changed = run(root, tmp_path, resume=True, engine=counted)
    assert asked[3:] == [["0", "1", "2", "3"]], "another model"
    assert changed.row("dimmer").scores["x2"]["PSNR"] < both.row("dimmer").scores["x2"]["PSNR"] - 0.5
    assert len(rows(tmp_path)) == 10


def test_a_quick_look_replaces_no_results(models: Path, root: Path, tmp_path: Path) -> None:
    whole, results = run(root, tmp_path), tmp_path / "results"
    before = {path: path.read_bytes() for path in (tmp_path / "RESULTS.md", *results.glob("brats*.*"))}
    assert len(before) == 7
    look = run(root, tmp_path, limit=1, resume=True)
    assert look.rows[0].n == {"x2": 1, "x4": 1}
    assert Table.read(results / "limited" / "brats.json").rows[0].n == look.rows[0].n
    assert all((results / "limited" / name).is_file() for name in look.figures)
    assert {path: path.read_bytes() for path in before} == before
    assert any("no row of the default pipeline" in flag for flag in whole.flags)


def test_a_row_holds_for_the_metrics_that_there_were(
    models: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (subject, *_), job = subjects(root), job_of(tmp_path)
    before = key_of(subject, job)
    assert key_of(subject, job) == before
    monkeypatch.setattr(
        brats_subject, "_distances", lambda: PerceptualDistances(models / "same" / "models" / "model.pt")
    )
    assert key_of(subject, job) != before


def test_subjects_of_the_default_folder_take_all_options(
    models: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def code(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", "brats", "-o", str(tmp_path / "results"), "-q", *map(str, arguments)])
        return int(ended.value.code or 0)

    monkeypatch.setenv("SASM_DATA", str(tmp_path / "set"))
    assert code("--limit", 1, "--bundle", "same", "--resume") == 2
    assert "is not a folder" in capsys.readouterr().err
    assert code("--root", root, "--data", root) == 2
    assert "give one of them" in capsys.readouterr().err
    (tmp_path / "set").mkdir()
    root.rename(tmp_path / "set" / "brats")
    assert code("--limit", 1, "--bundle", "same", "--resume") == 0
    table = Table.read(tmp_path / "results" / "limited" / "brats.json")
    assert [row.method for row in table.rows] == ["clean", "input", "same"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_where_it_was(models: Path, root: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "brats", "--root", root, "-o", tmp_path / "results", "--device", "cpu", "--resume", "-q"]
    arguments += [part for name in NAMES for part in ("--bundle", name)]
    command = [sys.executable, "-m", "monai_sasm.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", DIES: "100"}  # 64 calls a subject
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, cwd=CHECKOUT)
    assert ended.returncode == -signal.SIGKILL
    (before,) = rows(tmp_path)
    assert before["status"] == "ok"
    with pytest.raises(SystemExit) as finished:
        main([str(argument) for argument in arguments])
    assert not finished.value.code
    found = rows(tmp_path)
    assert found[0] == before
    assert [row["input"]["name"][-1] for row in found] == ["0", "1", "2", "3"]
    assert not list((tmp_path / "results" / "brats" / ".sasm-batch" / "starts").iterdir())


def test_a_subject_that_always_kills_is_given_up(
    models: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, subject = job_of(tmp_path), subjects(root)[0]
    ledger = Ledger(job.folder)
    ledger.open()
    for _ in range(MAX_DEATHS):  # what that many deaths leave behind
        ledger.start(subject.id)
    row = measure_subject(subject, job)
    assert (row["status"], row["error"]) == ("failed", "ProcessDied")
    assert measure_subject(subject, job)["status"] == "ok", "a new run tries again"


@pytest.mark.slow
def test_two_workers_find_the_same(models: Path, root: Path, tmp_path: Path) -> None:
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    from distributed.utils import get_mp_context

    here = run(root, tmp_path / "here")
    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",  # the imports take seconds, a fork none
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with dask.config.set(settings):
        get_mp_context().set_forkserver_preload(["distributed", "monai.bundle", "monai_sasm.evaluation.brats_subject"])
        env = {name: os.environ[name] for name in ("SASM_BUNDLES", "SASM_WEIGHTS")}  # not the fork server's
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, env=env) as cluster:
            arguments = ["brats", "--root", root, "-o", tmp_path / "there" / "results", "--device", "cpu", "-q"]
            arguments += [part for name in NAMES for part in ("--bundle", name)]
            with pytest.raises(SystemExit) as ended:
                main(["evaluate", *map(str, arguments), "--scheduler", cluster.scheduler_address])
    assert not ended.value.code
    there = Table.read(tmp_path / "there" / "results" / "brats.json")
    for row in here.rows:
        scores = {name: value for name, value in row.scores["x2"].items() if math.isfinite(value)}
        other = there.row(row.method).scores["x2"]
        assert {name: other[name] for name in scores} == pytest.approx(scores, rel=1e-6)
    assert sorted(row["input"]["name"][-1] for row in rows(tmp_path / "there")) == ["0", "1", "2", "3"]
    assert (tmp_path / "there" / "results" / "brats-x4.png").is_file()


def test_what_cannot_be_measured_is_said(models: Path, root: Path, tmp_path: Path) -> None:
    (root / "BraTS2021_00002" / "BraTS2021_00002_t1ce.nii.gz").unlink()
    (root / "BraTS2021_00001" / "BraTS2021_00001_flair.nii.gz").write_bytes(b"no image")
    table = run(root, tmp_path)
    assert table.row("input").n == {"x2": 2, "x4": 2}
    check_rows(rows(tmp_path))
    assert "BraTS2021_00002 skipped: has no t1ce, which the judge needs" in table.flags
    assert any(flag.startswith("BraTS2021_00001 failed: ") for flag in table.flags)
    with pytest.raises(DataAbsentError, match="no BraTS subject"):
        run(tmp_path / "models", tmp_path)
    with pytest.raises(BundleError, match="BraTS is MR"):
        evaluate_brats(root, ["lowdose_ct_unet"], tmp_path / "results", "cpu")


def test_the_model_zoo_judges_where_its_weights_are(models: Path, root: Path, tmp_path: Path) -> None:
    judge = models / "segment_brats_segresnet"
    (judge / "configs" / "zoo.yaml").write_text("modalities: [t1ce, t1, t2, flair]\n", encoding="utf-8")
    assert run(root, tmp_path, limit=1).skipped is None
    (judge / "models" / "zoo_model.pt").write_bytes((judge / "models" / "model.pt").read_bytes())
    assert "BraTS2021_00000: has no t1, t2" in str(run(root, tmp_path, limit=1).skipped)


def test_without_labels_there_is_no_dice(models: Path, tmp_path: Path) -> None:
    Mortal.calls = 0
    table = run(write_subjects(tmp_path / "one", 1, unlabelled=0), tmp_path)
    assert set(table.row("input").scores["x2"]) == {"PSNR", "SSIM"}
    assert "recovered" not in table.row("same").scores["x2"]
    assert table.figures == ("brats-x2.png", "brats-x4.png", "brats-time.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mri-noise", "--root", "."], "are for brats alone"),
        (["brats", "--root", ".", "--scheduler", "tcp://a", "--cluster", "pyproject.toml"], "give one of them"),
        (["brats", "--root", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
