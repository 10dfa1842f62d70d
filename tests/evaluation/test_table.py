"""A table as JSON, as Markdown and in the report: the numbers are the same everywhere."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from monai_sasm.bundles import available
from monai_sasm.evaluation.measured import MEASURED
from monai_sasm.evaluation.report import PROTOCOLS, report
from monai_sasm.evaluation.table import Row, Table, merged


@pytest.fixture
def table() -> Table:
    rows = (
        Row("input", {"15": {"PSNR": 24.6123, "SSIM": 0.59074}, "25": {"PSNR": 20.171}}, {"15": 68, "25": 8}, None),
        Row("ours", {"15": {"PSNR": 33.2, "SSIM": math.nan}}, {"15": 68}, 0.25, "sigma given"),
    )
    return Table(
        "photo-awgn", "ab" * 32, {"PSNR": "dB"}, rows, ("a condition",), ("photo-awgn.png",), {"x": [1.0, math.nan]}
    )


def test_round_trip_through_json(table: Table, tmp_path: Path) -> None:
    again = Table.read(table.write(tmp_path))
    assert again.row("input") == table.row("input")
    assert again.row("ours").scores["15"]["PSNR"] == 33.2
    assert math.isnan(again.row("ours").scores["15"]["SSIM"])
    assert (again.data_hash, again.flags, again.figures) == (table.data_hash, table.flags, table.figures)
    assert again.details == {"x": [1.0, None]}


def compared(n: int) -> Table:
    scores = {"PSNR": 30.0, "p PSNR (U-Net)": 0.5}
    rows = (
        Row("U-Net", {"a": {"PSNR": 31.0}}, {"a": n}, intervals={"a": {"PSNR": (29.0, 33.0)}}),
        Row("ESRGAN", {"a": scores}, {"a": n}, intervals={"a": {"PSNR": (28.0, 32.0)}}),
    )
    return Table("ct-lowdose", definitions={"PSNR": "dB"}, rows=rows)


def test_neither_interval_nor_p_of_fewer_than_six_is_printed() -> None:
    """Whoever wrote the file: older ones have both of two images."""
    few, enough = compared(5).markdown(), compared(6).markdown()
    assert "| ESRGAN | 30.00 | 5 | - |" in few
    assert "p PSNR" not in few
    assert "- **n below 6**: no 95 % interval and no p" in few
    assert "| ESRGAN | 30.00 [28.00, 32.00] | 0.5000 | 6 | - |" in enough
    assert "n below 6" not in enough


def test_no_interval_stands_behind_a_mean_that_is_none() -> None:
    row = Row("U-Net", {"a": {"recovered": math.nan}}, {"a": 16}, intervals={"a": {"recovered": (-99.5, 0.9)}})
    assert "| U-Net | - | 16 | - |" in Table("mri-superres", rows=(row,)).markdown()


def test_spreads_are_no_intervals(tmp_path: Path) -> None:
    """They are printed, as the definition says, and of two images, too; those of older files lie in ``intervals``."""
    row = Row("BM3D", {"a": {"gain": 0.5}}, {"a": 2}, spreads={"a": {"gain": (0.25, 0.75)}})
    told = {"gain": "1 is kept; [mean - standard error, mean + standard error] over slices"}
    path = Table("ct-lesions", definitions=told, rows=(row,)).write(tmp_path)
    content = json.loads(path.read_text())
    (stored,) = content["rows"]
    old = {**stored, "intervals": stored["spreads"]}
    del old["spreads"]
    (tmp_path / "old.json").write_text(json.dumps({**content, "rows": [old]}))
    for name in ("ct-lesions.json", "old.json"):
        table = Table.read(tmp_path / name)
        assert table.rows[0].interval("a", "gain") is None
        assert tuple(table.rows[0].spreads["a"]["gain"]) == (0.25, 0.75)
        assert "| BM3D | 0.5000 [0.2500, 0.7500] | 2 | - |" in table.markdown()
    assert merged([row, Row("BM3D", {"b": {"gain": 1.0}}, {"b": 2})])[0].spreads == row.spreads


def test_weights_that_were_replaced_are_named(table: Table, tmp_path: Path) -> None:
    rows = (*table.rows, Row("default pipeline", {"15": {"PSNR": 33.0}}, {"15": 68}))
    versions = {"noise_photo_unet": "0.0.1", "lowdose_ct_unet": "0.0.1", "gate_mobilenet": "0.0.2"}
    replace(table, rows=rows, versions=versions).write(tmp_path / "results")
    report(tmp_path / "results")
    line = "Measured with noise_photo_unet 0.0.1, gate_mobilenet 0.0.2; other versions are installed now.\n"
    for page in (tmp_path / "RESULTS.md", tmp_path / "results" / "photo-awgn.md"):
        assert page.read_text().count(line) == 1, "CT is not measured here"
    assert "Measured with" not in table.markdown()


def test_every_protocol_names_bundles_that_are_there() -> None:
    assert set(MEASURED) == set(PROTOCOLS) - {"brats"}
    assert {name for names in MEASURED.values() for name in names} <= set(available())


def test_rows_of_one_method_become_one() -> None:
    first, second = Row("ours", {"x2": {"PSNR": 30.0}}, {"x2": 68}, 0.1), Row("ours", {"x4": {"PSNR": 26.0}}, {"x4": 8})
    (row,) = merged([first, second])
    assert row == Row("ours", {"x2": {"PSNR": 30.0}, "x4": {"PSNR": 26.0}}, {"x2": 68, "x4": 8}, None)


def test_report_prints_the_tables_numbers(table: Table, tmp_path: Path) -> None:
    table.write(tmp_path / "results")
    page = report(tmp_path / "results").read_text(encoding="utf-8")
    assert (tmp_path / "RESULTS.md").is_file()
    assert "| input | 24.61 | 0.5907 | 68 | - |" in page
    assert "| input | 20.17 | 8 | - |" in page
    assert "| ours | 33.20 | - | 68 | 0.25 |" in page
    assert "![photo-awgn](results/photo-awgn.png)" in page
    assert "- ours: sigma given" in page
    assert "sasm evaluate" in page.split("##")[0]
    assert "Not run: photo-real, photo-ddpm, raindrop-real" in page


def test_absent_data_leave_every_earlier_result_as_it_is(table: Table, tmp_path: Path) -> None:
    from monai_sasm.protocols.evaluate import evaluate

    skipped = evaluate("photo-awgn", data=tmp_path / "nothing", output=tmp_path / "results")
    way = "name the folder of the data sets with data='FOLDER' or the environment variable SASM_DATA"
    assert skipped.skipped == f"data not found: no folder {tmp_path / 'nothing'}; {way}"
    assert not list(tmp_path.iterdir()), "nothing was measured, so nothing is written"
    assert f"## photo-awgn\n\nskipped: {skipped.skipped}\n" in skipped.markdown()
    table.write(tmp_path / "results")
    report(tmp_path / "results")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = evaluate(table.protocol, data=tmp_path / "nothing", output=tmp_path / "results")
    assert again.skipped == f"{skipped.skipped}; the results of an earlier run are kept"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_unknown_protocol_names_the_known_ones() -> None:
    from monai_sasm.protocols.evaluate import evaluate

    with pytest.raises(ValueError, match=r"unknown protocol 'photo'.*photo-awgn"):
        evaluate("photo")


def test_unknown_row_names_the_known_ones(table: Table) -> None:
    with pytest.raises(KeyError, match="input"):
        table.row("theirs")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_a_module_with_a_run(protocol: str) -> None:
    module = importlib.import_module(f"monai_sasm.protocols.{protocol.replace('-', '_')}")
    assert callable(module.run)
