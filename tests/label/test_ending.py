"""The server is ended in the middle of its work: nothing of patients may stay among temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.label.conftest import RunningServer, _wait_until_ready, environment, write_studies
from tests.ports import free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGHUP nor SIGKILL")


def ended_by(number: signal.Signals, folder: Path, temporary: Path) -> tuple[int, list[Path]]:
    """How a server ends that has been sent a signal while a job is under way; the folders it had then."""
    programs, port = environment(), free_port()
    studies, app = write_studies(folder / "studies"), folder / "app"
    temporary.mkdir(exist_ok=True)
    subprocess.run([str(programs / "sasm"), "label-app", str(app)], check=True, cwd=folder)
    settings = {"SASM_BUNDLES": str(folder / "none"), "TMPDIR": str(temporary)}
    command = [str(programs / "sasm"), "label-server", str(studies), "--app", str(app), "--port", str(port)]
    running = RunningServer(f"http://127.0.0.1:{port}", studies, folder / "server.log", (app / "token").read_text())
    with open(running.log, "wb") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=os.environ | settings,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # where the tests run under nohup
        )
    try:
        _wait_until_ready(running, process)
        upload = ("head.nii.gz", (studies / "head.nii.gz").read_bytes())
        session = running.infer("sasm_mr", upload=upload, output="json", background=True)
        assert session.status == 200, session.body
        there = list(temporary.glob("sasm-label-*"))
        process.send_signal(number)
        return process.wait(120), there
    finally:
        process.kill()


def test_nothing_stays_unless_it_is_killed_and_then_until_the_next_start(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    left: set[Path] = set()
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0), (signal.SIGHUP, 0)):
        (tmp_path / number.name).mkdir()
        ended, there = ended_by(number, tmp_path / number.name, temporary)
        assert (ended, len(there)) == (code, 1)
        assert left.isdisjoint(there)
        left = set(temporary.glob("sasm-label-*"))
        assert left == (set(there) if number == signal.SIGKILL else set())
