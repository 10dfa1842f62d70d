"""Independent DICOM validators: dciodvfy and dcentvfy of Debian's dicom3tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest


def errors(files: Iterable[Path]) -> set[str]:
    """Kinds of dciodvfy errors: attribute and message, without values."""
    tool, kinds = _tool("dciodvfy"), set()
    for file in files:
        run = subprocess.run([tool, "-new", str(file)], capture_output=True, text=True, errors="replace", check=False)
        lines = (run.stdout + run.stderr).splitlines()
        assert any(re.fullmatch("(LegacyConverted)?(Enhanced)?(CT|MR)Image", line) for line in lines), (
            f"{file.name} was not recognised as a CT or MR image"
        )
        kinds |= {re.sub(r"= <.*", "", line) for line in lines if line.startswith("Error")}
    return kinds


def assert_consistent(files: Iterable[Path]) -> None:
    """dcentvfy: attributes of patient, study, series and frame of reference agree between all files."""
    tool = _tool("dcentvfy")
    run = subprocess.run([tool, *map(str, files)], capture_output=True, text=True, errors="replace", check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def _tool(name: str) -> str:
    tool = shutil.which(name)
    if tool is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing in CI: apt-get install dicom3tools")
    if tool is None:
        pytest.skip(f"{name} is not installed: apt-get install dicom3tools")
    return tool
