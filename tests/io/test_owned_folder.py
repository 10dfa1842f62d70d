"""What a killed process left is removed by the next one; what somebody may still be writing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from monai_sasm.io import owned_folder
from monai_sasm.io.commit import WORKING, replacing
from monai_sasm.io.owned_folder import OwnedFolder, remove_abandoned
from monai_sasm.io.placing import staged
from tests.data import CHECKOUT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
WORK = """
import sys, time
from pathlib import Path
from monai_sasm.io.commit import replacing, replacing_folder
from monai_sasm.io.owned_folder import OwnedFolder
from monai_sasm.io.placing import staged
place = Path(sys.argv[1])
view = OwnedFolder(place, "sasm-view-")
with staged(place) as aside, replacing(place / "a.png") as file, replacing_folder(place / "series") as series:
    for path in (aside / "head.nii.gz", series / "IM0001.dcm", view.path / "photo.png"):
        path.write_bytes(b"voxels")
    file.write(b"pixels")
    file.flush()
    print("under way", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def every_look_is_the_first() -> None:
    owned_folder._remove_abandoned.cache_clear()


@contextmanager
def working(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of its work."""
    with subprocess.Popen(
        [sys.executable, "-c", WORK, place],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        try:
            yield process
        finally:
            process.kill()


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def look(place: Path) -> list[str]:
    """What is left after another process has begun its work there."""
    owned_folder._remove_abandoned.cache_clear()
    with replacing(place / "b.png") as file:
        file.write(b"pixels")
    remove_abandoned(place, "sasm-view-")
    (place / "b.png").unlink()
    return names(place)


def killed(place: Path) -> Path:
    """A folder that a killed process left."""
    with working(place) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return next(place.glob("sasm-view-*"))


def test_what_is_under_way_stays_until_its_process_is_killed(tmp_path: Path) -> None:
    with working(tmp_path) as process:
        before = names(tmp_path)
        assert [name[:6] for name in before] == [WORKING] * 3 + ["sasm-v"]
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o700}
        assert look(tmp_path) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert names(tmp_path) == before
    assert look(tmp_path) == []


def test_two_of_one_process_do_not_meet(tmp_path: Path) -> None:
    with closing(OwnedFolder(tmp_path, "x-")) as one:
        owned_folder._remove_abandoned.cache_clear()
        with closing(OwnedFolder(tmp_path, "x-")):
            assert one.path.is_dir()
    assert names(tmp_path) == []


def test_what_another_machine_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(tmp_path)
    before = names(tmp_path)
    monkeypatch.setattr(owned_folder, "_here", lambda: b"another")
    assert look(tmp_path) == before


def test_what_was_disowned_stays(tmp_path: Path) -> None:
    with staged(tmp_path) as aside:
        (aside.parent / "old").mkdir()
        (aside.parent / "old" / "0").write_text("what could not be moved back")
    (left,) = tmp_path.iterdir()
    assert names(left) == ["old"]
    assert look(tmp_path) == [left.name]


@pytest.mark.parametrize("name", [".sasm-batch", ".sasm-0123456789abcdef.old", "sasm-view-", "sasm-view-mine", "else"])
def test_what_has_another_name_stays(name: str, tmp_path: Path) -> None:
    killed(tmp_path).rename(tmp_path / name)
    assert look(tmp_path) == [name]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "elsewhere").mkdir()
    elsewhere = killed(tmp_path / "elsewhere")
    mine, abandoned = tmp_path / "mine", killed(tmp_path / "temporary")
    mine.mkdir()
    (mine / "thesis.txt").touch()
    (tmp_path / "temporary" / elsewhere.name).symlink_to(elsewhere)
    (abandoned / "way").symlink_to(mine)
    assert look(tmp_path / "temporary") == [elsewhere.name]
    assert (elsewhere / "photo.png").read_bytes() == b"voxels"
    assert names(mine) == ["thesis.txt"]


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_an_owner_that_is_a_link_speaks_for_nothing(kind: str, tmp_path: Path) -> None:
    folder = killed(tmp_path)
    (folder / "owner").rename(tmp_path / "note")
    (folder / "owner").symlink_to(tmp_path / "note") if kind == "symbolic" else os.link(
        tmp_path / "note", folder / "owner"
    )
    assert folder.name in look(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("what", [".", "owner"])
def test_what_another_user_owns_stays(what: str, tmp_path: Path) -> None:
    folder = killed(tmp_path)
    os.chown(folder / what, 12345, -1)
    assert folder.name in look(tmp_path)


def test_a_file_system_without_locks_keeps_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, *, wait: bool = False) -> None:
        raise OSError("not implemented")

    monkeypatch.setattr(owned_folder, "lock", refuse)
    folder = OwnedFolder(tmp_path, "x-")
    monkeypatch.undo()
    folder._owner.close()  # as of a process that is gone
    owned_folder._remove_abandoned.cache_clear()
    remove_abandoned(tmp_path, "x-")
    assert folder.path.is_dir()


def test_a_folder_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    monkeypatch.setattr(owned_folder.os, "listdir", lambda path: listed.append(path) or [])
    for _ in range(3):
        with closing(OwnedFolder(tmp_path, "x-")):
            pass
    assert listed == [tmp_path]
