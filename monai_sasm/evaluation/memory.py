"""Peak memory of one restoration: run as a fresh process, ``python -m monai_sasm.evaluation.memory DEVICE series
1000``.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

EXPERTS = {"series": "lowdose_ct_unet", "photo": "noise_photo_unet"}


def restore_from_disk(kind: str, size: tuple[int, ...], device: str) -> None:
    """Make an input on disk, read, restore and write it.

    Args:
        kind: ``series`` (size: slices) or ``photo`` (size: height, width).
        size: see ``kind``.
        device: see :func:`monai_sasm.restore.load_house`.
    """
    from monai_sasm.io.formats import read, write
    from monai_sasm.restore import Options, derivation, load_house, restore

    with tempfile.TemporaryDirectory() as folder:
        source = _make(kind, size, Path(folder))
        house = load_house(device)
        options = Options() if house.gate is not None else Options(expert=EXPERTS[kind])
        volume = read(source)[0]
        result = restore(volume, house, options)
        write(result.volume, Path(folder) / f"out{source.suffix}", derivation(house, options))


def _make(kind: str, size: tuple[int, ...], folder: Path) -> Path:
    if kind == "series":
        from monai_sasm.evaluation.series import write_ct_series

        write_ct_series(folder / "in", size[0])
        return folder / "in"
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[: size[0], : size[1]]
    scene = np.stack([rows * 255 // size[0], columns * 255 // size[1], (rows + columns) % 256], -1)
    noise = 25 * np.random.default_rng(0).standard_normal((256, 256, 3))
    tiled = np.tile(noise, (-(-size[0] // 256), -(-size[1] // 256), 1))[: size[0], : size[1]]
    Image.fromarray(np.clip(scene + tiled, 0, 255).astype(np.uint8)).save(folder / "in.png", compress_level=1)
    return folder / "in.png"


if __name__ == "__main__":
    restore_from_disk(sys.argv[2], tuple(map(int, sys.argv[3:])), sys.argv[1])
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes on macOS, kilobytes on Linux
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}))
