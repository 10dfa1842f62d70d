"""A sample of ``scripts/fuzz.py``: what formats say is wrong, and each input is an image or a reason."""

from __future__ import annotations

import os

import pytest

from tests.hostile.laws import in_time
from tests.hostile.reading import faults_of
from tests.hostile.structured import case

SEEDS = int(os.environ.get("SASM_FUZZ", "100"))
ONCE = [283, 798, 1229, 2247, 4193, 5798, 10371, 35448, 38510]  # seeds that once were faults
PATIENCE = 600  # seconds for all


def test_wrong_inputs_are_images_or_reasons(little_memory: None) -> None:
    with in_time(PATIENCE):
        faults = [fault for seed in (*range(SEEDS), *ONCE) for fault in faults_of(seed)]
    assert not faults


def test_the_same_seed_is_the_same_input() -> None:
    assert case(7) == case(7)
    assert len({case(seed)[0] for seed in range(80)}) == 8, "of every kind"


@pytest.mark.parametrize("seed", range(3))
def test_the_law_can_fail(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hostile.reading.inventory", lambda _: 1 / 0)
    assert "ZeroDivisionError" in faults_of(seed)[0]
