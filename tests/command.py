"""The command line in this process."""

from __future__ import annotations

import pytest

from monai_sasm.cli.main import main


def sasm(*arguments: object) -> int:
    """Run ``sasm ARGUMENTS``; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)
