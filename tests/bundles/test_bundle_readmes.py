"""Commands that the bundles' README files show: the configs are there, and every option is a key of them."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tests.bundle_cases import BUNDLES

BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(readme: Path) -> list[tuple[Path, list[str]]]:
    """``(folder, words)`` of each run of MONAI's bundle runner; variables are filled in, and ``cd`` is followed."""
    found: list[tuple[Path, list[str]]] = []
    folder, variables = readme.parents[1], dict[str, str]()
    for block in BLOCK.findall(readme.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"\"?\$\{\w+\[@\]\}\"?", "", line.split("  #")[0])
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            if match := re.match(r'(\w+)="(.*)"$', line.strip()):
                variables[match[1]] = match[2]
            elif match := re.match(r"cd (\S+)", line):
                folder = (folder / match[1]).resolve()
            elif "monai.bundle run" in line:
                words = shlex.split(line)
                found.append((folder, words[words.index("run") + 1 :]))
    return found


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_commands_name_what_is_there(bundle: Path) -> None:
    for folder, words in commands(bundle / "docs" / "README.md"):
        options = {word[2:]: words[number + 1] for number, word in enumerate(words[:-1]) if word.startswith("--")}
        given = options.pop("config_file")
        files = ast.literal_eval(given) if given.startswith("[") else [given]
        assert [file for file in files if not (folder / file).is_file()] == [], words
        parser = ConfigParser()
        parser.read_config([str(folder / file) for file in files])
        for key, value in options.items():
            assert key in parser, f"--{key} would be added beside the keys that are there: {words}"
            if value.startswith("["):
                ast.literal_eval(value)


def test_there_are_commands_to_check() -> None:
    assert sum(len(commands(bundle / "docs" / "README.md")) for bundle in BUNDLES) > 60
