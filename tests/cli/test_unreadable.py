"""Exit codes and statuses of inputs that could not be read, beside those that are rightly passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io import formats
from monai_sasm.io.dicom import header
from tests.data import ct_small
from tests.io.dicom.dicom_cases import ct_slice, save, save_all
from tests.io.test_meaning import head, saved

ALL_FAILED, SOME_FAILED, NOTHING = 4, 8, 3


def truncated_series(folder: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], folder)
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-200])


def empty_slice(folder: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], folder)
    sorted(folder.iterdir())[-1].write_bytes(b"")


def zeros_for_a_slice(folder: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], folder)
    last = sorted(folder.iterdir())[-1]
    last.rename(last.with_suffix(""))
    for file in folder.glob("*.dcm"):
        file.rename(file.with_suffix(""))
    last.with_suffix("").write_bytes(bytes(5000))


def truncated_photo(folder: Path) -> None:
    folder.mkdir()
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:20])


def empty_photo(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"")


def short_volume(folder: Path) -> None:
    folder.mkdir()
    path = saved(folder / "sub-1_T1w.nii", head())
    path.write_bytes(path.read_bytes()[:1000])


def dangling_link(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").symlink_to(folder / "annex" / "gone")


DAMAGES = {
    one.__name__: one
    for one in (
        truncated_series,
        empty_slice,
        zeros_for_a_slice,
        truncated_photo,
        empty_photo,
        short_volume,
        dangling_link,
    )
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_has_failed(damage: str, sasm: Any, tmp_path: Path) -> None:
    DAMAGES[damage](tmp_path / "in")
    for dry in ((), ("--dry-run",)):
        code, out, _ = sasm("restore", tmp_path / "in", "-o", tmp_path / "out", "--json", *dry)
        rows = [json.loads(line) for line in out.splitlines()]
        assert {row["status"] for row in rows} == {"failed"}, rows
        assert {row["error"] for row in rows} == {"UnreadableError"}
        assert code == ALL_FAILED
    with pytest.raises(UnreadableError):
        formats.inventory(tmp_path / "in")[0].load()


def test_a_dry_run_tells_what_the_run_would(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "nothing.nii", np.full((8, 9, 10), np.nan))
    saved(tmp_path / "in" / "brain.nii", head())
    command = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--modality", "MR", "--expert", "toy_mr")
    code, out, _ = sasm(*command, "--dry-run")
    assert code == SOME_FAILED
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["restore", "fail"]
    code, out, err = sasm(*command, "--json")
    assert code == SOME_FAILED
    assert {row["status"] for row in map(json.loads, out.splitlines())} == {"ok", "failed"}
    assert "all voxels are NaN" in err


def test_batch_counts_and_lists_what_cannot_be_read(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    truncated_series(tmp_path / "in" / "cut")
    save_all([ct_slice(number, series="other") for number in range(3)], tmp_path / "in" / "whole")
    command = ("batch", tmp_path / "in", tmp_path / "out", "--expert", "toy_ct")
    code, _, err = sasm(*command)
    assert code == SOME_FAILED
    assert "1 restored" in err
    assert "2 failed" in err  # the slice, and the series with a hole
    assert "so it would have a hole" in err
    assert "passed over" not in err
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert sorted(row["status"] for row in rows) == ["failed", "failed", "ok"]


def test_what_is_rightly_passed_over_is_no_failure(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    scout = ct_slice(0, series="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(scout, tmp_path / "in" / "scout.dcm")
    saved(tmp_path / "in" / "unsaid.nii", head())
    (tmp_path / "in" / "report.pdf").write_bytes(b"%PDF-1.4")
    code, out, _ = sasm("restore", tmp_path / "in", "-o", tmp_path / "out", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == NOTHING
    assert {row["status"] for row in rows} == {"skipped"}
    with pytest.raises(RefusedError) as refused:
        formats.inventory(tmp_path / "in" / "scout.dcm")[0].load()
    assert not isinstance(refused.value, UnreadableError)


def test_a_slice_that_cannot_be_opened_leaves_a_hole(
    sasm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_all([ct_slice(number) for number in range(4)], tmp_path / "in")
    locked = sorted((tmp_path / "in").iterdir())[-1]  # at the end: no gap tells
    opened, claimed = header.FileIO, formats.open_plain

    def refusing(path: Any, *rest: Any) -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)

    def refusing_plain(path: Any) -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return claimed(path)

    monkeypatch.setattr(header, "FileIO", refusing)
    monkeypatch.setattr(formats, "open_plain", refusing_plain)
    code, out, _ = sasm("restore", tmp_path / "in", "-o", tmp_path / "out", "--json")
    assert code == ALL_FAILED
    reasons = [json.loads(line)["reason"] for line in out.splitlines()]
    assert len(reasons) == 2
    assert any("1 file(s) beside it cannot be read and may be slices of it" in reason for reason in reasons)
    assert any("cannot be opened (Permission denied)" in reason for reason in reasons)
    assert not (tmp_path / "out").exists()


def test_files_that_are_named_otherwise_are_no_lost_slices(tmp_path: Path) -> None:
    folder = save_all([ct_slice(number) for number in range(3)], tmp_path / "in")
    for name in ("notes.txt", "DONE", ".DS_Store", "._ct.dcm", "list.json"):
        (folder / name).write_bytes(b"")
    usable = [entry for entry in formats.inventory(folder) if entry.refusal is None]
    assert [len(entry.paths) for entry in usable] == [3]


def test_python_tells_what_could_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(Path(ct_small()).read_bytes()[:-3000])
    (entry,) = formats.inventory(path)
    assert entry.unreadable
    with pytest.raises(UnreadableError, match="truncated"):
        entry.load()
