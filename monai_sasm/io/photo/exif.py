"""How a photo is turned to be looked at: tag 274 of EXIF 2.3, and a block that holds nothing else."""

from __future__ import annotations

from typing import Any

from monai_sasm.io.silence import quiet

_ORIENTATION = 274
_HEAD = b"Exif\0\0"  # of JPEG; a PNG chunk goes without


def orientation_in(block: bytes) -> int:
    """1 to 8 by an EXIF block; 1, as it is stored, where it does not say it or is damaged."""
    from PIL import Image

    exif: Any = Image.Exif()
    try:
        with quiet():  # of what is damaged
            exif.load(_HEAD + block.removeprefix(_HEAD))
            told = exif.get(_ORIENTATION)
    except Exception:  # each kind of damage raises its own
        return 1
    return told if isinstance(told, int) and 1 <= told <= 8 else 1


def orientation_block(orientation: int) -> bytes:
    """The EXIF block that says only this, as a PNG chunk has it."""
    from PIL import Image

    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif.tobytes().removeprefix(_HEAD)
