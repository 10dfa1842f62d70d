"""``sasm inpaint`` and ``sasm enlarge`` say what they did not take, and what is not as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageOps

from monai_sasm.io.volume import Volume
from tests.data import ct_small


@pytest.mark.parametrize("command", [("enlarge",), ("inpaint", "--mask", "{in}")])
def test_only_where_there_are_no_photos_it_is_said(sasm: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "in").mkdir()
    arguments = [part.format(**{"in": tmp_path / "in"}) for part in command]
    shutil.copy(ct_small(), tmp_path / "in")
    code, _, err = sasm(*arguments, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "no photos in the input" in err) == (3, True)
    Image.new("I", (8, 8)).save(tmp_path / "in" / "deep.tif")
    code, _, err = sasm(*arguments, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "deep.tif: skipped: " in err, "no photos" in err) == (3, True, False)
    (tmp_path / "in" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "in" / "deep.tif").unlink()
    code, _, err = sasm(*arguments, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "cut.png: failed: " in err, "no photos" in err) == (4, True, False)


@pytest.mark.parametrize("orientation", [3, 6])
def test_what_is_painted_on_a_turned_photo_is_what_is_filled(
    sasm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.png", exif=exif)
    shown = np.full((30, 20) if orientation == 6 else (20, 30), 255, np.uint8)
    shown[2, 3:9] = 0
    Image.fromarray(shown).save(tmp_path / "mask.png")

    def filled(photo: Volume, bundle: object, known: np.ndarray, steps: int | None) -> Volume:
        return photo.with_array(np.where(known, photo.array, 1).astype(np.float32))

    bundle = SimpleNamespace(name="toy", sha256="0", settings={}, network=SimpleNamespace(steps=1))
    monkeypatch.setattr("monai_sasm.cli.pictures._loaded", lambda *arguments: bundle)
    monkeypatch.setattr("monai_sasm.restoration.pictures.inpaint_photo", filled)
    code, _, err = sasm("inpaint", tmp_path / "a.png", "--mask", tmp_path / "mask.png", "-o", tmp_path / "b.png")
    assert code == 0, err
    with Image.open(tmp_path / "b.png") as image:
        result = np.asarray(ImageOps.exif_transpose(image))[..., 0]
    np.testing.assert_array_equal(result == 255, shown == 0)


@pytest.mark.parametrize("command", ["enlarge", "inpaint"])
def test_what_is_no_photo_is_told_so_and_asked_nothing(sasm: Any, tmp_path: Path, command: str) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)), tmp_path / "brain.nii")
    mask = ["--mask", tmp_path] if command == "inpaint" else []
    code, _, err = sasm(command, tmp_path / "brain.nii", "-o", tmp_path / "out", *mask)
    skipped, *rest = err.splitlines()
    assert (code, rest) == (3, ["sasm: no photos in the input"])
    assert skipped.endswith("brain.nii: skipped: not a photo")
    _, out, _ = sasm(command, "--help")
    assert not any(other in out for other in ("DICOM", "NIfTI", ".nii"))
