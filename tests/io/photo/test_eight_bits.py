"""Photos to train on are the same in 8 bits, whatever the depth of their samples."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from monai_sasm.errors import UnreadableError
from monai_sasm.io.photo.eight_bits import read_bytes

RAMP = np.linspace(0, 1, 16 * 16).reshape(16, 16)
SAMPLES = {
    "eight.png": np.rint(255 * RAMP).astype(np.uint8),
    "sixteen.png": np.rint(65535 * RAMP).astype(np.uint16),
    "sixteen.tif": np.rint(65535 * RAMP).astype(np.uint16),
    "float.tif": RAMP.astype(np.float32),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_grey_photos_of_any_depth_become_eight_bits(name: str, tmp_path: Path) -> None:
    Image.fromarray(SAMPLES[name]).save(tmp_path / name)
    _check(read_bytes(tmp_path / name))
    _check(read_bytes(BytesIO((tmp_path / name).read_bytes())))


def test_colour_of_sixteen_bits(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.stack([SAMPLES["sixteen.tif"]] * 3, -1), photometric="rgb")
    _check(read_bytes(tmp_path / "a.tif"))


def test_what_is_no_photo_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no photo")
    with pytest.raises(UnreadableError, match=r"notes\.png is no photo"):
        read_bytes(tmp_path / "notes.png")


def _check(photo: NDArray[np.uint8]) -> None:
    assert photo.shape == (3, 16, 16)
    assert photo.dtype == np.uint8
    assert np.abs(photo - 255 * RAMP).max() <= 0.51
