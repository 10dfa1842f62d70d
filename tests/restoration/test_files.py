"""Files and folders from Python: what is in the way of one result stops no other, and is seen before the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

import monai_sasm as sasm
from monai_sasm.errors import RefusedError
from monai_sasm.restoration.restorer import Restorer
from tests.io.dicom.dicom_cases import ct_slice, save


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are worked on."""
    names: list[str] = []
    work = Restorer.__call__

    def counted(self: Restorer, volume: Any, *arguments: Any, **more: Any) -> Any:
        names.append(volume.name)
        return work(self, volume, *arguments, **more)

    monkeypatch.setattr(Restorer, "__call__", counted)
    return names


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_a_result_that_exists_stops_no_other(photos: Path, tmp_path: Path, restored: list[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"^photos/b\.png: .*b\.png exists; choose .* or pass overwrite=True$"):
        sasm.restore(photos, out, strength=0.0)
    assert restored == ["a", "c"], "what cannot be written is not worked on"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]
    assert (out / "b.png").read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_what_lies_behind_a_locked_folder_stays_so(photos: Path, tmp_path: Path) -> None:
    (photos / "sub").mkdir()
    (photos / "a.png").rename(photos / "sub" / "a.png")
    photos.chmod(0o700)
    sasm.restore(photos, tmp_path / "out", strength=0.0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "c.png", "sub"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_a_damaged_image_and_a_result_that_exists_are_told_together(
    photos: Path, tmp_path: Path, restored: list[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"old")
    (photos / "bad.png").write_bytes((photos / "a.png").read_bytes()[:60])
    with pytest.raises(RefusedError) as refused:
        sasm.restore(photos, out, strength=0.0)
    assert "photos/b.png: " in str(refused.value)
    assert "photos/bad.png: " in str(refused.value)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]
    assert len(sasm.restore(photos / "b.png", out, strength=0.0, overwrite=True)) == 1


def test_a_map_in_the_way_is_seen_before_the_work(photos: Path, tmp_path: Path, restored: list[str]) -> None:
    (tmp_path / "a_change.png").write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"a_change\.png"):
        sasm.restore(photos / "a.png", tmp_path, strength=0.0, keep_maps=True)
    assert not restored


def test_a_folder_of_one_series_has_a_file_for_its_result(tmp_path: Path) -> None:
    for number in range(4):
        save(ct_slice(number), tmp_path / "series" / f"{number}.dcm")
    target = tmp_path / "x.nii.gz"
    assert sasm.restore(tmp_path / "series", target, strength=0.0) == [target]
    assert nibabel.load(target).shape == (64, 64, 4)
    for number in range(4):
        save(ct_slice(number, series="other"), tmp_path / "series" / f"other{number}.dcm")
    with pytest.raises(ValueError, match=r"y\.nii\.gz is the name of one file, and there are 2 images"):
        sasm.restore(tmp_path / "series", tmp_path / "y.nii.gz", strength=0.0)
