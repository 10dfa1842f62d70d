"""What README.md tells people to type exists: commands, options, make targets, files, imports."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.cli.degrade import Kind
from monai_sasm.cli.main import main
from tests.data import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
CONTRIBUTING = (CHECKOUT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line.split("   #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
SASM = [line for line in LINES if line.startswith("sasm ")]
BUNDLE_RUNS = [line for line in LINES if "monai.bundle" in line]
TABLE = re.findall(r"^\| `sasm (\w+)(?: (\w+))?.*$", README, re.MULTILINE)


def help_of(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Text of ``sasm COMMAND --help``, wide enough that no option is broken over lines."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert not ended.value.code
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def command_of(words: list[str]) -> tuple[str, ...]:
    return tuple(words[1:3]) if words[1] == "bundles" else (words[1],)


def test_the_readme_has_commands() -> None:
    assert len(SASM) >= 6
    assert BUNDLE_RUNS
    assert "make demo" in LINES
    assert "make test" in LINES


@pytest.mark.parametrize("line", SASM)
def test_each_command_and_option_exists(line: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    text = help_of(command_of(words), capsys, monkeypatch)
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not an option of {line!r}"


@pytest.mark.parametrize("row", [line for line in README.splitlines() if line.startswith("| `sasm ")])
def test_each_option_of_the_table_exists(row: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in re.findall(r"`(sasm [^`]*)`", row):
        text = help_of(command_of(command.split()), capsys, monkeypatch)
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not an option of {command}"


@pytest.mark.parametrize("name", ["restore", "degrade"])
def test_the_table_names_every_option(name: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of((name,), capsys, monkeypatch)
    row = next(line for line in README.splitlines() if line.startswith(f"| `sasm {name}"))
    missing = set(re.findall(r"--[a-z][a-z-]*", text)) - set(re.findall(r"--[a-z][a-z-]*", row))
    assert missing <= {"--help", "--output", "--quiet", "--verbose"}


def test_the_table_names_every_kind_of_degradation() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| `sasm degrade"))
    named = re.findall(r"`([a-z-]+)`", row.split("kinds")[1].split(";")[0])
    assert named == [kind.value for kind in Kind]


@pytest.mark.parametrize("line", BUNDLE_RUNS)
def test_each_bundle_config_is_there_with_its_keys(line: str) -> None:
    import yaml

    words = shlex.split(line)
    given = words[words.index("--config_file") + 1]
    given = given.replace("my_ct/", "bundles/lowdose_ct_unet/")  # which `sasm bundles new` copies
    configs = ast.literal_eval(given) if given.startswith("[") else [given]
    keys = {key for config in configs for key in yaml.safe_load((CHECKOUT / config).read_text())}
    for option in (word[2:] for word in words if word.startswith("--") and word != "--config_file"):
        assert option in keys


def test_make_targets_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)|`make (\w+)`", README + CONTRIBUTING, re.MULTILINE):
        assert re.search(rf"^{target[0] or target[1]}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", (CHECKOUT / document).read_text())
    assert not [link for link in links if not (CHECKOUT / link).exists()]


def test_files_named_in_contributing_exist() -> None:
    package = CHECKOUT / "monai_sasm"
    for name in re.findall(r"`([\w/]+\.py)`", CONTRIBUTING):
        assert (CHECKOUT / name).is_file() or (package / name).is_file(), name


def test_the_python_example_imports_what_exists() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for node in ast.parse(example).body:
        if isinstance(node, ast.ImportFrom):
            module = __import__(str(node.module), fromlist=[alias.name for alias in node.names])
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_the_python_example_runs(tmp_path: Path, toy_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.data import ct_small

    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "slice.dcm").write_bytes(ct_small().read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert len(list((tmp_path / "restored").rglob("*.dcm"))) == 1
