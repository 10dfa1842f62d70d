"""The examples in docstrings run as they stand, pasted into a fresh session."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import monai_sasm

ROOT = Path(monai_sasm.__file__).parent
MODULES = sorted(
    ".".join(("monai_sasm", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run_in_a_fresh_session(module: str) -> None:
    found = doctest.DocTestFinder().find(importlib.import_module(module), globs={})
    examples = [test for test in found if test.examples]
    assert examples
    runner = doctest.DocTestRunner()
    for test in examples:
        runner.run(test)
    assert runner.summarize().failed == 0
