"""``--help``: every option is explained, with what holds where it is left out, in lines as long as the terminal's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from monai_sasm.bundles.exporting import FORMATS
from monai_sasm.cli.bundles import Format
from monai_sasm.cli.main import app
from tests.command import sasm


def commands(one: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words after ``sasm``, and the command."""
    for name, below in getattr(one, "commands", {}).items():
        yield from commands(below, *words, name)
    if not hasattr(one, "commands"):
        yield words, one


ALL = dict(commands(get_command(app)))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_sentence_ends_where_its_paragraph_or_the_terminal_does(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1000)  # read from the environment once, on import
    assert sasm(*words, "--help") == 0
    before = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split("╭")[0]
    paragraphs = [line.strip() for line in before.splitlines() if line.strip() and "Usage: " not in line]
    assert paragraphs == [line for line in ALL[words].help.split("\n") if line]
    assert all(one.endswith(".") for one in paragraphs)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_argument_and_option_is_explained(words: tuple[str, ...]) -> None:
    assert [one.name for one in ALL[words].params if not one.help] == []


def test_options_of_the_node_say_what_holds_without_them() -> None:
    files = {"config", "spool", "expert", "gate", "target_noise"}  # without which there is none, or the default gate
    single = [one for one in ALL["node",].params if not (one.is_flag or one.multiple or one.name in files)]
    assert {one.name for one in single} >= {"port", "strength", "device", "precision", "quiet_seconds"}
    assert [one.name for one in single if not one.help.endswith(" if left out.")] == []


def test_a_wrong_format_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one.value for one in Format] == list(FORMATS)
    assert sasm("bundles", "export", "lowdose_ct_unet", "-o", "net.bin", "--format", "tflite") == 2
    assert "--format" in capsys.readouterr().err
