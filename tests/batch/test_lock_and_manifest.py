"""What a run leaves on disk for the next one: the lock that dies with its holder, and a manifest of whole lines."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.batch.lock import LockedError, exclusive
from monai_sasm.batch.manifest import Manifest, read
from tests.data import CHECKOUT


def row(identity: str, **more: Any) -> dict[str, Any]:
    return {"input": {"id": identity}, **more}


def test_the_second_run_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        exclusive(tmp_path, path),
        pytest.raises(LockedError, match=f"process {os.getpid()}"),
        exclusive(tmp_path, path),
    ):
        pass
    with exclusive(tmp_path, path):
        pass  # free again


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from monai_sasm.batch.lock import exclusive\n"
        "with exclusive(pathlib.Path('output'), pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=str(process.pid)), exclusive(tmp_path, path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with exclusive(tmp_path, path):
            pass


def test_a_file_system_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr("monai_sasm.batch.lock.lock", refuse)
    with exclusive(tmp_path, tmp_path / "lock"):
        assert "knows no locks" in caplog.text


def test_rows_are_appended_and_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    assert read(path) == []
    first = Manifest(path)
    first.append(row("a", status="failed"))
    first.append(row("b", status="ok"))
    first.close()
    second = Manifest(path)
    assert second.latest("a") == row("a", status="failed")
    assert second.latest("c") is None
    second.append(row("a", status="ok"))
    assert second.latest("a") == row("a", status="ok")
    second.close()
    assert [found["status"] for found in read(path)] == ["failed", "ok", "ok"]


def test_a_line_cut_off_by_a_crash_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"input": {"id": "a"}}\n{"input": {"id"')
    assert read(path) == [row("a")]
    manifest = Manifest(path)
    manifest.append(row("b"))
    manifest.close()
    assert path.read_bytes() == b'{"input": {"id": "a"}}\n{"input": {"id": "b"}}\n'


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    manifest.append(row("a"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        manifest.append(row("b"))
    manifest.close()
    assert path.read_bytes() == b'{"input": {"id": "a"}}\n'


def test_what_is_no_manifest_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(ValueError, match="line 1"):
        Manifest(path)
    assert path.read_text() == "my notes\n"
