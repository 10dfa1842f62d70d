"""TIFF of one picture, 8, 16 or float samples; resolution, profile, XMP, orientation and further tags are copied."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.photo.pixels import Pixels, check_size, split
from monai_sasm.io.silence import quiet

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
_LOSSLESS = {1: None, 5: "lzw", 8: "adobe_deflate", 32946: "deflate", 32773: "packbits", 50000: "zstd"}
_OF_ANOTHER = 1 | 4  # bits of NewSubfileType: a smaller version of another page, or its mask
_RAW_TAGS = (50706, 50752, 33422)  # DNGVersion, CR2 slices, CFAPattern
_EXIF_BLOCKS = {34665: "EXIF", 34853: "GPS"}
_KEPT = (  # tags by value that say something about the picture, not about its packing
    *(269, 270, 271, 272, 274, 285, 305, 306, 315, 316, 318, 319, 33432),  # names, orientation, camera, colour
    *(700, 33723, 34377, 34675),  # XMP, IPTC, Photoshop, ICC profile
    *(33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113),  # GeoTIFF
)


@dataclass(frozen=True, eq=False)
class TiffHeader:
    """How the source was packed, and its tags ``(code, type, count, value)``.

    ``extra`` is what ExtraSamples says of the band behind the colours: 0 something, 1 or 2 transparency; ``None``
    without the tag.
    """

    byteorder: str
    big: bool
    inverted: bool
    compression: str | None
    predictor: bool
    extra: int | None
    resolution: tuple[Any, Any] | None
    resolution_unit: int
    tags: tuple[tuple[int, int, int, Any], ...]


def inspect(data: bytes) -> None:
    """Check the header.

    Raises:
        RefusedError: several pictures, CMYK and the like, an unusual bit depth, damaged, or too large.
    """
    with _page(data):
        pass


def decode(data: bytes) -> Pixels:
    """Pixels as stored (orientation is not applied) and what :func:`encode` needs.

    Raises:
        RefusedError: as :func:`inspect`, float values outside [0, 1], or the pixels are damaged.
    """
    with _page(data) as (page, byteorder, big):
        pixels = np.asarray(page.asarray())
        if page.axes.startswith("S"):  # separate planes
            pixels = np.moveaxis(pixels, 0, -1)
        header = _header(page, byteorder, big)
        notes = tuple(
            f"the {name} block of this TIFF is not carried over"
            for code, name in _EXIF_BLOCKS.items()
            if code in page.tags
        )
        if len(page.parent.pages) > 1:
            notes += ("the previews and masks behind the picture in this TIFF are not carried over",)
        photometric, colormap, bits = int(page.photometric), page.colormap, int(page.bitspersample)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if bits < 8 and photometric != _PALETTE:
        pixels = pixels.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
        notes = (*notes, f"{bits}-bit image, written with 8 bits")
    if photometric == _PALETTE:
        if pixels.max() >= colormap.shape[1]:
            raise UnreadableError("the TIFF is damaged, its palette is too short: export the file again")
        pixels = (colormap >> 8).astype(np.uint8)[:, pixels].transpose(1, 2, 0)
        notes = (*notes, "palette image, written as RGB")
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise RefusedError("a float TIFF must hold values from 0 to 1: scale it, or save it with 16 bits")
    if header.inverted:
        pixels = _invert(pixels)
    return split(pixels, header, notes)


def encode(pixels: Pixels) -> memoryview:
    """A TIFF file of these pixels, packed like the source where that is lossless, with its tags."""
    import tifffile

    header: TiffHeader = pixels.header
    stacked = pixels.stacked
    if header.inverted:
        stacked = _invert(stacked)
    grey = "miniswhite" if header.inverted else "minisblack"
    buffer = io.BytesIO()
    order: Any = header.byteorder
    with quiet(), tifffile.TiffWriter(buffer, bigtiff=header.big, byteorder=order) as writer:
        writer.write(
            stacked,
            photometric="rgb" if pixels.values.shape[2] == 3 else grey,
            planarconfig="contig" if stacked.ndim == 3 else None,
            extrasamples=None if pixels.alpha is None else [header.extra or 0],
            compression=header.compression,
            predictor=header.predictor,
            resolution=header.resolution,
            resolutionunit=header.resolution_unit if header.resolution else None,
            software=False,
            metadata=None,
            extratags=[(*tag, True) for tag in header.tags],
        )
    return buffer.getbuffer()


@contextmanager
def _page(data: bytes) -> Iterator[tuple[Any, str, bool]]:
    """The page of the picture, its byte order, and whether it is a BigTIFF; every parser error becomes a refusal."""
    import tifffile

    try:
        # parsed pages refer to each other and to the stream, which must not hold the file until they are collected
        with quiet(), io.BytesIO(data) as stream, tifffile.TiffFile(stream) as file:  # its log quotes tags
            if not file.pages:
                raise UnreadableError("the TIFF is damaged, it holds no page: export the file again")
            page, further = file.pages[0], file.pages[1:]
            if not all(int(one.subfiletype) & _OF_ANOTHER for one in further):
                raise RefusedError(f"a TIFF with {len(file.pages)} pages: save the wanted page as a single one")
            _check(page)
            yield page, file.byteorder, file.is_bigtiff
    except RefusedError:
        raise
    except Exception as error:  # damaged offsets and counts provoke any
        raise UnreadableError("the TIFF is damaged or packed in a way that cannot be read: save it as PNG") from error


def _check(page: Any) -> None:
    reduced = 254 in page.tags and int(page.tags[254].value) & 1
    if reduced or any(code in page.tags for code in _RAW_TAGS):
        raise RefusedError(
            "the first picture of this TIFF is a preview, as in camera raws: develop it, or export the whole"
        )
    samples = int(page.samplesperpixel)
    check_size(int(page.imagewidth), int(page.imagelength), samples, stored=page.parent.filehandle.size)
    photometric, extra = int(page.photometric), tuple(int(value) for value in page.extrasamples)
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
        raise RefusedError(f"a TIFF with photometric interpretation {photometric} (CMYK, Lab, ...): convert it to RGB")
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if samples - (len(extra) or samples == colours + 1) != colours or len(extra) > 1:  # alpha may be undeclared
        raise RefusedError(f"a TIFF with {samples} samples per pixel: save it as grey or RGB, with alpha or without")
    if int(page.imagedepth) != 1:
        raise RefusedError("a TIFF that holds a volume: convert it to NIfTI")
    bits, kind = int(page.bitspersample), page.dtype.kind if page.dtype is not None else "?"
    if (bits, kind) not in ((1, "b"), (2, "u"), (4, "u"), (8, "u"), (16, "u"), (16, "f"), (32, "f")):
        raise RefusedError(f"a TIFF with {bits}-bit samples of type {page.dtype}: save it with 8 or 16 unsigned bits")
    if 284 in page.tags and page.tags[284].value not in (1, 2):
        raise RefusedError("a TIFF with an unknown planar configuration: save it again, or as PNG")
    parts = math.prod(page.chunked)
    if len(page.dataoffsets) != parts or len(page.databytecounts) != parts or 0 in page.databytecounts:
        empty = sum(count == 0 for count in page.databytecounts)
        raise UnreadableError(
            f"{empty or 'some'} of the {parts} strips or tiles of the TIFF are empty or missing: export the file again"
        )
    if 0 in page.dataoffsets:
        raise UnreadableError("strips or tiles of the TIFF lie nowhere: the file is damaged, export it again")
    if photometric == _PALETTE and (page.colormap is None or extra or kind != "u"):
        raise RefusedError("a TIFF with an unusual palette: convert it to RGB")


def _header(page: Any, byteorder: str, big: bool) -> TiffHeader:
    code = int(page.compression)
    tags = page.tags
    resolution = None
    if 282 in tags and 283 in tags and all(_is_fraction(tags[code].value) for code in (282, 283)):
        resolution = (tags[282].value, tags[283].value)
    extra = tuple(int(value) for value in page.extrasamples)
    return TiffHeader(
        byteorder=byteorder,
        big=big,
        inverted=int(page.photometric) == _WHITE_IS_ZERO,
        compression=_LOSSLESS.get(code, "adobe_deflate"),
        predictor=int(page.predictor) in (2, 3) and _LOSSLESS.get(code) is not None,
        extra=extra[0] if extra else None,
        resolution=resolution,
        resolution_unit=int(tags[296].value) if 296 in tags and tags[296].value in (1, 2, 3) else 2,
        tags=tuple((tag.code, int(tag.dtype), tag.count, _tag_value(tag)) for tag in tags if tag.code in _KEPT),
    )


def _tag_value(tag: Any) -> Any:
    value = tag.value
    if isinstance(value, str):
        return value.encode()  # tifffile writes text as ASCII only, bytes as they are
    return int(value) if isinstance(value, int) else value


def _is_fraction(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(n, int) for n in value) and value[1] != 0


def _invert(pixels: NDArray[Any]) -> NDArray[Any]:
    """White is zero ⇄ black is zero; alpha, last of two channels, stays."""
    inverted = pixels.copy()
    grey = inverted if pixels.ndim == 2 else inverted[..., :1]
    full = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    grey[...] = full - grey
    return inverted
