"""Fixtures of the command line's tests."""

from __future__ import annotations

from typing import Any

import pytest

from monai_sasm.cli.main import main


@pytest.fixture
def sasm(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``sasm ARGUMENTS`` in this process; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
