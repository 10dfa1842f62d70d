"""Own results are not restored a second time, and everything else about them works."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

import monai_sasm
from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.plan import plan
from monai_sasm.errors import RefusedError
from monai_sasm.io.formats import inventory, open_images, save
from monai_sasm.io.photo import png
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, mr_slice, save_all
from tests.io.test_meaning import head, saved

AGAIN = "a result of this program, which would be changed a second time: restore the image that it was made from"
NOTHING = 3


def rows_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A CT series and an MR volume in two folders."""
    save_all([ct_slice(number) for number in range(3)], tmp_path / "in" / "ct")
    (tmp_path / "in" / "mr").mkdir()
    saved(tmp_path / "in" / "mr" / "sub-1_T1w.nii.gz", head())
    return tmp_path / "in"


def test_a_batch_passes_over_the_results_of_another(
    sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any
) -> None:
    assert sasm("batch", studies, studies / "out", "--expert", "toy_ct")[0] == 0
    assert sasm("batch", studies, studies / "out mr", "--expert", "toy_mr")[0] == 0
    code, out, _ = sasm("batch", studies, tmp_path / "again", "--expert", "toy_ct", "--json")
    assert code == 0
    told = rows_of(out)
    assert [row["status"] for row in told].count("ok") == 1
    assert [row["reason"] for row in told].count(AGAIN) == 2
    assert len(list((tmp_path / "again").rglob("*.dcm"))) == 3


def test_results_beside_their_sources_are_not_restored(
    sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any
) -> None:
    command = ("restore", studies / "ct", "--expert", "toy_ct", "--json")
    assert sasm(*command, "-o", studies / "ct" / "restored")[0] == 0
    code, out, _ = sasm(*command, "-o", tmp_path / "second")
    assert (code, sorted(row["status"] for row in rows_of(out))) == (0, ["ok", "skipped"])
    with pytest.raises(RefusedError, match="a result of this program"):
        monai_sasm.restore(studies / "ct" / "restored", tmp_path / "third", device="cpu", expert="toy_ct")


@pytest.mark.parametrize("end", [".nii.gz", ".nrrd", ".mha", ".mgz"])
def test_volumes_are_known_by_their_sidecars(
    end: str, sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any
) -> None:
    source, first = studies / "mr" / "sub-1_T1w.nii.gz", tmp_path / f"first{end}"
    command = ("--expert", "toy_mr", "--modality", "MR", "--json")
    assert sasm("restore", source, "-o", first, *command)[0] == 0
    code, out, _ = sasm("restore", first, "-o", tmp_path / "second", *command)
    assert (code, [row["reason"] for row in rows_of(out)]) == (NOTHING, [AGAIN])
    first.with_name("first.json").unlink()
    assert sasm("restore", first, "-o", tmp_path / "second", *command)[0] == 0


def test_maps_beside_results_are_no_images(sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any) -> None:
    command = ("restore", studies / "mr", "--expert", "toy_mr", "-o", tmp_path / "out", "--save-maps")
    assert sasm(*command)[0] == 0
    refusals = {entry.paths[0].name: entry.refusal for entry in inventory(tmp_path / "out", Modality.MR)}
    assert refusals.pop("sub-1_T1w.nii.gz") is None
    assert len(refusals) >= 2
    assert all("a map that lay beside a result by its name" in str(reason) for reason in refusals.values()), refusals


def test_a_source_beside_its_result_of_another_format_is_a_source(sasm: Any, studies: Path, toy_restorer: Any) -> None:
    source = studies / "mr" / "sub-1_T1w.nii.gz"
    command = ("restore", source, "--expert", "toy_mr")
    assert sasm(*command, "-o", source.with_name("sub-1_T1w.nrrd"))[0] == 0
    assert [entry.is_result for entry in inventory(source.parent)] == [False, True]
    assert sasm(*command, "-o", source.with_name("other.nii.gz"))[0] == 0


def test_an_unchanged_copy_is_a_result_too(sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any) -> None:
    options = ("--expert", "toy_ct", "--strength", "0")
    assert sasm("restore", studies / "ct", "-o", tmp_path / "copy", *options)[0] == 0
    assert sasm("restore", tmp_path / "copy", "-o", tmp_path / "again", "--expert", "toy_ct")[0] == NOTHING


@pytest.mark.parametrize("mark", ["ContributingEquipmentSequence", "DerivationDescription"])
def test_one_mark_is_enough(mark: str, sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any) -> None:
    assert sasm("restore", studies / "ct", "-o", tmp_path / "first", "--expert", "toy_ct")[0] == 0
    for path in (tmp_path / "first").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        delattr(dataset, mark)
        dataset.save_as(path)
    code, out, _ = sasm("restore", tmp_path / "first", "-o", tmp_path / "out", "--expert", "toy_ct", "--json")
    assert (code, [row["reason"] for row in rows_of(out)]) == (NOTHING, [AGAIN])


def test_what_no_network_has_changed_is_no_result(sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any) -> None:
    (scan,) = open_images(studies / "ct")
    save(scan.with_array(scan.array + np.float32(8)), tmp_path / "moved")
    (volume,) = open_images(studies / "mr")
    save(volume, tmp_path / "moved")
    foreign = mr_slice(0, ImageType=["DERIVED", "PRIMARY"], DerivationDescription="denoised by Scanner 3")
    save_all([foreign], tmp_path / "moved" / "foreign")
    assert [entry.is_result for entry in inventory(tmp_path / "moved")] == [False] * 3
    assert sasm("restore", tmp_path / "moved", "-o", tmp_path / "out", "--expert", "toy_ct")[0] == 0
    (first,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    again = inventory(first)
    assert [entry.is_result for entry in again] == [True]  # the network came after


def test_results_are_read_and_are_input_of_other_work(
    sasm: Any, studies: Path, tmp_path: Path, toy_restorer: Any
) -> None:
    assert sasm("restore", studies / "ct", "-o", tmp_path / "out", "--expert", "toy_ct")[0] == 0
    (entry,) = inventory(tmp_path / "out")
    assert (entry.refusal, entry.is_result) == (None, True)
    assert any("restoring it again smooths twice" in note for note in entry.load().notes)
    job = BatchJob(tmp_path / "out", tmp_path / "again", Options(expert="toy_ct"), ledger=False)
    assert [task.refusal for task in plan(job)] == [AGAIN]
    assert [task.refusal for task in plan(replace(job, again=True))] == [None]  # as thin, enlarge and inpaint ask


def test_photos_with_drawn_detail_are_not_restored(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
        tmp_path / "in" / "a.png"
    )
    (volume,) = open_images(tmp_path / "in")
    header = png.with_warning(
        volume.source.pixels.header, "enlarged 2 times by x: detail was drawn that nobody measured"
    )
    source = replace(volume.source, path=None, pixels=replace(volume.source.pixels, header=header))
    save(replace(volume, source=source), tmp_path / "in" / "drawn.png")
    code, out, _ = sasm("restore", tmp_path / "in", "-o", tmp_path / "out", "--expert", "toy_photo", "--json")
    assert code == 0
    assert {Path(row["input"]["path"]).name: row["reason"] for row in rows_of(out)} == {
        "a.png": None,
        "drawn.png": AGAIN,
    }
    assert inventory(tmp_path / "in" / "a.png", Modality.PHOTO)[0].is_result is False
