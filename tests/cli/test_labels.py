"""Messages say which file they speak of, where names may be said, and nobody's name where they may not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.plan import plan
from monai_sasm.io import formats
from monai_sasm.io.formats import inventory, open_images
from monai_sasm.restoration.options import Options
from tests.io.dicom.dicom_cases import ct_slice, mr_slice, save, save_all
from tests.io.test_meaning import head, saved


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_files_that_differ_in_their_suffix_are_told_apart(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    folder = pictures(tmp_path / "doe jane", "x.webp", "x.gif", "x.png")
    (folder / "x.jpg").write_bytes(b"")
    code, out, err = sasm("restore", folder, "-o", tmp_path / "out", "--expert", "toy_photo")
    assert code == 8
    for name in ("x.webp", "x.gif", "x.png"):
        assert f"doe jane/{name}: noise" in err
    assert "doe jane/x.jpg: failed: the file is empty" in err
    assert {Path(line).name for line in out.splitlines()} == {"x.webp.png", "x.gif.png", "x.png"}


def test_a_batch_names_nobody(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    folder = pictures(tmp_path / "doe_jane", "roe_mary.png")
    (folder / "poe_ann.jpg").write_bytes(b"")
    _, _, err = sasm("batch", folder, tmp_path / "out", "--expert", "toy_photo", "-v")
    assert not any(name in err for name in ("roe_mary", "poe_ann", "doe_jane"))
    _, _, err = sasm("batch", folder, tmp_path / "named", "--expert", "toy_photo", "-v", "--identify")
    assert "doe_jane/roe_mary.png" in err
    rows = map(json.loads, (tmp_path / "named" / "manifest.jsonl").read_text().splitlines())
    assert {row["input"]["name"] for row in rows} == {"doe_jane/roe_mary.png", "doe_jane/poe_ann.jpg"}


def test_a_series_is_named_by_its_folder_and_a_damaged_slice_by_its_file(tmp_path: Path) -> None:
    folder = save_all([ct_slice(number) for number in range(3)], tmp_path / "chest")
    last = sorted(folder.iterdir())[-1]
    (entry,) = inventory(folder)
    assert entry.label == f"chest/{entry.name}"
    last.write_bytes(last.read_bytes()[:-100])
    assert f"chest/{last.name}" in {one.label for one in inventory(folder)}


def test_ids_of_files_do_not_depend_on_others(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", "pic.png", "pic.webp")

    def ids() -> dict[str, str]:
        return {task.entry.paths[0].name: task.id for task in plan(BatchJob(folder, tmp_path / "out", Options()))}

    before = ids()
    pictures(folder, "pic.gif", "pic.bmp")
    after = ids()
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == 4


def test_what_was_mended_names_the_series(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_all([ct_slice(number, PatientAge="very old") for number in range(2)], tmp_path / "in")
    (volume,) = open_images(tmp_path / "in")
    with caplog.at_level(logging.WARNING):
        formats.save(volume, tmp_path / "out")
    assert f"{volume.name}: values that DICOM does not allow were rewritten or left out" in caplog.text


def test_qualify_asks_for_one_of_what_it_found(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files = [saved(tmp_path / "in" / f"{name}.nii", head()) for name in ("a", "b", "c")]
    code, _, err = sasm("qualify", tmp_path / "in", "-o", tmp_path / "page.html", "--modality", "MR")
    assert code == 2
    assert f"give the folder or file of one: {', '.join(map(str, files))}" in err
    save_all([mr_slice(number, series="one") for number in range(2)], tmp_path / "dicom")
    for number in range(2):
        save(mr_slice(number, series="two"), tmp_path / "dicom" / f"other{number}.dcm")
    code, _, err = sasm("qualify", tmp_path / "dicom", "-o", tmp_path / "page.html")
    assert code == 2
    assert f"they lie in one folder, {tmp_path / 'dicom'}: move each into a folder of its own" in err
