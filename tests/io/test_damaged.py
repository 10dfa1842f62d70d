"""Damage inside of a file is refused, or said: nothing is filled with grey, zeros or another slice."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames

from monai_sasm.errors import RefusedError
from monai_sasm.io import formats
from tests.hostile.intact import CODINGS
from tests.io.dicom.dicom_cases import STEP, ct_slice, file_meta_of, save, save_all

PICTURE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", quality=85, **options)
    return buffer.getvalue()


def opened(folder: Path, name: str, content: bytes) -> tuple[str, ...]:
    (folder / name).write_bytes(content)
    return formats.inventory(folder / name)[0].load().notes


@pytest.mark.parametrize("damage", ["missing", "ends", "marker"])
def test_a_jpeg_with_missing_pixels_is_refused(damage: str, tmp_path: Path) -> None:
    intact = jpeg()
    middle = len(intact) // 2
    content = {
        "missing": intact[:middle] + intact[middle + 900 :],
        "ends": intact[:middle] + b"\xff\xd9",
        "marker": intact[:middle] + b"\xff\xd9\xff\xd9" + intact[middle + 4 :],
    }[damage]
    with pytest.raises(RefusedError, match="JPEG"):
        opened(tmp_path, "a.jpg", content)
    assert not opened(tmp_path, "b.jpg", intact)
    assert not opened(tmp_path, "c.jpg", jpeg(progressive=True))


@pytest.mark.parametrize("zeros", [200, 3000])
def test_bytes_that_do_not_belong_into_a_jpeg_are_said(zeros: int, tmp_path: Path) -> None:
    intact = jpeg()[:-2]
    whole = intact + bytes(zeros) if zeros == 200 else intact[:-zeros] + bytes(zeros)
    notes = opened(tmp_path, "a.jpg", whole + b"\xff\xd9")
    assert any("do not belong to it" in note for note in notes)


@pytest.mark.parametrize("packed", [{"rowsperstrip": 8}, {"rowsperstrip": 8, "compression": "lzw"}, {"tile": (32, 32)}])
@pytest.mark.parametrize("damage", ["empty", "nowhere", "planar"])
def test_a_tiff_with_holes_is_refused(damage: str, packed: dict[str, object], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PICTURE, photometric="rgb", **packed)  # type: ignore[arg-type]
    content = bytearray(buffer.getvalue())
    codes = {"empty": (279, 325), "nowhere": (273, 324), "planar": (284,)}[damage]
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tag = next(tag for tag in file.pages[0].tags if tag.code in codes)
        form = {3: "<H", 4: "<I"}[int(tag.dtype)]
    where = 0 if damage == "planar" else 2
    struct.pack_into(form, content, tag.valueoffset + where * struct.calcsize(form), 7 if damage == "planar" else 0)
    with pytest.raises(RefusedError, match="TIFF"):
        opened(tmp_path, "a.tif", bytes(content))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_cut_frame_is_refused(coding: str, part: float, tmp_path: Path) -> None:
    dataset = ct_slice(0, series=coding)
    dataset.file_meta = file_meta_of(dataset)
    dataset.compress(CODINGS[coding], generate_instance_uid=False)
    save(dataset, tmp_path / "whole" / "a.dcm")
    formats.inventory(tmp_path / "whole")[0].load()
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    cut = frame[: int(len(frame) * part)]
    dataset.PixelData = encapsulate([cut + b"\0" * (len(cut) % 2)])
    dataset["PixelData"].is_undefined_length = True
    save(dataset, tmp_path / "cut" / "a.dcm")
    with pytest.raises(RefusedError, match=r"cannot be decoded|is cut off"):
        formats.inventory(tmp_path / "cut")[0].load()


def test_a_series_without_its_middle_is_not_regular(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path)
    middle = sorted(tmp_path.iterdir())[1]
    middle.write_bytes(middle.read_bytes()[:140] + random.Random(0).randbytes(300))
    reasons = [str(entry.refusal) for entry in formats.inventory(tmp_path)]
    assert len(reasons) == 2
    assert any("it may have a hole" in reason for reason in reasons)
    assert "None" not in reasons


def test_a_slice_that_lost_its_spacing_leaves_a_hole(tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(5)]
    del slices[2].PixelSpacing
    save_all(slices, tmp_path)
    assert all(
        "hole" in str(entry.refusal) or "Pixel Spacing" in str(entry.refusal) for entry in formats.inventory(tmp_path)
    )


@pytest.mark.parametrize("spacing", ["nan", "inf", "-inf", "0"])
def test_spacing_between_slices_that_is_none_counts_as_absent(spacing: str, tmp_path: Path) -> None:
    dataset = ct_slice(0, SpacingBetweenSlices=1.0, SliceThickness=STEP)
    path = save(dataset, tmp_path / "a.dcm")
    plain = path.read_bytes()
    text = b"1.0 "
    at = plain.index(b"\x18\x00\x88\x00DS") + 8
    assert plain[at : at + len(text)] == text
    path.write_bytes(plain[:at] + spacing.ljust(4).encode() + plain[at + 4 :])
    (entry,) = formats.inventory(path)
    volume = entry.load()
    assert np.isfinite(volume.affine).all()
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, 0]), STEP)
