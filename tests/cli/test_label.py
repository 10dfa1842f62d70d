"""The commands that MONAI Label and 3D Slicer are started with."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from monai_sasm.cli import label as cli_viewers
from monai_sasm.cli.main import main
from tests.data import CHECKOUT

GUIDE = (CHECKOUT / "docs" / "slicer.md").read_text()


def test_the_app_is_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # made, and found
        with pytest.raises(SystemExit) as ended:
            main(["label-app", str(tmp_path / "new" / "app")])
        assert ended.value.code == 0
    assert "SasmApp" in (tmp_path / "new" / "app" / "main.py").read_text()
    (tmp_path / "main.py").write_text("print('mine')")
    with pytest.raises(SystemExit) as ended:
        main(["label-app", str(tmp_path)])
    assert ended.value.code == 2
    assert "another app" in capsys.readouterr().err
    assert (tmp_path / "main.py").read_text() == "print('mine')"


def test_the_server_answers_this_machine_only_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(cli_viewers, "find_spec", lambda name: name)
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    app = tmp_path / "state" / "sasm" / "label-app"
    for name in "ab":
        (tmp_path / name).mkdir()
    for words in (
        ["scans"],
        ["scans", "--host", "0.0.0.0", "--device", "cpu", "--trust", "a", "--trust", "b", "--allow-host", "c"],
    ):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(["label-server", *words])
        assert ended.value.code == 0
    usual, told = (" ".join(words) for words in started)
    begin = f"{sys.executable} -P -m monailabel.main start_server --app {app} --studies {tmp_path / 'scans'}"
    assert usual.startswith(begin)
    assert "--host 127.0.0.1 --port 8000 --conf device auto" in usual
    assert "--host 0.0.0.0" in told
    assert f"--conf device cpu --conf trust {tmp_path / 'a'}:{tmp_path / 'b'} --conf hosts c" in told
    assert (app / "main.py").is_file()
    assert Path.cwd() == app
    assert f"http://127.0.0.1:8000/?token={(app / 'token').read_text()}" in capsys.readouterr().err


def test_without_monai_label_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_viewers, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["label-server", "scans"])
    assert ended.value.code == 2
    assert "sasm label-environment" in capsys.readouterr().err


def test_slicer_finds_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["slicer-module"])
    folder = Path(capsys.readouterr().out.strip())
    assert folder == CHECKOUT / "monai_sasm" / "slicer" / "SASM"
    assert (folder / f"{folder.name}.py").is_file()  # Slicer wants file, class and folder of one name
    assert "class SASM(ScriptedLoadableModule)" in (folder / "SASM.py").read_text()


@pytest.mark.parametrize("command", ["label-server", "label-app", "slicer-module"])
def test_the_guide_names_commands_and_options_that_exist(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"bin/sasm {command}" in GUIDE
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    if command == "label-server":
        options = GUIDE.split("Options: ")[1].split("The same by hand")[0]
        for option in re.findall(r"`(--[a-z-]+)", options):
            assert option in shown


def test_the_guide_quotes_messages_as_they_are() -> None:
    folders = (CHECKOUT / "monai_sasm" / "label", CHECKOUT / "monai_sasm" / "slicer")
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    quoted = re.findall(r"^\| `([^`]+)` \|", GUIDE, re.MULTILINE)
    assert len(quoted) >= 6
    for message in quoted:
        for part in re.split(r"\.\.\.|'|:|\b\d+\b", message):
            assert part.strip() in source, f"nobody says {part!r}"
    for label in re.findall(r"\*\*(Input to restored|Change map|Side by side|Connect|Restore)\*\*", GUIDE):
        assert label.lower() in source.lower()
