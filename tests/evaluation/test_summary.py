"""The first page of the results: numbers of stored tables, peers of the same run, and whose weights they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_sasm.bundles import available, read_metadata
from monai_sasm.evaluation import figures
from monai_sasm.evaluation.report import PROTOCOLS, installed_versions
from monai_sasm.evaluation.scoring import Case, Method
from monai_sasm.evaluation.summary import LINES, summary
from monai_sasm.evaluation.table import Row, Table
from tests.data import CHECKOUT

RESULTS = CHECKOUT / "docs" / "results"


def heads(version: str) -> Table:
    level = "brains x2"
    rows = (
        Row("zero-filled", {level: {"gain": 0.0}}, {level: 6}),
        Row("cubic", {level: {"gain": -0.17}}, {level: 6}, 0.02),
        Row("U-Net", {level: {"gain": 2.42}}, {level: 6}, 0.19, intervals={level: {"gain": (2.25, 2.57)}}),
    )
    return Table("mri-heads", rows=rows, versions={"superres_mri_unet": version, "gate_mobilenet": "0.1.0"})


def test_a_line_has_gain_peer_seconds_and_advice() -> None:
    page = summary({"mri-heads": heads("0.2.0")}, {"superres_mri_unet": "0.2.0", "gate_mobilenet": "0.2.0"})
    (line,) = [one for one in page.splitlines() if "superres_mri_unet" in one]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:6] == [
        "MR, coarse x2 (brains)", "`superres_mri_unet`", "+2.42 dB [+2.25, +2.57]", "cubic -0.17 dB", "-", "0.19"
    ]  # fmt: skip
    assert all(cells[6:])


def test_older_weights_are_marked() -> None:
    page = summary({"mri-heads": heads("0.1.0")}, {"superres_mri_unet": "0.2.0", "gate_mobilenet": "0.2.0"})
    assert "`superres_mri_unet` (0.1.0) |" in page


def test_the_best_peer_of_a_subset_is_compared_on_that_subset() -> None:
    level = "CBSD68 25"
    names = {"input": 20.0, "NLM fast": 27.0, "default pipeline": 31.0, "input (BM3D subset)": 21.0}
    values = {**names, "BM3D (BM3D subset)": 29.0}
    rows = tuple(Row(name, {level: {"PSNR": value}}, {level: 4}) for name, value in values.items())
    page = summary({"photo-awgn": Table("photo-awgn", rows=rows)}, {})
    assert "| +11.00 dB | BM3D (BM3D subset) +8.00 dB |" in page
    lost = tuple(Row(row.method, {level: {"PSNR": math.nan}}, {level: 4}) for row in rows)
    assert summary({"photo-awgn": Table("photo-awgn", rows=lost)}, {}) == ""


def test_the_page_of_the_repository_is_short_and_names_every_measured_expert() -> None:
    tables = {path.stem: Table.read(path) for path in RESULTS.glob("*.json") if path.stem in PROTOCOLS}
    page = summary(tables, installed_versions())
    assert len(page.splitlines()) <= 60
    assert {line.gain.protocol for line in LINES} <= set(PROTOCOLS)
    for line in LINES:
        assert line.expert in available()
        if line.gain.protocol in tables:
            assert f"`{line.expert}`" in page
    results = (CHECKOUT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    assert page in results, "docs/RESULTS.md is written by sasm evaluate"
    assert results.index("## At a glance") < results.index("# Protocols")


@pytest.mark.parametrize(
    "name", [name for name, root in available().items() if read_metadata(root)["sasm"]["role"] == "expert"]
)
def test_every_expert_has_a_line(name: str) -> None:
    assert name in {line.expert for line in LINES}


def test_figures_are_in_true_colour_with_no_colour_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    case = Case(
        "a", "", clean=random.random((3, 200, 200)).astype(np.float32), degraded=np.zeros((3, 200, 200), np.float32)
    )
    methods = [Method(f"method {k}", lambda case: case.degraded) for k in range(8)]
    name = figures.comparison(tmp_path / "a.png", case, methods, quality=lambda *_: 1.0)
    picture = Image.open(tmp_path / name)
    assert picture.mode == "RGB"
    assert len(picture.getcolors(1 << 24) or []) > 256
    assert picture.width == round(figures.ACROSS * figures.PANEL * figures.DPI), "nine pictures, six in a line"
    assert figures.PANEL * figures.DPI >= figures.CROP
    for count in (3, 10, 17, 30):
        assert len(set(map(tuple, figures.colours(count)))) == count
