"""Who reads what is printed may leave, and Ctrl-C may come at any time: results and exit codes stay right."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import pytest

from monai_sasm.cli.main import main
from monai_sasm.cli.output import Bar, one_line_errors, print_row, print_table, say, say_lines, set_up_logging
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


HOSTILE = "\x1b]0;owned\x07a\nsasm: all is well\r\x9b2J\u202egpj.exe\u2028b\x7f"
HARMLESS = r"\x1b]0;owned\x07a\x0asasm: all is well\x0d\x9b2J\u202egpj.exe\u2028b\x7f"


def test_a_name_commands_no_terminal_and_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(0)
    say(HOSTILE)
    print_table(("name", "what"), [(HOSTILE, "x"), ("short", "y")])
    logging.getLogger("monai_sasm").error("%s: failed", HOSTILE)
    out, err = capsys.readouterr()
    width = len(HARMLESS)
    assert out.split("\n") == [
        HARMLESS,
        f"{'name'.ljust(width)}  what",
        f"{HARMLESS}  x",
        f"{'short'.ljust(width)}  y",
        "",
    ]
    assert err == f"sasm: {HARMLESS}: failed\n"


def test_what_has_several_lines_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(2)
    say_lines("| a |\n| \x1b[1m |\n")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("monai_sasm").error("bad", exc_info=True)
    logging.getLogger("py.warnings").warning("%s", "file.py:1: UserWarning: \x1b[1m\n  line\n")
    out, err = capsys.readouterr()
    assert out == "| a |\n| \\x1b[1m |\n\n"
    assert err.startswith("sasm: bad\nTraceback (most recent call last):\n")
    assert err.endswith("sasm: file.py:1: UserWarning: \\x1b[1m\n  line\n\n")
    assert all(letter == "\n" or letter.isprintable() for letter in err)


def test_letters_of_any_script_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    name = "K\u00f6pfe \u6f22 \u05d0\u05d1 \u0646\u200c\u0627 \U0001f9e0"  # with what Persian needs between letters
    say(name)
    assert capsys.readouterr().out == f"{name}\n"


def test_rows_stay_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_row({"name": HOSTILE})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": HOSTILE}
    assert out[:-1].isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_the_bar_shows_a_harmless_name() -> None:
    shown: list[str] = []
    bar = SimpleNamespace(set_description_str=shown.append, set_postfix_str=lambda *_, **__: None)
    Bar(bar).begin("a\x1b[2J", 1)
    assert shown == ["a\\x1b[2J"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--json"]])
def test_files_with_hostile_names(tmp_path: Path, toy_restorer: Any, capsys: Any, more: list[str]) -> None:
    folder = photo_folder(tmp_path / "photos", "ab")
    (folder / "a.png").rename(folder / f"{HOSTILE}.png")
    (folder / "b.png").rename(folder / "c\x1b[2J.png")
    (folder / "c\x1b[2J.png").write_bytes(b"none")
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(folder), "-o", str(tmp_path / "out"), "-vv", *more])
    assert ended.value.code == 8
    assert (tmp_path / "out" / f"{HOSTILE}.png").exists() is ("--dry-run" not in more)
    out, err = capsys.readouterr()
    assert "owned" in out
    assert all(letter == "\n" or letter.isprintable() for letter in out + err)
    assert not any(line.startswith("sasm: all is well") for line in (out + err).splitlines())
