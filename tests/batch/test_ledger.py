"""The ledger: a result is committed once, whole, whatever happens in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.batch import ledger as room
from monai_sasm.batch import moving
from monai_sasm.batch.ledger import Ledger
from monai_sasm.errors import RefusedError
from monai_sasm.io import commit


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "out")
    made.open()
    return made


def record(run: str = "run", key: str = "key", token: str = "first") -> dict[str, Any]:
    return {"key": key, "row": {"run": run, "commit": token}}


def stage(ledger: Ledger, files: dict[str, str], identity: str = "id", **more: Any) -> dict[str, Any]:
    """Write files into a staging folder and commit them."""
    with ledger.staging("run", identity) as staged:
        for name, text in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_text(text)
        overwrite = more.pop("overwrite", False)
        return ledger.commit(identity, staged, record(**more), overwrite=overwrite)


def test_files_and_series_folders_arrive_with_their_record(ledger: Ledger) -> None:
    files = {"a/CT/IM0001.dcm": "1", "a/CT/IM0002.dcm": "2", "a/CT_change.nii.gz": "3"}
    stage(ledger, files)
    assert {name: (ledger.output / name).read_text() for name in files} == files
    found = ledger.record("id")
    assert found is not None
    assert list(found["units"]) == ["a/CT", "a/CT_change.nii.gz"]
    assert not list((ledger.folder / "staging" / "run").iterdir())
    assert not list((ledger.folder / "ready").iterdir())


@pytest.mark.parametrize("moment", ["mark", "replacing"])
def test_of_two_that_open_it_together_none_is_refused(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other opens it after this one has looked for the mark, or while this one writes it."""
    ours, other = Ledger(tmp_path / "out"), Ledger(tmp_path / "out")
    met: list[int] = []
    before: dict[str, Callable[..., Any]] = {"mark": Ledger._mark, "replacing": room.replacing}

    def meeting(*arguments: Any) -> Any:
        found = before[moment](*arguments)
        if not met:
            met.append(1)
            if moment == "mark":
                other.open()
            else:
                with found as file:
                    other.open()
                    file.write(b"cut off")
                return before[moment](*arguments)
        return found

    if moment == "mark":
        monkeypatch.setattr(Ledger, "_mark", meeting)
    else:
        monkeypatch.setattr(room, "replacing", meeting)
    ours.open()
    assert met
    assert {one.name for one in ours.folder.iterdir()} == {"made-here", "starts", "staging", "ready", "done"}


def test_what_a_crash_left_of_the_mark_is_not_foreign(tmp_path: Path) -> None:
    (tmp_path / "out" / ".sasm-batch").mkdir(parents=True)
    (tmp_path / "out" / ".sasm-batch" / ".sasm-0123456789abcdef.tmp").touch()
    Ledger(tmp_path / "out").open()
    assert (tmp_path / "out" / ".sasm-batch" / "made-here").exists()


def test_an_error_while_writing_leaves_nothing(ledger: Ledger) -> None:
    def half() -> None:
        with ledger.staging("run", "id") as staged:
            (staged / "half.png").write_text("half")
            raise MemoryError

    with pytest.raises(MemoryError):
        half()
    assert not list((ledger.folder / "staging" / "run").iterdir())
    assert ledger.record("id") is None


def test_a_second_execution_of_one_run_changes_nothing(ledger: Ledger) -> None:
    stage(ledger, {"a.png": "first"})
    second = stage(ledger, {"a.png": "second"}, token="second")
    assert second["row"]["commit"] == "first"
    assert (ledger.output / "a.png").read_text() == "first"


def test_a_crash_between_commit_and_moving_is_made_up_for(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []

    def one_then_die(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        os.replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(room, "move_to_free", one_then_die)
        with pytest.raises(KeyboardInterrupt):
            stage(ledger, {"a.nii.gz": "voxels", "a.json": "sidecar"})
    assert ledger.record("id") is None
    assert [path.name for path in ledger.output.iterdir() if path.is_file()] == ["a.json"]
    ledger.recover()
    assert (ledger.output / "a.nii.gz").read_text() == "voxels"
    assert ledger.record("id") is not None
    assert not list((ledger.folder / "ready").iterdir())


def test_a_crash_before_the_commit_leaves_no_trace(ledger: Ledger) -> None:
    left = ledger.folder / "staging" / "dead" / "id-1" / "files"
    left.mkdir(parents=True)
    (left / "a.png").write_text("half")
    ledger.recover()
    assert not list((ledger.folder / "staging").iterdir())
    assert [path.name for path in ledger.output.iterdir()] == [room.FOLDER]


def test_what_another_run_threw_away_is_not_committed_in_part(ledger: Ledger) -> None:
    """A worker goes on after its head was killed, while the head that comes next clears up."""
    with ledger.staging("run", "id") as staged:
        (staged / "x.nii.gz").write_text("voxels")
        ledger.recover()
        staged.mkdir(parents=True, exist_ok=True)  # as writers do
        (staged / "x_change.nii.gz").write_text("map")
        with pytest.raises(RefusedError, match="took this one for dead"):
            ledger.commit("id", staged, record())
    assert [path.name for path in ledger.output.iterdir()] == [room.FOLDER]
    assert not list((ledger.folder / "ready").iterdir())


def test_a_slice_that_comes_while_the_others_are_thrown_away_is_no_series(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger.staging("run", "id") as staged:
        (staged / "CT").mkdir()
        (staged / "CT" / "IM0001.dcm").write_text("1")

        def remove(folder: Path, **_: Any) -> None:  # a folder with a new file in it cannot be deleted
            for path in folder.rglob("*.dcm"):
                path.unlink()
            with suppress(FileNotFoundError):
                (staged / "CT" / "IM0002.dcm").write_text("2")

        with monkeypatch.context() as patched:
            patched.setattr(room.shutil, "rmtree", remove)
            ledger.recover()
        with pytest.raises((RefusedError, FileNotFoundError)):
            ledger.commit("id", staged, record())
    assert [path.name for path in ledger.output.iterdir()] == [room.FOLDER]


def test_what_is_not_ours_is_not_replaced(ledger: Ledger) -> None:
    (ledger.output / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        stage(ledger, {"a.png": "result"})
    assert (ledger.output / "a.png").read_text() == "mine"
    stage(ledger, {"a.png": "result"}, overwrite=True)
    assert (ledger.output / "a.png").read_text() == "result"


def test_a_folder_is_never_replaced_by_a_file(ledger: Ledger) -> None:
    (ledger.output / "a.png").mkdir()
    (ledger.output / "a.png" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no result of this kind"):
        stage(ledger, {"a.png": "result"}, overwrite=True)
    assert (ledger.output / "a.png" / "mine.txt").read_text() == "mine"


def test_a_shorter_series_replaces_a_longer_one_whole(ledger: Ledger) -> None:
    stage(ledger, {"CT/IM0001.dcm": "old 1", "CT/IM0002.dcm": "old 2"}, run="earlier")
    (ledger.output / "CT" / "notes.txt").write_text("mine")
    stage(ledger, {"CT/IM0001.dcm": "new"}, key="other")
    assert {path.name: path.read_text() for path in (ledger.output / "CT").iterdir()} == {
        "IM0001.dcm": "new",
        "notes.txt": "mine",
    }


@pytest.mark.parametrize("moment", range(6))
def test_a_crash_while_a_series_is_replaced_loses_no_slice(
    moment: int, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of the steps: three slices take their places, the fourth goes, the record follows, or nothing."""
    old, new = ({f"IM000{number}.dcm": text for number in range(1, last)} for text, last in (("old", 5), ("new", 4)))
    stage(ledger, {f"CT/{name}": text for name, text in old.items()}, run="earlier")
    steps: list[str] = []

    def dies(what: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **keywords: Any) -> Any:
            if "done" in str(arguments[-1]) or "CT" in str(arguments[-1]):
                steps.append(what)
                if len(steps) > moment:
                    raise KeyboardInterrupt
            return step(*arguments, **keywords)

        return instead

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies("replace", os.replace))
        patch.setattr(Path, "unlink", dies("unlink", Path.unlink))
        with pytest.raises(KeyboardInterrupt) if moment < 5 else nullcontext():
            stage(ledger, {f"CT/{name}": text for name, text in new.items()}, key="other")
    assert steps == ["replace", "replace", "replace", "unlink", "replace"][: moment + 1]
    place = ledger.output / "CT"
    assert {path.name for path in place.iterdir()} >= set(new), "each slice is there all the time"
    ledger.recover()
    assert {path.name: path.read_text() for path in place.iterdir()} == new
    found = ledger.record("id")
    assert found is not None
    assert found["key"] == "other"
    assert not list((ledger.folder / "ready").iterdir())


EARLIER = {"S1#a.dcm": "1", "x.nii.gz": "1", "x_change.nii.gz": "1", "CT/IM0001.dcm": "1", "CT/IM0002.dcm": "1"}


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and room.FOLDER not in path.parts
    }


def test_what_only_the_earlier_result_had_is_deleted(ledger: Ledger) -> None:
    stage(ledger, EARLIER)
    (ledger.output / "report.txt").write_text("the user's")
    stage(ledger, {"S2#a.dcm": "2", "x.nii.gz": "2"}, key="other", run="next", overwrite=True)
    assert files_in(ledger.output) == {"S2#a.dcm": "2", "x.nii.gz": "2", "report.txt": "the user's"}
    assert not (ledger.output / "CT").exists()


def test_what_was_changed_after_the_earlier_result_is_not_deleted(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    stage(ledger, EARLIER)
    time.sleep(0.05)  # of the clock of a file system
    (ledger.output / "x_change.nii.gz").write_text("edited")
    (ledger.output / "CT" / "note.txt").write_text("the user's")
    own = ledger.output.parent / "own.dcm"
    own.write_text("own")
    os.utime(own, (0, 0))
    own.replace(ledger.output / "CT" / "IM0002.dcm")  # however old its content is
    stage(ledger, {"S1#a.dcm": "other task"}, identity="other", overwrite=True)
    stage(ledger, {"y.nii.gz": "2"}, key="other", run="next", overwrite=True)
    assert files_in(ledger.output) == {
        "S1#a.dcm": "other task", "x_change.nii.gz": "edited", "CT/note.txt": "the user's", "CT/IM0002.dcm": "own",
        "y.nii.gz": "2",
    }  # fmt: skip
    assert "3 file(s) of its earlier result" in caplog.text
    assert "S1#a" not in caplog.text, "names may be of patients"


def test_a_crash_while_the_earlier_result_is_deleted_is_made_up_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(ledger, EARLIER)
    removed, calls = room.removed, []

    def crash(file: Path, until: int) -> bool:
        calls.append(file)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return removed(file, until)

    monkeypatch.setattr(room, "removed", crash)
    with pytest.raises(KeyboardInterrupt):
        stage(ledger, {"x.nii.gz": "2"}, key="other", run="next", overwrite=True)
    monkeypatch.setattr(room, "removed", removed)
    assert len(files_in(ledger.output)) == 3
    Ledger(ledger.output).recover()
    assert files_in(ledger.output) == {"x.nii.gz": "2"}
    found = ledger.record("id")
    assert found is not None
    assert found["key"] == "other"


def test_a_result_of_which_some_was_removed_is_still_ours(ledger: Ledger) -> None:
    stage(ledger, {"a.png": "result", "a_change.png": "map"}, run="earlier")
    (ledger.output / "a.png").unlink()
    stage(ledger, {"a.png": "again", "a_change.png": "map again"}, key="other")
    assert (ledger.output / "a.png").read_text() == "again"
    assert (ledger.output / "a_change.png").read_text() == "map again"


def test_a_record_without_its_files_does_not_count(ledger: Ledger) -> None:
    stage(ledger, {"a.png": "result"})
    (ledger.output / "a.png").unlink()
    assert ledger.record("id") is None


def test_starts_are_counted_until_an_end(ledger: Ledger) -> None:
    assert ledger.deaths("id") == 0
    assert [ledger.start("id") for _ in range(3)] == [1, 2, 3]
    assert ledger.deaths("id") == 3
    ledger.end("id")
    ledger.end("id")
    assert ledger.deaths("id") == 0
    assert ledger.start("id") == 1


@pytest.mark.parametrize("unit", ["a.png", "CT"])
def test_what_comes_after_the_commit_is_not_replaced(
    unit: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, settle = ledger.output / unit, Ledger.settle
    name = "IM0001.dcm" if unit == "CT" else ""

    def late(self: Ledger, identity: str) -> None:
        if (self.folder / "ready" / identity).exists():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text("mine")
        settle(self, identity)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settle", late)
        with pytest.raises(FileExistsError, match="overwrite=True"):
            stage(ledger, {f"{unit}/IM0001.dcm" if name else unit: "result"})
    assert (place / name).read_text() == "mine"
    assert ledger.record("id") is None
    assert not list((ledger.folder / "ready").iterdir()), "the next run starts anew"
    if not name:
        stage(ledger, {unit: "result"}, overwrite=True)
        assert place.read_text() == "result"


def test_a_result_and_its_record_are_synced_where_they_lie(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, list[str]]] = []

    def noted(folder: Path) -> None:
        seen.append((folder, [path.name for path in folder.iterdir()]))

    monkeypatch.setattr(room, "sync", noted)
    monkeypatch.setattr(commit, "sync", lambda path: noted(path) if path.is_dir() else None)
    stage(ledger, {"new/CT/IM0001.dcm": "1", "new/a.png": "2"})
    names = dict(seen)
    assert set(names[ledger.output / "new"]) == {"CT", "a.png"}
    assert "new" in names[ledger.output]
    assert [folder for folder, _ in seen][-1] == ledger.folder / "done", "the record counts when the result is safe"
    assert names[ledger.folder / "done"] == ["id.json"]


DICOM = {"CT/IM0001.dcm": "1", "CT/IM0002.dcm": "2", "CT/IM0003.dcm": "3"}


@pytest.mark.parametrize("known", [True, False])
def test_dicom_files_of_others_are_never_deleted(ledger: Ledger, known: bool) -> None:
    """Neither beside an earlier result, nor in a folder of which nothing is recorded."""
    if known:
        stage(ledger, DICOM, run="earlier")
    place = ledger.output / "CT"
    place.mkdir(exist_ok=True)
    (place / "IM0007.dcm").write_text("mine")
    with nullcontext() if known else pytest.raises(FileExistsError, match="not written by this program"):
        stage(ledger, {"CT/IM0001.dcm": "new"}, key="other", overwrite=True)
    new = {"CT/IM0001.dcm": "new"} if known else {}
    assert files_in(ledger.output) == new | {"CT/IM0007.dcm": "mine"}


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_slice_that_a_user_put_there_is_not_replaced(ledger: Ledger, overwrite: bool) -> None:
    stage(ledger, DICOM, run="earlier")
    time.sleep(0.05)
    (ledger.output / "CT" / "IM0002.dcm").write_text("mine")
    told = "not written by this program" if overwrite else "was changed since it was made"
    with pytest.raises(FileExistsError, match=told):
        stage(ledger, DICOM, key="other", overwrite=overwrite)
    assert files_in(ledger.output) == DICOM | {"CT/IM0002.dcm": "mine"}


def test_folders_that_hold_only_results_are_replaced_as_a_whole(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (room, moving):
        monkeypatch.setattr(module, "is_result", lambda path: path.suffix == ".dcm")
    place = ledger.output / "CT"
    place.mkdir()
    for number in range(4):
        (place / f"IM000{number + 1}.dcm").write_text("of sasm restore")
    stage(ledger, DICOM, overwrite=True)
    assert files_in(ledger.output) == DICOM


@pytest.mark.parametrize("lost", [["IM0002.dcm"], ["IM0001.dcm", "IM0002.dcm", "IM0003.dcm"]])
def test_a_series_that_lost_slices_is_made_whole(ledger: Ledger, lost: list[str]) -> None:
    stage(ledger, DICOM, run="earlier")
    (ledger.output / "CT" / "notes.txt").write_text("mine")
    for name in lost:
        (ledger.output / "CT" / name).unlink()
    assert ledger.record("id") is None
    assert ledger.record("id", whole=False) is not None
    stage(ledger, DICOM)
    assert files_in(ledger.output) == DICOM | {"CT/notes.txt": "mine"}
    assert ledger.record("id") is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_an_output_is_open_to_nobody_to_whom_the_input_is_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(0o700)
    Ledger(tmp_path / "out").open([tmp_path / "in"])
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
