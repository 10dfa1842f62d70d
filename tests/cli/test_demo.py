"""``make demo`` on a toy house: every file it promises is there and right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_sasm.cli.demo import run


@pytest.fixture
def demo(tmp_path: Path, toy_restorer: Any) -> tuple[Path, str]:
    return tmp_path, run(tmp_path, toy_restorer)


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
