"""What a photo that was read holds in memory: its pixels, and neither its file nor the decoder's copies."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_sasm.io.photo.photo import read

SIDE = 600


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_a_photo_holds_its_pixels_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    """Without waiting for the garbage collector: between two of its rounds a photo of 100 megapixels is restored."""
    path = tmp_path / f"photo.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    read(path)  # loads the decoder
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        volume = read(path)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert volume.array.nbytes <= held < volume.array.nbytes + pixels.nbytes // 2
