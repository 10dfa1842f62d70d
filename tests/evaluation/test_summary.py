"""The first page of the results: numbers of stored tables, peers of the same run, and whose weights they are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_sasm.bundles import available, read_metadata
from monai_sasm.evaluation import figures, report
from monai_sasm.evaluation.report import PROTOCOLS, installed_versions
from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.scoring import Case, Method
from monai_sasm.evaluation.summary import summary
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.evaluation.tasks import LINES, SUBSET, Line
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
    values = {**names, "BM3D (BM3D subset)": 29.0, "default pipeline (BM3D subset)": 30.5}
    rows = tuple(
        Row(name, {level: {"PSNR": value}}, {level: 4 if name.endswith(SUBSET) else 68})
        for name, value in values.items()
    )
    page = summary({"photo-awgn": Table("photo-awgn", rows=rows)}, {})
    assert "| +11.00 dB | BM3D (BM3D subset) +8.00 dB, the expert there +9.50 dB, n = 4 |" in page
    alone = summary({"photo-awgn": Table("photo-awgn", rows=rows[:-1])}, {})
    assert "| +11.00 dB | NLM fast +7.00 dB |" in alone, "no comparison without the expert on the same images"
    lost = tuple(Row(row.method, {level: {"PSNR": math.nan}}, {level: 4}) for row in rows)
    assert summary({"photo-awgn": Table("photo-awgn", rows=lost)}, {}) == ""


def lowdose(n: int, **paired: tuple[float, float]) -> Table:
    level = "L096 D45f (test)"
    limits = {"PSNR": (24.1, 25.3), **{f"PSNR {name}": given for name, given in paired.items()}}
    rows = (
        Row("input", {level: {"PSNR": 19.0}}, {level: n}),
        Row("default pipeline", {level: {"PSNR": 24.7}}, {level: n}, intervals={level: limits}),
    )
    return Table("ct-lowdose", rows=rows)


def test_only_an_interval_of_the_gain_itself_is_printed() -> None:
    """Limits of the restored PSNR less the input's mean hold what the images differ in before and after."""
    assert "| +5.70 dB | - |" in summary({"ct-lowdose": lowdose(10)}, {})
    assert "| +5.70 dB [+5.60, +5.80] | - |" in summary({"ct-lowdose": lowdose(10, gain=(5.6, 5.8))}, {})
    assert "| +5.70 dB | - |" in summary({"ct-lowdose": lowdose(5, gain=(5.6, 5.8))}, {}), "too few"
    table = lowdose(10, gain=(5.6, 5.8))
    table = replace(table, rows=tuple(replace(row, patients={"L096 D45f (test)": 1}) for row in table.rows))
    assert "| +5.70 dB (1 patient) | - |" in summary({"ct-lowdose": table}, {}), "slices of one patient are alike"


def test_a_standard_error_is_no_interval() -> None:
    level, signal = "slices of 3", "signal 3 mm/20 %"
    rows = (
        Row("cubic along slices", {level: {"PSNR": 30.2, signal: 0.72}}, {level: 7}),
        Row(
            "expert superres_mri_unet",
            {level: {"PSNR": 30.7, signal: 0.723}},
            {level: 7},
            spreads={level: {"PSNR": (30.4, 31.0)}},
        ),
    )
    page = summary({"mri-lesions": Table("mri-lesions", rows=rows)}, {})
    assert "| +0.50 dB | - | 3 mm lesion 72% -> 72% |" in page
    rows = (rows[0], replace(rows[1], intervals={level: {"PSNR gain": (0.3, 0.6)}}))
    page = summary({"mri-lesions": Table("mri-lesions", rows=rows)}, {})
    assert "| +0.50 dB [+0.30, +0.60] | - |" in page


def test_what_says_nothing_alone_is_printed_with_what_it_was() -> None:
    rows = (
        Row("input", {"": {"PSNR outside": 50.78}}, {"": 60}),
        Row(DEFAULT, {"": {"PSNR outside": 40.86}}, {"": 60}),
    )
    real = tuple(Row(name, {"pair 0": {"PSNR RGB": 20.0}}, {"pair 0": 1}) for name in ("input", DEFAULT))
    tables = {"raindrop-real": Table("raindrop-real", rows=real), "raindrop-synth": Table("raindrop-synth", rows=rows)}
    assert "| outside drops 50.8 -> 40.9 dB |" in summary(tables, {})
    tables["raindrop-synth"] = Table("raindrop-synth", rows=rows[1:])
    assert "outside drops" not in summary(tables, {})


def test_an_older_peer_is_marked() -> None:
    rows = tuple(
        Row(name, {"brains x2": {"gain": value}}, {"brains x2": 6})
        for name, value in (("zero-filled", 0.0), ("U-Net", 1.5), ("ESRGAN", 1.1))
    )
    table = Table("mri-heads", rows=rows, versions={"superres_mri_unet": "0.1.0", "superres_mri_esrgan": "0.1.0"})
    page = summary({"mri-heads": table}, {"superres_mri_unet": "0.2.0", "superres_mri_esrgan": "0.1.0"})
    assert "| `superres_mri_esrgan` | +1.10 dB | U-Net (0.1.0) +1.50 dB |" in page


OURS = (DEFAULT, "ours", "refined", "soft mixing", "U-Net", "ESRGAN", "Restormer", "DiT", "SiT", "expert")
TRUTH = ("full dose", "clean", "oracle")


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.gain.protocol}-{line.expert}")
def test_every_method_of_others_in_the_table_is_a_peer(line: Line) -> None:
    table = Table.read(RESULTS / f"{line.gain.protocol}.json")
    measured = {
        row.method
        for row in table.rows
        if any(math.isfinite(row.scores.get(level, {}).get(line.gain.metric, math.nan)) for level in line.gain.levels)
    }
    others = {name for name in measured if not name.startswith((*OURS, *TRUTH)) and not name.startswith(line.before)}
    assert {name.removesuffix(SUBSET) for name in others} <= {name.removesuffix(SUBSET) for name in line.peers}


def test_the_best_peers_of_the_repository() -> None:
    page = summary(report.tables(RESULTS), installed_versions())
    (gate,) = [one for one in page.splitlines() if "`gate_mobilenet`" in one]
    assert "| hard gate (argmax per pixel) +6.79 dB |" in gate
    (sampler,) = [one for one in page.splitlines() if "`noise_photo_ddpm`" in one]
    assert "noise_photo_unet" in sampler.split("|")[4]


@pytest.mark.parametrize("name", sorted(report.tables(RESULTS)))
def test_the_page_of_a_protocol_is_that_of_its_numbers(name: str) -> None:
    table = Table.read(RESULTS / f"{name}.json")
    assert (RESULTS / f"{name}.md").read_text() == report.section(table, installed_versions())


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
