"""``make demo`` on a toy house: every file it promises is there and right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_sasm.cli import demo as module
from monai_sasm.cli.demo import MARK, main, run

NOBODY: Any = None  # restores nothing


@pytest.fixture
def demo(tmp_path: Path, toy_restorer: Any) -> tuple[Path, str]:
    return tmp_path / "out", run(tmp_path / "out", toy_restorer)


def test_demo_writes_what_it_promises(demo: tuple[Path, str]) -> None:
    output, table = demo
    lines = (output / "table.md").read_text().splitlines()
    assert table.startswith("\n".join(lines))
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["CT slice (DICOM)", "MR brain (NIfTI)", "photo (PNG)"]
    assert all(line.count("dB") == 2 for line in lines[2:])
    (slice_file,) = (output / "restored").rglob("*.dcm")
    assert (
        pydicom.dcmread(slice_file).SeriesInstanceUID
        != pydicom.dcmread(next((output / "input" / "ct").glob("*.dcm"))).SeriesInstanceUID
    )
    for name in ("CT", "brain", "window"):
        (panel,) = (path for path in (output / "panels").glob("*.png") if name.lower() in path.name.lower())
        assert min(Image.open(panel).size) > 200
    assert 50_000 < (output / "demo.jpg").stat().st_size < 300_000, "docs/ shows this picture"


def test_demo_degrades_by_region_and_by_the_stated_noise(demo: tuple[Path, str]) -> None:
    output, _ = demo
    clean, noisy = (nibabel.load(output / part / "brain.nii.gz") for part in ("truth", "input"))
    tissue = clean.get_fdata() > np.percentile(clean.get_fdata(), 90)
    error = (noisy.get_fdata() - clean.get_fdata())[tissue]
    white = np.percentile(clean.get_fdata()[clean.get_fdata() > clean.get_fdata().mean()], 99.5)
    assert error.std() == pytest.approx(0.08 * white, rel=0.05)
    photo, wet = (np.asarray(Image.open(output / part / "window.png")).astype(int) for part in ("truth", "input"))
    same = (photo == wet).all(axis=2).mean()
    assert 0.15 < same < 0.8, "one region of three stays clean"


def test_demo_weights_sum_to_one(demo: tuple[Path, str]) -> None:
    output, _ = demo
    maps = [nibabel.load(path).get_fdata() for path in (output / "maps").glob("brain_weight-*.nii.gz")]
    np.testing.assert_allclose(np.sum(maps, axis=0), 1, atol=1e-5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pictures(output: Path) -> list[Any]:
    """In place of the samples: one file, and then somebody interrupts."""
    (output / "input" / "window.png").write_bytes(b"made")
    raise KeyboardInterrupt


def test_a_folder_of_other_files_is_refused_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "samples", pictures)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "only_copy.dcm").write_bytes(b"mine")
    for record in (None, '{"input/only_copy.dcm": "0000"}', "[]", "no record"):
        if record is not None:
            (tmp_path / MARK).write_text(record)
        before = contents(tmp_path)
        with pytest.raises(FileExistsError, match=r"1 file.*only_copy\.dcm; choose another folder"):
            run(tmp_path, NOBODY)
        assert contents(tmp_path) == before
    monkeypatch.setattr("monai_sasm.restoration.restorer.Restorer", lambda device: None)
    monkeypatch.setattr("sys.argv", ["demo", "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "choose another folder" in capsys.readouterr().err


def test_an_earlier_demonstration_is_replaced_an_interrupted_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "samples", pictures)
    output = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(output, NOBODY)
        assert set(contents(output)) == {"input/window.png", MARK}
    (output / "input" / "window.png").write_bytes(b"painted over")
    with pytest.raises(FileExistsError, match=r"window\.png"):
        run(output, NOBODY)
    (output / "input" / "window.png").write_bytes(b"made")
    (tmp_path / "elsewhere.png").write_bytes(b"made")
    (output / "truth" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(FileExistsError, match=r"link\.png"):
        run(output, NOBODY)
