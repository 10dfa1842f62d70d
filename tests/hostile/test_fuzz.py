"""Damaged files by the thousand: each is restored or refused for a reason, and nothing else ever happens.

``SASM_FUZZ=20000 pytest tests/hostile/test_fuzz.py`` tries that many files instead of the few hundred of a usual run,
a thousand per test; the same files every time.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.damage import Damaged, damaged
from tests.hostile.intact import intact_files
from tests.hostile.laws import in_time, restored

pytest.importorskip("pydicom", minversion="3", reason="the compressed cases are built with pydicom 3")

INPUTS = int(os.environ.get("SASM_FUZZ", "400"))
SEEDS = -(-INPUTS // 1000)
TOGETHER = 8  # files of one batch
PATIENCE = 120  # seconds for one batch


@pytest.mark.parametrize("number", range(SEEDS))
def test_damaged_files_are_right_or_refused(number: int, trust: Path, little_memory: None) -> None:
    @seed(number)
    @settings(
        phases=(Phase.explicit, Phase.generate),  # shrinking a batch of eight takes longer than reading its story
        max_examples=-(-INPUTS // TOGETHER // SEEDS),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(damaged(), min_size=TOGETHER, max_size=TOGETHER, unique_by=lambda one: one.intact.name))
    @example([Damaged(intact, intact.pack(intact.content), ()) for intact in intact_files()])
    def check(files: list[Damaged]) -> None:
        with in_time(PATIENCE), tempfile.TemporaryDirectory() as folder:
            check_batch(files, Path(folder), trust)

    check()


def check_batch(files: list[Damaged], folder: Path, trust: Path) -> None:
    """Restore a folder of these files."""
    for number, file in enumerate(files):
        place = folder / "in" / f"{number:02d}"
        place.mkdir(parents=True)
        (place / file.intact.name).write_bytes(file.content)
        for index, other in enumerate(file.intact.beside):
            (place / f"beside{index}.dcm").write_bytes(other)
    restored(folder / "in", folder / "out", trust)
