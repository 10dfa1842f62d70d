"""Disks that are full or locked: the run ends with a reason, nothing is half written, and the next one goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.local import in_process
from monai_sasm.batch.manifest import NAME, read
from monai_sasm.batch.plan import plan
from monai_sasm.batch.row import Row
from monai_sasm.batch.run import StoppedError, Summary, run
from monai_sasm.restoration.options import Options
from tests.hostile.laws import contents, restored

SIDE, PICTURES = 64, 6
SMALL = 40  # KiB; each result takes about 12


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures of noise, which no compression makes small."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of :data:`SMALL` KiB; where no disk can be mounted, the test is passed over."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}k", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes Linux and root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def restore(source: Path, output: Path, trust: Path) -> tuple[list[Row], Exception | None]:
    """The rows up to the end of the run, and what ended it early."""
    job = BatchJob(source, output, Options(), device="cpu", trust=(trust,), resume=True)
    planned, rows = plan(job), []
    try:
        for row in run(job, planned, in_process, Summary(len(planned))):
            rows.append(row)
    except (StoppedError, OSError) as error:
        return rows, error
    return rows, None


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(source: Path, disk: Path, trust: Path) -> None:
    before = contents(source)
    rows, ended = restore(source, disk / "out", trust)
    done = [row for row in rows if row["status"] == "ok"]
    assert isinstance(ended, (StoppedError, OSError))
    assert 0 < len(done) < PICTURES
    assert all(row.get("error") == "ENOSPC" for row in rows if row["status"] == "failed")
    whole = sorted((disk / "out").glob("*.png"))
    assert len(whole) == len(done)
    for path in whole:
        Image.open(path).load()
    assert not list((disk / "out").rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    rows, ended = restore(source, disk / "out", trust)
    assert (ended, [row["status"] for row in rows]) == (None, ["ok"] * PICTURES)
    lines = [row for row in read(disk / "out" / NAME) if row["status"] == "ok"]
    assert len({row["input"]["id"] for row in lines}) == len(lines) == PICTURES
    assert contents(source) == before


def test_a_read_only_disk_is_named(source: Path, disk: Path, trust: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(PermissionError, match="lies on a read-only file system; choose another output"):
        restore(source, disk / "out", trust)


def test_an_input_on_a_read_only_disk_is_read(source: Path, disk: Path, trust: Path, tmp_path: Path) -> None:
    shutil.copy(source / "0.png", disk / "0.png")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert [row["status"] for row in restored(disk, tmp_path / "out", trust)] == ["ok"]


def test_the_input_may_be_write_protected(source: Path, trust: Path, tmp_path: Path) -> None:
    for path in [*source.iterdir(), source]:
        path.chmod(0o555)
    try:
        assert {row["status"] for row in restored(source, tmp_path / "out", trust)} == {"ok"}
        assert os.access(tmp_path / "out" / "0.png", os.W_OK)
    finally:
        source.chmod(0o755)
