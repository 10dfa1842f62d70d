"""Values and shapes at the ends of what an image can be: restored or refused, and what was no number stays none."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.hostile.laws import restored
from tests.io.dicom.dicom_cases import ct_slice, mr_slice, save

GAIN = 0.5  # of the experts
FLOAT32 = np.finfo(np.float32)
SHAPE = (9, 8, 4)


def ramp() -> NDArray[np.float32]:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def with_holes(*values: float) -> NDArray[np.float32]:
    array = ramp()
    for index, value in enumerate(values):
        array[index, 2, 1] = value
    return array


VOLUMES = {
    "holes": with_holes(np.nan, np.inf, -np.inf),
    "one good voxel": np.where(ramp() == 7, ramp(), np.nan).astype(np.float32),
    "zero": np.zeros(SHAPE, np.float32),
    "constant": np.full(SHAPE, 41.5, np.float32),
    "huge": with_holes(FLOAT32.max, -FLOAT32.max),
    "tiny": ramp() * FLOAT32.tiny,
    "beyond float32": ramp().astype(np.float64) * 1e300,
    "one row": ramp()[:, :1],
    "one slice": ramp()[..., :1],
    "flat": ramp()[..., 0],
    "two by two": ramp()[:2, :2, :1],
    "64 bit": (ramp().astype(np.int64) + 2**40),
}
REFUSED = {
    "nothing finite": (np.full(SHAPE, np.nan, np.float32), "NaN or infinite"),
    "one voxel": (np.ones((1, 1, 1), np.float32), "two axes"),
    "one line": (ramp()[:, :1, :1], "two axes"),
}


@pytest.mark.parametrize("modality", ["T1w", "ct"])
def test_volumes_of_any_values_are_restored_or_refused(modality: str, trust: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, array in {**VOLUMES, **{name: array for name, (array, _) in REFUSED.items()}}.items():
        image = nibabel.Nifti1Image(array, np.diag([1.0, 1, 3, 1]), dtype=array.dtype)
        (source / f"{name}_{modality}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 1))
    told = restored(source, output, trust, identify=True)
    rows = {Path(row["input"]["path"]).name.rsplit("_", 1)[0]: row for row in told}
    for name, (_, reason) in REFUSED.items():
        assert rows[name]["status"] in ("skipped", "failed")
        assert reason in rows[name]["reason"]
    for name, array in VOLUMES.items():
        if rows[name]["status"] != "ok":
            print(name, rows[name]["reason"])
            assert name in ("huge", "beyond float32"), rows[name]
            continue
        (result,) = output.glob(f"{name}*.nii.gz")
        done = np.asanyarray(nibabel.load(result).dataobj)
        assert done.shape == array.shape, name
        np.testing.assert_array_equal(np.isnan(done), np.isnan(array), err_msg=name)
        finite = np.isfinite(array)
        np.testing.assert_array_equal(done[~finite], array[~finite], err_msg=name)
    (constant,) = output.glob("constant*.nii.gz")
    assert np.ptp(nibabel.load(constant).dataobj) < 1e-5


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (2, 2), (7, 3)])
def test_slices_of_few_pixels(rows: int, columns: int, trust: Path, tmp_path: Path) -> None:
    for make, signed in ((ct_slice, "<i2"), (mr_slice, "<u2")):
        dataset = make(0)
        dataset.Rows, dataset.Columns = rows, columns
        dataset.PixelData = np.full((rows, columns), 1000).astype(signed).tobytes()
        save(dataset, tmp_path / "in" / f"{make.__name__}.dcm")
    rows_of = restored(tmp_path / "in", tmp_path / "out", trust)
    assert [row["status"] for row in rows_of] == ["ok", "ok"]
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert pydicom.dcmread(path).pixel_array.shape == (rows, columns)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_pictures_of_few_pixels(size: tuple[int, int], mode: str, trust: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", size, (200, 90, 30))
    Image.fromarray(np.full(size[::-1], 60000, np.uint16)).save(tmp_path / "in" / "deep.png")
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "in" / "a.png")
    rows = restored(tmp_path / "in", tmp_path / "out", trust)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    for name in ("a.png", "deep.png"):
        before, after = (Image.open(tmp_path / place / name) for place in ("in", "out"))
        assert (after.size, after.mode) == (before.size, "RGB" if before.mode == "P" else before.mode)
