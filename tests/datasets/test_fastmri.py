"""fastMRI files made here: the reference where there is one, else the root sum of squares of the coils."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_sasm.datasets import fastmri
from monai_sasm.degradations.kspace import to_kspace
from monai_sasm.optional import MissingExtraError
from monai_sasm.types import Modality

h5py = pytest.importorskip("h5py")

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>40</x><y>28</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>20</x><y>24</y><z>1</z></matrixSize>
<fieldOfView_mm><x>100</x><y>96</y><z>4.5</z></fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"""


def truth() -> np.ndarray:
    """A disc and a bar in three slices of 40 x 28, brighter from slice to slice, 0 in the oversampled margin."""
    row, column = np.mgrid[:40, :28]
    image = 1.0 * ((row - 20) ** 2 + (column - 14) ** 2 < 60) + 0.5 * ((row > 22) & (column > 16) & (column < 20))
    image[:10] = image[30:] = 0
    return np.stack([image * scale for scale in (1.0, 2.0, 3.0)])


def coils() -> np.ndarray:
    """Complex sensitivities of four coils whose squares sum to 1, ``(4, 40, 28)``."""
    row, column = np.mgrid[:40, :28] / 10
    maps = np.stack([1 + np.cos(row + k) + 1j * np.sin(column - k) for k in range(4)])
    return np.asarray(maps / np.sqrt((np.abs(maps) ** 2).sum(0)))


def transformed(images: np.ndarray) -> np.ndarray:
    return to_kspace(torch.from_numpy(images.astype(np.complex64))).numpy()


def volume(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


def test_coils_are_combined_and_the_margin_is_cropped(tmp_path: Path) -> None:
    kspace = transformed(truth()[:, None] * coils()[None])
    result = fastmri.read(volume(tmp_path / "file1.h5", kspace=kspace, ismrmrd_header=HEADER))
    np.testing.assert_allclose(result.array[0], truth()[:, 10:30, 2:26], atol=1e-5)
    np.testing.assert_allclose(np.diag(result.affine), [4.5, 5.0, 4.0, 1.0])  # type: ignore[arg-type]
    assert (result.modality, result.slice_axis, result.name) == (Modality.MR, 0, "file1")
    assert result.notes == ("fastMRI files hold no position and no orientation",)


def test_single_coil_kspace_needs_no_header(tmp_path: Path) -> None:
    result = fastmri.read(volume(tmp_path / "file1.h5", kspace=transformed(truth())))
    np.testing.assert_allclose(result.array[0], truth(), atol=1e-5)
    assert "1 mm is assumed" in result.notes[-1]


def test_the_reference_is_taken_where_it_is(tmp_path: Path) -> None:
    reference = np.random.default_rng(0).random((3, 8, 9)).astype(np.float32)
    for key in ("reconstruction_rss", "reconstruction_esc"):
        path = volume(tmp_path / f"{key}.h5", kspace=np.zeros((3, 12, 12), np.complex64), **{key: reference})
        np.testing.assert_array_equal(fastmri.read(path).array[0], reference)


def test_undersampled_files_are_refused_unless_wanted(tmp_path: Path) -> None:
    mask = np.arange(28) % 2 == 0
    path = volume(tmp_path / "test.h5", kspace=transformed(truth()) * mask, mask=mask)
    with pytest.raises(ValueError, match=r"test\.h5 is undersampled"):
        fastmri.read(path)
    folded = fastmri.read(path, undersampled=True).array[0]
    np.testing.assert_allclose(folded, (truth() + np.roll(truth(), 14, axis=2)) / 2, atol=1e-5)


def test_slices_come_in_working_scale_without_empty_ones(tmp_path: Path) -> None:
    images = truth()
    images[0] = 0
    for number in (2, 10):
        volume(tmp_path / f"file{number}.h5", reconstruction_rss=images.astype(np.float32))
    assert [path.stem for path in fastmri.files(tmp_path)] == ["file2", "file10"]
    found = fastmri.slices(tmp_path)
    assert [part.shape for part in found] == [(1, 40, 28)] * 4
    assert 0.9 < max(float(part.max()) for part in found) < 1.3
    assert len(fastmri.slices(tmp_path, exclude=["file2"])) == len(fastmri.slices(tmp_path, limit=1)) == 2
    with pytest.raises(FileNotFoundError, match="no subject named file3"):
        fastmri.files(tmp_path, include=["file3"])


def test_other_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither reconstruction_rss nor reconstruction_esc nor kspace"):
        fastmri.read(volume(tmp_path / "other.h5", data=np.zeros(3)))
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"text.h5 cannot be read as HDF5"):
        fastmri.read(tmp_path / "text.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no fastMRI volume"):
        fastmri.files(tmp_path / "empty")
    with pytest.raises(ValueError, match="k-space is"):
        fastmri.from_kspace(np.zeros((4, 4), np.complex64))


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"monai-sasm\[fastmri\]"):
        fastmri.read(tmp_path / "file1.h5")
