"""The terminal is closed while a command works: nothing of patients may stay behind, unless it was to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import needed
from tests.data import CHECKOUT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
WORK = """
import os, signal, sys
from pathlib import Path
from monai_sasm.cli import main as room
from monai_sasm.io.commit import replacing
from monai_sasm.io.placing import staged

def app(**_):
    output = Path(sys.argv[1])
    try:
        with staged(output) as folder, replacing(output / "photo.png") as file:
            (folder / "head.nii.gz").write_bytes(b"voxels")
            file.write(b"pixels")
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        os.kill(os.getpid(), signal.SIGHUP)  # the shell's, after the system's

room.app = app
room.main()
"""


def work(output: Path, at_start: signal.Handlers) -> int:
    return subprocess.run(
        [sys.executable, "-c", WORK, output],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, at_start),
        check=False,
    ).returncode


def test_unfinished_files_are_deleted(tmp_path: Path) -> None:
    assert work(tmp_path / "out", signal.SIG_DFL) == 143
    assert not list((tmp_path / "out").iterdir())


def test_under_nohup_the_work_goes_on(tmp_path: Path) -> None:
    assert work(tmp_path / "out", signal.SIG_IGN) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_uploads_are_deleted_by_the_next_start_at_the_latest(number: signal.Signals, tmp_path: Path) -> None:
    needed("starlette"), needed("uvicorn")
    from tests.view.conftest import started
    from tests.view.test_server import ask

    (tmp_path / "scans").mkdir()
    outer = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests themselves run under nohup
    try:
        viewer = started(tmp_path / "scans", tmp_path / "out")
    finally:
        signal.signal(signal.SIGHUP, outer)
    assert ask(viewer, "/api/files/photo.png", "PUT", b"pixels", origin=viewer.base)[0] == 200
    assert len(list(tmp_path.glob("sasm-view-*"))) == 1
    viewer.process.send_signal(number)
    if number == signal.SIGKILL:
        assert viewer.process.wait(60) == -number
        assert len(list(tmp_path.glob("sasm-view-*"))) == 1
        later = started(tmp_path / "scans", tmp_path / "out")
        later.process.kill()
        later.process.wait()
    else:
        assert viewer.process.wait(60) == 143
    assert not list(tmp_path.glob("sasm-view-*"))
