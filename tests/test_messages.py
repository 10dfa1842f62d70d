"""Messages name choices as Python has them; the command line makes flags of them."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

import monai_sasm
from monai_sasm.cli.output import set_up_logging
from monai_sasm.errors import as_commands, as_flags

ROOT = Path(monai_sasm.__file__).parent
OF_COMMANDS = ("cli", "slicer")  # whose messages are for whoever types commands
FLAG = re.compile(r"(?<![\w-])--[a-z]")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("choose another output or pass overwrite=True", "choose another output or pass --overwrite"),
        ("say modality='CT' or modality='MR'", "say --modality CT or --modality MR"),
        ("use device='cpu'", "use --device cpu"),
        ("or pass force_modality=True, if", "or pass --force-modality, if"),
        ("pass trust=['/my bundles/a'] if", "pass --trust /my bundles/a if"),
        ("one by gate_name='NAME'", "one by --gate NAME"),
        ("one: destinations={'NAME': 'AE@HOST:PORT'}", "one: --to NAME=AE@HOST:PORT"),
        ("strength=0.8 is kept", "strength=0.8 is kept"),
        ("got resume=False", "got resume=False"),
    ],
)
def test_reasons_speak_python_and_commands_speak_flags(reason: str, told: str) -> None:
    assert as_flags(reason) == told


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("a map; or pass force_modality=True, if", "a map; or use `sasm restore --force-modality`, if"),
        ("not enough memory; use device='cpu'", "not enough memory; use `sasm view --device cpu`"),
        ("strength=0.8 is kept", "strength=0.8 is kept"),
    ],
)
def test_reasons_on_a_page_name_the_command(reason: str, told: str) -> None:
    assert as_commands(reason) == told


def test_a_choice_of_a_servers_start_names_that_server() -> None:
    told = as_commands("use device='cpu', or pass force_modality=True", "sasm label-server")
    assert told == "use `sasm label-server --device cpu`, or use `sasm restore --force-modality`"


def test_what_a_command_logs_speaks_flags(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(0)
    logging.getLogger("monai_sasm.some.room").warning("%s, pass %s", "it is done", "resume=True")
    assert capsys.readouterr().err == "sasm: it is done, pass --resume\n"


def test_no_message_of_the_library_names_a_flag() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{text.lineno}: {text.value}"
        for file in sorted(ROOT.rglob("*.py"))
        if file.relative_to(ROOT).parts[0] not in OF_COMMANDS
        for text in messages(ast.parse(file.read_text()))
        if FLAG.search(re.sub("`[^`]*`", "", str(text.value)))  # a whole command may stand in a message
    ]
    assert not found


def messages(tree: ast.Module) -> list[ast.Constant]:
    """Texts of what is raised or logged."""
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)]
    logged = [one for one in calls if ast.unparse(one.func).startswith("logger.")]
    raised = [one.exc for one in ast.walk(tree) if isinstance(one, ast.Raise) and one.exc is not None]
    texts = [text for one in (*logged, *raised) for text in ast.walk(one)]
    return [one for one in texts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
