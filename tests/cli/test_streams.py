"""Who reads what is printed may leave, and Ctrl-C may come at any time: results and exit codes stay right."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from monai_sasm.cli.main import main
from monai_sasm.cli.output import one_line_errors, say, set_up_logging
from tests.data import CHECKOUT
from tests.photo_folder import photo_folder


@pytest.fixture
def unread() -> Iterator[TextIO]:
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as stream:
        yield stream


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos", "abc")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error on Windows")
@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("command", ["restore", "batch"])
def test_all_images_are_restored_when_stdout_is_closed(
    photos: Path, unread: TextIO, monkeypatch: pytest.MonkeyPatch, toy_restorer: Any, command: str, more: list[str]
) -> None:
    out = photos.parent / "out"
    monkeypatch.setattr(sys, "stdout", unread)
    with pytest.raises(SystemExit) as ended:
        main([command, str(photos), *(["-o"] if command == "restore" else []), str(out), *more])
    assert not ended.value.code
    assert sorted(path.name for path in out.glob("*.png")) == ["a.png", "b.png", "c.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error on Windows")
def test_messages_may_be_unread_too(unread: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", unread)
    set_up_logging(0)
    for _ in range(2):
        logging.getLogger("monai_sasm").error("unread")
        say("unread", unread)
    unread.flush()  # as the interpreter does at its end: nothing is left that could fail


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_behind_stdout_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(0)
    with open("/dev/full", "w", encoding="utf-8") as full:
        say("lost", full)
        say("lost", full)
    assert capsys.readouterr().err == "sasm: /dev/full cannot be written (No space left on device); the work goes on\n"


def test_a_broken_connection_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    """Not every broken pipe is stdout: where a server has hung up, the command has failed."""
    set_up_logging(0)
    with pytest.raises(RuntimeError) as ended, one_line_errors():
        raise BrokenPipeError(32, "Broken pipe")
    assert ended.value.exit_code == 2  # type: ignore[attr-defined]  # typer.Exit
    assert "Broken pipe" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_ctrl_c_while_the_program_is_imported(tmp_path: Path) -> None:
    slow = tmp_path / "typer.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    with subprocess.Popen(
        [sys.executable, "-m", "monai_sasm.cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "sasm: interrupted before anything was done\n"


@pytest.mark.parametrize("command", ["restore", "batch"])
def test_names_that_stdout_cannot_encode(tmp_path: Path, toy_restorer: Any, monkeypatch: Any, command: str) -> None:
    """A terminal of Latin-1 ends no run; a name that is no text leaves as it is."""
    out, err = (tmp_path / name for name in ("stdout", "stderr"))
    folder, names = photo_folder(tmp_path / "photos", "ab"), ["a\u6f22.png", "b.png"]
    (folder / "a.png").rename(folder / names[0])
    if sys.platform == "linux":
        names.append("c\udcff.png")
        shutil.copy(folder / names[1], folder / names[2])
    with open(out, "w", encoding="latin-1") as stdout, open(err, "w", encoding="latin-1") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as ended:
            main([command, str(folder), *(["-o"] if command == "restore" else []), str(tmp_path / "out"), "-v"])
        assert not ended.value.code
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == sorted(names)
    told = {line.rpartition(b"/")[2] for line in out.read_bytes().splitlines()}
    assert told == {rb"a\u6f22.png", b"b.png"} | ({b"c\xff.png"} if len(names) > 2 else set())
