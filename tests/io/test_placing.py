"""All files of an image, or none of them: what is in the way is met before anything has moved."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io import placing
from monai_sasm.io.placing import place, staged


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def put(folder: Path, files: dict[str, str], *, overwrite: bool = False) -> None:
    """Write files aside and place them."""
    with staged(folder) as staging:
        for name, text in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(text)
        place(staging, folder, overwrite=overwrite, ours=lambda path: path.suffix == ".dcm")


def test_files_and_series_arrive(tmp_path: Path) -> None:
    files = {"a/CT/IM0001.dcm": "1", "a/CT_change.nii.gz": "map", "b.png": "2"}
    (tmp_path / "a" / "CT").mkdir(parents=True)  # empty, so in nobody's way
    put(tmp_path, files)
    assert contents(tmp_path) == files
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b.png"}


@pytest.mark.parametrize("name", ["a.png", "a_change.png", "CT/old.dcm"])
def test_what_is_in_the_way_keeps_everything_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="choose another output"):
        put(tmp_path, {"a.png": "new", "a_change.png": "new", "CT/IM0001.dcm": "new"})
    assert contents(tmp_path) == {name: "mine"}
    assert not list(tmp_path.glob(".*"))


def test_a_shorter_series_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    put(tmp_path, {f"CT/IM000{number}.dcm": "old" for number in range(1, 5)})
    put(tmp_path, {"CT/IM0001.dcm": "new"}, overwrite=True)
    assert contents(tmp_path) == {"CT/IM0001.dcm": "new"}
    (tmp_path / "CT" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not written by this program"):
        put(tmp_path, {"CT/IM0001.dcm": "newer", "CT_change.nii.gz": "map"}, overwrite=True)
    assert contents(tmp_path) == {"CT/IM0001.dcm": "new", "CT/notes.txt": "mine"}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("failing", ["a.png", "b.png", "c.png", "CT"])
@pytest.mark.parametrize("links", [True, False])
def test_a_move_that_fails_undoes_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, links: bool
) -> None:
    old = {"CT/IM0001.dcm": "old", "CT/IM0002.dcm": "old", "a.png": "old", "b.png": "old"}
    put(tmp_path, old)
    moves = {"replace": os.replace, "move_folder": placing.move_folder}

    def move(kind: str, source: Path, target: Path, **more: Any) -> None:
        if target == tmp_path / failing and not failed:
            failed.append(target)
            raise OSError("the disk has gone")
        moves[kind](source, target, **more)

    def no_links(*_: object) -> None:
        raise OSError("there are no links here")

    failed: list[Path] = []
    new = {"CT/IM0001.dcm": "new", "a.png": "new", "b.png": "new", "c.png": "new"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", partial(move, "replace"))
        patch.setattr(placing, "move_folder", partial(move, "move_folder"))
        if not links:
            patch.setattr(os, "link", no_links)
        with pytest.raises(OSError, match="the disk has gone"):
            put(tmp_path, new, overwrite=True)
    assert contents(tmp_path) == old
    assert not list(tmp_path.glob(".*"))
    assert {path.stat().st_nlink for path in tmp_path.glob("*.png")} == {1}
    put(tmp_path, new, overwrite=True)
    assert contents(tmp_path) == new
    assert not list(tmp_path.glob(".*"))


def test_a_folder_is_no_file_and_a_link_no_place(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(FileExistsError, match="a folder where a file must be"):
        put(tmp_path, {"a.png": "new"}, overwrite=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sub").symlink_to("elsewhere")
    with pytest.raises(RefusedError, match="symbolic link"):
        put(tmp_path, {"sub/b.png": "new"}, overwrite=True)
    assert contents(tmp_path) == {}
