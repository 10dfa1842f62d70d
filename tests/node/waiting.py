"""Looking at what other threads and processes are busy with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 180.0
"""Seconds after which a test gives up; far more than needed, for machines that are busy with other things."""


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true value of a condition."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"{PATIENCE} s have passed in vain")


def dicom_in(folder: Path) -> list[Path]:
    """DICOM files below a folder in which a node may be at work."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix == ".dcm")
