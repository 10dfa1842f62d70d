"""Mayo's low-dose CT: pairs by position in both published layouts, whatever the files are called."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from monai_sasm.datasets import mayo
from tests.data import shared
from tests.io.dicom.dicom_cases import ct_slice, save

CHALLENGE = ("L096/full_3mm", "L096/quarter_3mm")
TCIA = (
    "LDCT-and-Projection-data/L096/08-21-2018-NA-NA-86597/1.000000-Full Dose Images-39867",
    "LDCT-and-Projection-data/L096/08-21-2018-NA-NA-86597/1.000000-Low Dose Images-71883",
)
SHARED = ("ct_pairs/L096_dicom/full", "ct_pairs/L096_dicom/quarter")


def scan(root: Path, folder: str, heights: list[float], kernel: str = "B30f", shift: int = 0) -> None:
    """Slices at ``heights`` (mm) whose file names say nothing and whose UIDs are all alike."""
    for number, z in enumerate(heights):
        dataset = ct_slice(
            number, position=(-20.0, -30.0, z), ConvolutionKernel=kernel, SeriesInstanceUID="1.2", SOPInstanceUID="1.3"
        )
        pixels = np.frombuffer(dataset.PixelData, np.int16) + np.int16(shift)
        dataset.PixelData = pixels.tobytes()
        save(dataset, root / folder / f"{(number * 5) % 7}-{kernel}.IMA")


@pytest.mark.parametrize("folders", [CHALLENGE, TCIA, SHARED], ids=["challenge", "tcia", "shared"])
def test_pairs_are_found_by_position(tmp_path: Path, folders: tuple[str, str]) -> None:
    scan(tmp_path, folders[0], [0.0, 3.0, 6.0, 9.0])
    scan(tmp_path, folders[1], [9.01, 6.0, 3.0], shift=20)
    found = mayo.pairs(tmp_path)
    assert [(pair.patient, pair.kernel, pair.position[2]) for pair in found] == [
        ("L096", "B30f", z) for z in (3.0, 6.0, 9.0)
    ]
    assert all("ull" in str(pair.full.parent) and "ull" not in pair.low.parent.name for pair in found)
    full = mayo.training_pairs(tmp_path)[0][0]
    assert full.shape == (1, 64, 64)
    header = ct_slice(1)
    expected = (np.frombuffer(header.PixelData, np.int16).reshape(64, 64) - 1024) / 1000
    np.testing.assert_allclose(full[0], expected, atol=1e-6)
    assert len(mayo.training_pairs(tmp_path, limit=2)) == 2


def test_kernels_are_kept_apart(tmp_path: Path) -> None:
    for kernel in ("B30f", "D45f"):
        for folder in CHALLENGE:
            scan(tmp_path, f"{folder}_{kernel}", [0.0, 3.0], kernel)
    assert [pair.kernel for pair in mayo.pairs(tmp_path)] == ["B30f", "B30f", "D45f", "D45f"]
    assert [pair.full.name.split("-")[1] for pair in mayo.pairs(tmp_path, kernel="D45")] == ["D45f.IMA"] * 2
    with pytest.raises(FileNotFoundError, match="no pair with a kernel 'H'; there are B30f, D45f"):
        mayo.pairs(tmp_path, kernel="H")


def test_patients_are_chosen_and_misspelt_ones_refused(tmp_path: Path) -> None:
    for patient in ("L067", "L506", "C002"):
        for folder in CHALLENGE:
            scan(tmp_path, folder.replace("L096", patient), [0.0])
    assert [pair.patient for pair in mayo.pairs(tmp_path)] == ["C002", "L067", "L506"]
    assert [pair.patient for pair in mayo.pairs(tmp_path, exclude=["L506"])] == ["C002", "L067"]
    assert [pair.patient for pair in mayo.pairs(tmp_path, include=["L506"])] == ["L506"]
    with pytest.raises(FileNotFoundError, match="no subject named L560"):
        mayo.pairs(tmp_path, exclude=["L560"])


def test_slices_without_partner_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan(tmp_path, CHALLENGE[0], [0.0, 3.0])
    scan(tmp_path, CHALLENGE[1], [3.0, 4.5])
    with caplog.at_level(logging.WARNING):
        assert len(mayo.pairs(tmp_path)) == 1
    assert "2 slices" in caplog.text


def test_projections_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for folder in TCIA:
        scan(tmp_path, folder, [0.0])
    scan(tmp_path, TCIA[0].replace("Images", "Projections"), [0.0])
    (tmp_path / TCIA[0] / "LICENSE.txt").write_text("TCIA")
    assert len(mayo.pairs(tmp_path)) == 1


def test_what_is_no_set_of_pairs_is_refused(tmp_path: Path) -> None:
    scan(tmp_path, CHALLENGE[0], [0.0, 3.0])
    with pytest.raises(FileNotFoundError, match=r"no slice at two doses .*\(2 at one dose\); expected folders"):
        mayo.pairs(tmp_path)
    scan(tmp_path, CHALLENGE[1], [0.0, 0.02])
    with pytest.raises(ValueError, match="lie at one position"):
        mayo.pairs(tmp_path)


def test_the_real_pairs_are_read() -> None:
    found = mayo.pairs(shared("ct_ldct_pairs"))
    assert len(found) == 10
    assert {(pair.patient, pair.kernel) for pair in found} == {("L096", "D45f")}
    for full, low in mayo.training_pairs(shared("ct_ldct_pairs"), limit=3):
        noise = (full - low)[(full > -0.16) & (full < 0.24)]
        assert abs(float(noise.mean())) < 0.002, "the doses share their mean"
        assert 0.05 < float(noise.std()) < 0.1
