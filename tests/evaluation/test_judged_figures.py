"""Figures of methods against time and Dice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_sasm.evaluation import judged_figures
from monai_sasm.evaluation.judged_figures import psnr_against_dice, quality_against_time
from monai_sasm.evaluation.table import Row

NAMES = ["zero-filled", "clean", *(f"method {number}" for number in range(15))]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were written."""
    found: list[Any] = []
    save = judged_figures.save
    monkeypatch.setattr(judged_figures, "save", lambda plot, path: (found.append(plot), save(plot, path))[1])
    return found


def rows() -> list[Row]:
    """Methods that are all alike, most of them, with no PSNR of the first and no time of the second."""
    scores = [{"PSNR": 30 + 0.01 * number, "Dice": 0.8} for number in range(len(NAMES))]
    del scores[2]["PSNR"]
    return [
        Row(name, {"x2": one, "x4": one}, {"x2": 1, "x4": 1}, seconds=None if number == 1 else 0.1 + 0.001 * number)
        for number, (name, one) in enumerate(zip(NAMES, scores, strict=True))
    ]


@pytest.mark.parametrize("draw", [quality_against_time, psnr_against_dice])
def test_a_method_is_told_by_the_legend_and_looks_the_same_in_all_panels(draw: Any, tmp_path: Path, drawn: Any) -> None:
    draw(tmp_path / "a.png", rows())
    looks: dict[str, set[Any]] = {}
    for axis in drawn[0].axes:
        for line in axis.lines:
            looks.setdefault(line.get_label(), set()).add((line.get_color(), line.get_marker()))
        assert not axis.texts, "no names at the points"
    assert set(NAMES[3:]) <= set(looks)
    assert all(len(one) == 1 for one in looks.values())
    points = [looks[name] for name in NAMES[3:]]
    assert len(set(map(frozenset, points))) == len(points)
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(looks)
    box, figure = legend.get_window_extent(), drawn[0].bbox
    assert figure.x0 <= box.x0 < box.x1 <= figure.x1
    assert figure.y0 <= box.y0 < box.y1 <= figure.y1
    assert all(axis.get_window_extent().x1 < box.x0 for axis in drawn[0].axes)
