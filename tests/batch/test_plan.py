"""The plan: what becomes a task, where its result goes, under which id; BIDS names and the data set's description."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_sasm.batch import bids
from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.plan import plan
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality
from tests.data import mr_volume


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return path


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(mr_volume(), path)
    return path


def job(source: Path, output: Path) -> BatchJob:
    return BatchJob(source, output, Options())


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        ("sub-01_T1w.nii.gz", "sub-01_desc-denoised_T1w.nii.gz"),
        ("sub-01_ses-pre_acq-fast_run-2_FLAIR.nii", "sub-01_ses-pre_acq-fast_run-2_desc-denoised_FLAIR.nii"),
        ("sub-01_desc-preproc_T1w.nii.gz", "sub-01_desc-preprocDenoised_T1w.nii.gz"),
        ("brain.nii.gz", None),
        ("sub-01.nii.gz", None),
        ("sub-ü_T1w.nii.gz", None),
    ],
)
def test_bids_names(name: str, derived: str | None) -> None:
    assert bids.derived_name(name) == derived


def test_a_tree_becomes_tasks_with_stable_ids(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "b" / "two.png", 1)
    photo(tmp_path / "in" / "a" / "one.png", 2)
    (tmp_path / "in" / "a" / "table.csv").write_text("1,2\n")
    first = plan(job(tmp_path / "in", tmp_path / "out"))
    assert [task.target.as_posix() for task in first] == ["a/one.png", "b/two.png"]
    assert {task.refusal for task in first} == {None}
    photo(tmp_path / "in" / "a" / "another.png", 3)
    second = plan(job(tmp_path / "in", tmp_path / "out"))
    assert {task.id for task in first} < {task.id for task in second}
    assert not (tmp_path / "out").exists()


def test_an_output_below_the_input_is_no_input(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "one.png")
    photo(tmp_path / "in" / "out" / "one.png")
    found = plan(job(tmp_path / "in", tmp_path / "in" / "out"))
    assert [task.target.as_posix() for task in found] == ["one.png"]


@pytest.mark.parametrize("output", [".", ".."])
def test_an_output_that_holds_the_input_is_refused(tmp_path: Path, output: str) -> None:
    photo(tmp_path / "in" / "one.png")
    with pytest.raises(ValueError, match="holds the input"):
        plan(job(tmp_path / "in", (tmp_path / "in" / output).resolve()))


def test_results_that_would_share_a_sidecar_are_told_apart(tmp_path: Path) -> None:
    for name in ("t1.nii", "t1.nii.gz", "t1-2.nii"):
        volume(tmp_path / "in" / name)
    found = plan(BatchJob(tmp_path / "in", tmp_path / "out", Options(), modality=Modality.MR))
    assert [task.refusal for task in found] == [None, None, None]
    assert {task.entry.paths[0].name: task.target.name for task in found} == {
        "t1.nii": "t1.nii",
        "t1.nii.gz": "t1-niigz.nii.gz",
        "t1-2.nii": "t1-2.nii",
    }


def test_a_name_that_would_be_a_link_is_refused(tmp_path: Path) -> None:
    for name in ("t1.nii", "t1.nii.gz"):
        volume(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "t1-niigz.nii.gz").symlink_to(tmp_path / "elsewhere")
    found = plan(BatchJob(tmp_path / "in", tmp_path / "out", Options(), modality=Modality.MR))
    assert [task.refusal is None for task in found] == [True, False]
    assert "symbolic link" in str(found[1].refusal)


def test_a_bids_data_set(tmp_path: Path) -> None:
    source, output = tmp_path / "study", tmp_path / "study" / "derivatives" / "sasm"
    volume(source / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    volume(source / "derivatives" / "other" / "sub-1" / "anat" / "sub-1_desc-x_T1w.nii.gz")
    volume(source / "sourcedata" / "sub-1_T1w.nii.gz")
    (source / bids.DESCRIPTION).write_text(json.dumps({"Name": "Heads", "BIDSVersion": "1.8.0", "DatasetDOI": "doi:1"}))
    found = plan(job(source, output))
    assert [task.target.as_posix() for task in found] == ["sub-1/anat/sub-1_desc-denoised_T1w.nii.gz"]
    output.mkdir(parents=True)
    bids.describe(output, source)
    description = json.loads((output / bids.DESCRIPTION).read_text())
    assert description["Name"] == "Heads, restored"
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "monai_sasm"
    assert description["DatasetLinks"] == {"raw": "../.."}
    assert description["SourceDatasets"] == [{"DOI": "doi:1"}]
    assert "manifest.jsonl" in (output / ".bidsignore").read_text().splitlines()
    (output / bids.DESCRIPTION).write_text("mine")
    bids.describe(output, source)
    assert (output / bids.DESCRIPTION).read_text() == "mine"
