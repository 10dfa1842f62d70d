"""A folder of small photos for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo_folder(folder: Path, names: str) -> Path:
    """A new folder with one PNG of noise, 32 x 40 pixels, for each letter."""
    folder.mkdir()
    for name in names:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 32, 3), np.uint8)).save(folder / f"{name}.png")
    return folder
