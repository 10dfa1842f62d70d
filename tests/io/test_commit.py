"""A folder of results is the old or the new one, whatever happens in between, and never loses what is not ours."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io import commit, formats
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom import write as written
from monai_sasm.io.dicom.write import write_file, write_series
from monai_sasm.io.nifti.export import export
from monai_sasm.io.volume import Volume
from monai_sasm.io.walk import files_below
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, index, save, save_all, uid

DERIVATION = Derivation("monai_sasm", "1.0")


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Systems that exchange two names in one step, and systems that do not."""
    if request.param == "two renames":
        monkeypatch.setattr(commit, "_exchange", lambda *_: False)
    return str(request.param)


def folder_of(path: Path, count: int, text: str) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        (path / f"IM{number}").write_text(text)
    return path


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


OLD, NEW = ({f"IM{number}": text for number in range(count)} for count, text in ((4, "old"), (2, "new")))


def replace_by_new(target: Path) -> None:
    with commit.replacing_folder(target, overwrite=True, ours=lambda _: True) as building:
        for name, text in NEW.items():
            (building / name).write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, way: str) -> None:
    target = folder_of(tmp_path / "series", 4, "old")
    (target / ".DS_Store").touch()
    replace_by_new(target)
    assert content(target) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_a_folder_behind_a_link_is_replaced_where_it_is(tmp_path: Path, way: str) -> None:
    real = folder_of(tmp_path / "disk" / "series", 4, "old")
    (tmp_path / "link").symlink_to(real)
    replace_by_new(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert content(real) == NEW


def _die_at(target: Path, step: str, way: str) -> None:
    """In a process of its own: die at a step as if by a power cut, with nothing cleaned up."""
    if way == "two renames":
        commit._exchange = lambda *_: False  # type: ignore[assignment]
    original, calls = os.replace, []

    def replace(source: str, goal: str) -> None:
        calls.append(goal)
        if step == f"rename {len(calls)}":
            os._exit(9)
        original(source, goal)

    os.replace = replace  # type: ignore[assignment]
    if step == "files":
        commit.sync_all = lambda _: os._exit(9)  # type: ignore[assignment]
    if step == "deletion":
        commit.sync = lambda _: os._exit(9) if content(target) == NEW else None  # type: ignore[assignment]
    replace_by_new(target)
    os._exit(0)


@pytest.mark.parametrize(
    ("step", "way", "left"),
    [
        *(("files", way, OLD) for way in ("exchange", "two renames")),
        *(("deletion", way, NEW) for way in ("exchange", "two renames")),
        ("rename 1", "two renames", OLD),
        ("rename 2", "two renames", None),  # put aside, found again
    ],
)
def test_a_kill_leaves_the_old_or_the_new(step: str, way: str, left: dict[str, str] | None, tmp_path: Path) -> None:
    target = folder_of(tmp_path / "series", 4, "old")
    process = multiprocessing.get_context("fork").Process(target=_die_at, args=(target, step, way))
    process.start()
    process.join()
    assert process.exitcode == 9
    if left is not None:
        assert content(target) == left
    assert not [file for file, _ in files_below(tmp_path) if file.parent != target], "leftovers are no input"
    with pytest.raises(FileExistsError, match="holds files already"), commit.replacing_folder(target):
        pass
    assert content(target) == (OLD if left is None else left), "the next writer found what lay aside"
    replace_by_new(target)
    assert content(target) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_rename_leaves_the_old(failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_exchange", lambda *_: False)
    target, original, calls = folder_of(tmp_path / "series", 4, "old"), os.replace, []

    def replace(source: str, goal: str) -> None:
        calls.append(goal)
        if len(calls) == failing:
            raise OSError("disk full")
        original(source, goal)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="disk full"):
        replace_by_new(target)
    assert content(target) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_an_error_of_the_writer_leaves_the_old(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "series", 4, "old")
    with pytest.raises(IsADirectoryError), commit.replacing_folder(target, overwrite=True, ours=lambda _: True) as new:
        new.write_text("new")
    assert content(target) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def add_note(folder: Path) -> None:
    (folder / "notes.txt").write_text("seen by Dr. Who")


def add_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def add_link(folder: Path) -> None:
    (folder / "IM9.dcm").symlink_to(folder / "IM0001.dcm")


def add_foreign_slice(folder: Path) -> None:
    save(ct_slice(7), folder / "foreign.dcm")


@pytest.mark.parametrize("add", [add_note, add_folder, add_link, add_foreign_slice])
def test_what_this_program_did_not_write_is_never_deleted(add: Callable[[Path], None], tmp_path: Path) -> None:
    (entry,) = index(save_all([ct_slice(number) for number in range(3)], tmp_path / "source"))
    files = write_series(entry.load(), tmp_path / "out", DERIVATION)
    add(tmp_path / "out")
    before = sorted((path.name, path.lstat().st_mtime_ns) for path in (tmp_path / "out").iterdir())
    with pytest.raises(FileExistsError, match="1 of the 4 files and folders in it were not written by this program"):
        write_series(entry.load(), tmp_path / "out", DERIVATION, overwrite=True)
    assert sorted((path.name, path.lstat().st_mtime_ns) for path in (tmp_path / "out").iterdir()) == before
    assert len(files) == 3


@pytest.mark.parametrize("software", ["monai_sasm", "A tool of my own"])
def test_a_shorter_series_leaves_nothing_of_a_longer_one(software: str, tmp_path: Path) -> None:
    (long,) = index(save_all([ct_slice(number) for number in range(8)], tmp_path / "long"))
    other = [ct_slice(number, SeriesInstanceUID=uid("another series")) for number in range(3)]
    (short,) = index(save_all(other, tmp_path / "short"))
    derivation = Derivation(software, "1.0")
    write_series(long.load(), tmp_path / "out", derivation)
    files = write_series(short.load(), tmp_path / "out", derivation, overwrite=True)
    assert sorted((tmp_path / "out").iterdir()) == files == [tmp_path / "out" / f"IM000{n}.dcm" for n in (1, 2, 3)]
    (result,) = index(tmp_path / "out")
    assert result.load().array.shape[1] == 3


def test_a_writer_that_fails_keeps_the_older_result(tmp_path: Path) -> None:
    (entry,) = index(save_all([ct_slice(number) for number in range(3)], tmp_path / "source"))
    volume = entry.load()
    files = write_series(volume, tmp_path / "out", DERIVATION)
    before = [file.read_bytes() for file in files]
    save(ct_slice(2, SOPInstanceUID=uid("someone else")), volume.source.paths[2])
    with pytest.raises(RefusedError, match="changed since it was read"):
        write_series(volume, tmp_path / "out", DERIVATION, overwrite=True)
    assert [file.read_bytes() for file in files] == before
    assert sorted((tmp_path / "out").iterdir()) == files


def no_links(*_: object) -> None:
    raise PermissionError("this file system knows one name for each file")


def grey_volume() -> Volume:
    return Volume(np.zeros((1, 3, 8, 8), np.float32), Modality.MR, np.eye(4), 0, "grey")


def write_nifti(path: Path, overwrite: bool) -> Path:
    formats.write(grey_volume(), path / "a.nii.gz", DERIVATION, overwrite=overwrite)
    return path / "a.nii.gz"


def write_nrrd(path: Path, overwrite: bool) -> Path:
    formats.write(grey_volume(), path / "a.nrrd", DERIVATION, overwrite=overwrite)
    return path / "a.nrrd"


def write_map(path: Path, overwrite: bool) -> Path:
    return export(np.zeros((3, 8, 8), np.float32), grey_volume(), path / "a.nii", overwrite=overwrite)


def write_photo(path: Path, overwrite: bool) -> Path:
    photo = Volume(np.zeros((1, 8, 8), np.float32), Modality.PHOTO, None, 0, "grey")
    formats.write(photo, path / "a.png", DERIVATION, overwrite=overwrite)
    return path / "a.png"


def write_slice(path: Path, overwrite: bool) -> Path:
    source = save(ct_slice(0), (path.parent if path.parent.exists() else path.parent.parent) / "source" / "IM")
    return write_file(index(source)[0].load(), path / "a.dcm", DERIVATION, overwrite=overwrite)


WRITERS = [write_nifti, write_nrrd, write_map, write_photo, write_slice]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("write", WRITERS)
def test_what_comes_while_a_result_is_written_is_not_replaced(
    write: Callable[[Path, bool], Path], links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, original = write(tmp_path / "first", False), os.fsync
    come = tmp_path / "second" / target.name

    def fsync(descriptor: int) -> None:  # the last step before the file gets its name
        if not come.exists():
            come.write_text("mine")
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if not links:
            patch.setattr(os, "link", no_links)
        with pytest.raises(FileExistsError, match="choose another output"):
            write(tmp_path / "second", False)
    assert come.read_text() == "mine"
    assert not [path for path in come.parent.iterdir() if path.name.startswith(commit.WORKING)]
    write(tmp_path / "second", True)
    assert come.read_bytes()[:4] == target.read_bytes()[:4]
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    assert write(tmp_path / "third", False).read_bytes()[:4] == target.read_bytes()[:4]


@pytest.mark.parametrize("write", WRITERS)
def test_the_names_of_a_result_survive_a_power_cut(
    write: Callable[[Path, bool], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder is synced when the new name is in it, those that were made above it included."""
    synced: dict[Path, list[str]] = {}

    def noted(folder: Path) -> None:
        if folder.is_dir():
            synced[folder] = [path.name for path in folder.iterdir()]

    for module in (commit, written):
        monkeypatch.setattr(module, "sync", noted)
    target = write(tmp_path / "new" / "deep", False)
    assert target.name in synced[tmp_path / "new" / "deep"]
    assert "deep" in synced[tmp_path / "new"]
    assert "new" in synced[tmp_path]


def test_a_series_is_synced_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = index(save_all([ct_slice(number) for number in range(5)], tmp_path / "source"))
    folders: list[Path] = []
    original = commit.sync
    monkeypatch.setattr(commit, "sync", lambda path: folders.append(path) if path.is_dir() else original(path))
    write_series(entry.load(), tmp_path / "new" / "out", DERIVATION)
    assert sorted(path for path in folders if commit.WORKING not in str(path)) == [tmp_path, tmp_path / "new"]


def test_what_comes_into_a_folder_while_it_is_replaced_is_not_deleted(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = index(save_all([ct_slice(number) for number in range(3)], tmp_path / "source"))
    write_series(entry.load(), tmp_path / "out", DERIVATION)
    exchange, came = commit._exchange, tmp_path / "out" / "notes.txt"

    def late(left: Path, right: Path) -> bool:
        if not came.exists():
            came.write_text("seen by Dr. Who")
        return exchange(left, right)

    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    monkeypatch.setattr(commit, "_exchange", late)
    with pytest.raises(FileExistsError, match="1 of the 4 files and folders in it were not written by this program"):
        write_series(entry.load(), tmp_path / "out", DERIVATION, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*before, "notes.txt"]
    assert not list(tmp_path.glob(".sasm-*"))


def test_a_folder_that_comes_late_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        add_note(folder_of(target, 2, "mine"))
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(FileExistsError, match="holds files already"), commit.replacing_folder(tmp_path / "out") as new:
        (new / "IM0").write_text("new")
    assert content(tmp_path / "out") == {"IM0": "mine", "IM1": "mine", "notes.txt": "seen by Dr. Who"}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_cannot_sync_folders_is_no_fault_of_the_result(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def of_files_alone(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, "not of folders")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    with pytest.raises(OSError, match="not of folders") if code == errno.EIO else nullcontext():
        write_photo(tmp_path / "out", False)
    assert (tmp_path / "out" / "a.png").is_file()
