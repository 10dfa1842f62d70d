"""WebP, GIF, JPEG 2000, AVIF and HEIC: read, and written as PNG, which loses nothing more."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.photo.pixels import Pixels, check_size, split
from monai_sasm.io.photo.png import PngHeader
from monai_sasm.io.silence import quiet
from monai_sasm.optional import MissingExtraError, require

_FORMATS = {"WEBP": "WEBP", "GIF": "GIF", "JPEG 2000": "JPEG2000", "AVIF": "AVIF", "HEIC": "HEIF"}
"""Our kind -> what Pillow calls it."""
_MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "I;16": "I;16"}
_J2K_SIZE = b"\xff\x4f\xff\x51"  # SOC and SIZ; components follow 38 bytes behind (ISO/IEC 15444-1 A.5.1)
_COUNT, _DEPTHS = 40, 42
_AV1_CONFIGURATION, _HIGH, _TWELVE = b"av1C", 0x40, 0x20  # its third byte has the bits high_bitdepth and twelve_bit


def kind_of(head: bytes) -> str | None:
    """Which of them a file is by its first bytes."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"\0\0\0\x0cjP  ", _J2K_SIZE)):
        return "JPEG 2000"
    if head[4:8] != b"ftyp":
        return None
    (length,) = struct.unpack(">I", head[:4])
    brands = {head[at : at + 4] for at in (8, *range(16, min(length, len(head)), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"} else None


def inspect(data: bytes) -> None:
    """Check the header.

    Raises:
        RefusedError: damaged, in colours for printing, too large, or its decoder is not installed.
    """
    _open(data)


def decode(data: bytes) -> Pixels:
    """Pixels of the first picture, with the colour profile and EXIF as chunks of a PNG file; palettes become RGB.

    Raises:
        RefusedError: as :func:`inspect`, or the pixels are damaged.
    """
    image, kind = _open(data)
    frames = getattr(image, "n_frames", 1)
    depth = _depth(data, image, kind)
    try:
        pixels = _deep(data, kind, depth) if depth > 8 else None
        cut = depth > 8 and pixels is None
        if pixels is None:
            mode = _MODES[image.mode]
            if "transparency" in image.info and mode in ("L", "RGB"):
                mode = {"L": "LA", "RGB": "RGBA"}[mode]
            pixels = np.array(image.convert(mode))
    except RefusedError:
        raise
    except Exception as error:  # each decoder raises its own
        raise UnreadableError(f"the {kind} pixels are damaged or end early: copy or export the file again") from error
    notes: tuple[str, ...] = (f"a {kind} file, written as PNG",)
    if cut:
        notes += (f"a picture of {depth} bits, read with 8, which is what the decoder installed here gives",)
    if frames > 1:
        notes += (f"only the first of {frames} pictures in this {kind} file is processed",)
    return split(pixels, PngHeader(_chunks(image)), notes)


def _open(data: bytes) -> tuple[Any, str]:
    from PIL import Image

    kind = kind_of(data[:64]) or "HEIC"
    if kind == "HEIC":
        try:
            _pillow_heif().register_heif_opener()
        except MissingExtraError as error:
            raise UnreadableError(f"{error}; or convert it to PNG") from error
    try:
        with quiet():  # of many pixels and damaged EXIF; what matters is refused
            image = Image.open(io.BytesIO(data), formats=[_FORMATS[kind]])
            image.seek(0)
    except Image.DecompressionBombError as error:
        raise RefusedError("more pixels than any camera makes: cut the image into parts") from error
    except KeyError as error:  # a Pillow that was built without it
        raise UnreadableError(f"this Pillow has no decoder for {kind}: convert the file to PNG") from error
    except Exception as error:
        raise UnreadableError(f"the {kind} header is damaged or of an unknown kind: save it as PNG") from error
    if image.mode not in _MODES:
        raise RefusedError(f"a {kind} file in mode {image.mode}: convert it to RGB")
    check_size(*image.size, len(image.getbands()), stored=len(data))
    return image, kind


def _j2k_depth(data: bytes) -> int:
    """Bits of the deepest component, by the codestream's own header."""
    start = data.find(_J2K_SIZE)
    if start < 0 or len(data) < start + _DEPTHS:
        return 8
    (count,) = struct.unpack(">H", data[start + _COUNT : start + _DEPTHS])
    return max((depth & 0x7F) + 1 for depth in data[start + _DEPTHS :: 3][:count]) if count else 8


def _depth(data: bytes, image: Any, kind: str) -> int:
    """Bits of a sample; 8 for those kinds that have no others."""
    if kind == "JPEG 2000":
        return _j2k_depth(data)
    if kind == "AVIF":
        return _avif_depth(data)
    return int(image.info.get("bit_depth") or 8) if kind == "HEIC" else 8


def _avif_depth(data: bytes) -> int:
    """By the configuration of its pictures, which stands before their bytes (AV1 in ISOBMFF 2.3.3)."""
    depth, head = 8, data[: max(0, data.find(b"mdat")) or len(data)]
    start = head.find(_AV1_CONFIGURATION)
    while start >= 0:
        told = head[start + 6] if start + 6 < len(head) else 0
        depth = max(depth, (12 if told & _TWELVE else 10) if told & _HIGH else 8)
        start = head.find(_AV1_CONFIGURATION, start + 1)
    return depth


def _deep(data: bytes, kind: str, depth: int) -> NDArray[Any] | None:
    """Pixels of more than 8 bits, which Pillow cuts off, spread over 16; ``None`` where no decoder here gives them."""
    pixels = {"AVIF": _deep_avif, "HEIC": _deep_heic, "JPEG 2000": _deep_j2k}[kind](data, depth)
    if pixels is None:
        return None
    if pixels.dtype != np.uint16 or depth > 16 or (pixels.ndim == 3 and pixels.shape[2] > 4):
        raise RefusedError(f"a {kind} file with {depth} bits of type {pixels.dtype}: save it as 16-bit PNG")
    return pixels if depth == 16 else np.rint(pixels * np.float64(65535 / (2**depth - 1))).astype(np.uint16)


def _deep_j2k(data: bytes, depth: int) -> NDArray[Any]:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg2k_decode(data))


def _deep_avif(data: bytes, depth: int) -> NDArray[Any] | None:
    import imagecodecs

    if not getattr(getattr(imagecodecs, "AVIF", None), "available", False):
        return None
    return np.asarray(imagecodecs.avif_decode(data, index=0))


def _deep_heic(data: bytes, depth: int) -> NDArray[Any] | None:
    with quiet():
        picture = _pillow_heif().open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)[0]
    if not picture.mode.endswith(";16"):
        return None
    return np.asarray(picture) >> (16 - depth)  # it fills up with zeros


def _pillow_heif() -> Any:
    return require("pillow_heif", "a HEIC file", "pip install 'monai-sasm[formats]'")


def _chunks(image: Any) -> tuple[tuple[bytes, bytes], ...]:
    """Colour profile and EXIF, which also says how the picture is turned."""
    chunks = []
    if image.info.get("icc_profile"):
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(image.info["icc_profile"])))
    exif = image.info.get("exif") or b""
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    return tuple(chunks)
