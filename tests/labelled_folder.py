"""A small labelled set on disk: classes that differ in colour, with a little texture."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "airplane": (220, 40, 40),
    "automobile": (40, 220, 40),
    "bird": (40, 40, 220),
    "cat": (220, 220, 40),
    "deer": (40, 220, 220),
    "dog": (220, 40, 220),
    "frog": (230, 230, 230),
    "horse": (20, 20, 20),
    "ship": (230, 130, 30),
    "truck": (110, 110, 110),
}


def write_labelled(root: Path, train: int = 10, test: int = 2, size: int = 16, zipped: bool = False) -> Path:
    """``<root>/{train,test}/<class>/nnnn.png``, so many per class; as two zips when ``zipped``."""
    random = np.random.RandomState(0)
    for split, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.array(colour) + 20 * random.standard_normal((size, size, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:04d}.png")
        if zipped:
            with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
                for path in sorted((root / split).glob("*/*")):
                    archive.write(path, path.relative_to(root))
                    path.unlink()
            for folder in [*(root / split).glob("*"), root / split]:
                folder.rmdir()
    return root
