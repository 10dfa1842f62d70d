"""Folders from strangers: links, names in any script, names that are no text, very many files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.plan import plan
from monai_sasm.io.formats import inventory
from monai_sasm.restoration.options import Options
from tests.data import CHECKOUT
from tests.hostile.intact import Intact, intact_files
from tests.hostile.laws import contents, restored

CROWD = int(os.environ.get("SASM_CROWD", "3000"))
LINKS_LEAVE = "a symbolic link that leads out"
NAMES = (
    "Müller, Jürgen",
    "Иванов",
    "山田^太郎",
    "محمد",
    "e\u0301 and \u00e9",  # one letter, two spellings
    "\u202egnp.exe",  # right to left override
    "line\nbreak",
    "-rf",
    "$(touch owned)",
    "%s%n{0}",
    "a" * 200,
    "..scan..",
    " ",
)


def intact(name: str) -> Intact:
    return next(one for one in intact_files() if one.name == name)


def write(name: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(intact(name).pack(intact(name).content))
    return path


def test_links_are_followed_inside_and_refused_outside(trust: Path, tmp_path: Path) -> None:
    secret = write("png.png", tmp_path / "elsewhere" / "secret.png")
    source = tmp_path / "in"
    write("png.png", source / "deep" / "mine.png")
    (source / "within.png").symlink_to("deep/mine.png")
    (source / "dots.png").symlink_to("deep/../../elsewhere/secret.png")
    (source / "absolute.png").symlink_to(secret)
    (source / "folder").symlink_to(secret.parent)
    (source / "up").symlink_to("..")
    (source / "loop.png").symlink_to("loop.png")
    (source / "lost.png").symlink_to("nowhere.png")
    before = contents(tmp_path / "elsewhere")
    rows = restored(source, tmp_path / "out", trust, identify=True)
    told = {Path(row["input"]["path"]).name: row for row in rows}
    assert {name for name, row in told.items() if row["status"] == "ok"} == {"mine.png", "within.png"}
    refused = {"dots.png", "absolute.png", "folder", "up"}
    assert all(told[name]["reason"].startswith(LINKS_LEAVE) for name in refused)
    assert all("leads nowhere" in told[name]["reason"] for name in ("loop.png", "lost.png"))
    assert contents(tmp_path / "elsewhere") == before
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {"mine.png", "within.png"}


def test_a_result_never_goes_through_a_link_onto_its_source(trust: Path, tmp_path: Path) -> None:
    write("png.png", tmp_path / "in" / "scan" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan").symlink_to(tmp_path / "in" / "scan")
    rows = restored(tmp_path / "in", tmp_path / "out", trust, overwrite=True)
    assert [row["status"] for row in rows] == ["skipped"]
    assert "onto its source" in rows[0]["reason"]


@pytest.mark.parametrize("kind", ["png.png", "single.dcm", "sub-1_T1w.nii"])
def test_names_in_any_script_are_kept(kind: str, trust: Path, tmp_path: Path) -> None:
    suffix = Path(kind).suffix
    for name in NAMES:
        write(kind, tmp_path / "in" / name / f"{name}_T1w{suffix}")
    rows = restored(tmp_path / "in", tmp_path / "out", trust)
    done = sum(row["status"] == "ok" for row in rows)
    assert len(rows) == len(NAMES)
    if kind == "single.dcm":
        assert done == 1
        assert sum("same SOP Instance UID" in str(row["reason"]) for row in rows) == len(NAMES) - 1
    else:
        assert done == len(NAMES)
        assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == set(NAMES)
    assert not list(Path.cwd().glob("owned*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no names that are no text")
@pytest.mark.parametrize("kind", ["png.png", "single.dcm", "sub-1_T1w.nii"])
def test_names_that_are_no_text_are_kept(kind: str, trust: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe scan")
    write(kind, tmp_path / "in" / name / f"{name}_T1w{Path(kind).suffix}")
    rows = restored(tmp_path / "in", tmp_path / "out", trust, identify=True)
    assert [row["status"] for row in rows] == ["ok"]
    assert (tmp_path / "out" / name).is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no names that are no text")
def test_names_that_are_no_text_can_be_printed(trust: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff scan")
    write("png.png", tmp_path / "in" / f"{name}.png")
    command = [
        sys.executable,
        "-m",
        "monai_sasm.cli.main",
        "batch",
        "in",
        "out",
        "--trust",
        trust,
        "--expert",
        "toy_photo",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert os.fsencode(name) in done.stdout


def test_a_folder_that_cannot_be_looked_into_is_told(
    trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("png.png", tmp_path / "in" / "a.png")
    write("png.png", tmp_path / "in" / "locked" / "b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)  # tests may run as root, who may look into anything
    entries = inventory(tmp_path / "in")
    assert [entry.refusal for entry in entries if entry.paths[0].name == "a.png"] == [None]
    (locked,) = [entry for entry in entries if entry.paths[0].name == "locked"]
    assert "cannot be looked into" in str(locked.refusal)


def test_pipes_and_devices_are_not_read(trust: Path, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    write("png.png", tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "endless.png").symlink_to("/dev/zero")
    rows = restored(tmp_path / "in", tmp_path / "out", trust)
    assert sorted(row["status"] for row in rows) == ["ok", "skipped"]


def test_a_crowd_of_files_is_planned_in_linear_time(tmp_path: Path) -> None:
    """``SASM_CROWD=100000`` for the number that clinics have."""
    source = tmp_path / "in"
    kinds = [one for one in intact_files() if one.name in ("png.png", "single.dcm", "sub-1_T1w.nii", "bmp.bmp")]
    for number in range(CROWD):
        one = kinds[number % len(kinds)]
        folder = source / f"{number // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}_T1w{Path(one.name).suffix}").write_bytes(one.content)
    started = time.process_time()
    planned = plan(BatchJob(source, tmp_path / "out", Options()))
    seconds = time.process_time() - started
    print(f"{CROWD} files planned in {seconds:.1f} s")
    shutil.rmtree(source)
    files = sum(len(task.entry.paths) for task in planned)
    assert files >= 3 * CROWD // 4  # of the DICOM files, one and its copies
    assert seconds < 0.01 * CROWD
