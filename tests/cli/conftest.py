"""Fixtures of the command line's tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests import command


@pytest.fixture
def sasm(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``sasm ARGUMENTS`` in this process; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code, captured = command.sasm(*arguments), capsys.readouterr()
        return code, captured.out, captured.err

    return run
