"""Photos: bit depth, alpha, orientation, profile and resolution of PNG, JPEG, TIFF and BMP come back as they were."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.apart import decode
from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry, safe_name
from monai_sasm.io.photo import bmp, jpeg, pillow, png, pnm, tiff
from monai_sasm.io.photo.exif import orientation_block
from monai_sasm.io.photo.pixels import Pixels
from monai_sasm.io.photo.radiograph import note_on
from monai_sasm.io.photo.to_png import exif_orientation, png_header, straight
from monai_sasm.io.volume import Source, Volume
from monai_sasm.types import Modality

SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
}
"""File kinds that are written, with the suffixes a file of this kind may carry; the first is the default."""
READ_ONLY = {
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "JPEG 2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "HEIC": (".heic", ".heif", ".hif"),
    "PNM": (".pgm", ".ppm", ".pbm", ".pnm"),
}
"""File kinds that are read, and whose results are PNG files."""
_CODECS: dict[str, ModuleType] = {"PNG": png, "JPEG": jpeg, "TIFF": tiff, "BMP": bmp, "PNM": pnm}
_BAND = 256  # rows
_ROOM = 2**31  # bytes; a larger file is not a photo


@dataclass(frozen=True, eq=False)
class RasterSource(Source):
    """What the photo writer needs to give a file back.

    Args:
        path: the file that was read, if there was one.
        kind: a key of :data:`SUFFIXES`.
        pixels: a token of the decoded file: type of its samples, alpha and header (``values`` has no rows).
    """

    format = "raster"

    path: Path | None
    kind: str
    pixels: Pixels

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, if there was one."""
        return () if self.path is None else (self.path,)

    @property
    def exif_orientation(self) -> int:
        """By its EXIF block, or the tag of a TIFF."""
        return exif_orientation(self.pixels.header)

    def result_name(self, name: str) -> str:
        """Its own name."""
        return result_name(self.path or Path(name), self.kind)


def kind_of(head: bytes) -> str | None:
    """File kind by its first bytes, whatever its name says; ``None`` when it is none of these."""
    for kind, magics in (("PNG", (png.MAGIC,)), ("JPEG", (jpeg.MAGIC,)), ("TIFF", tiff.MAGICS), ("BMP", (bmp.MAGIC,))):
        if head.startswith(magics):
            return kind
    return "PNM" if pnm.is_pnm(head) else pillow.kind_of(head)


def result_name(path: Path, kind: str | None) -> str:
    """Name of the result of a photo: its own, with the suffix of its true kind, or of PNG."""
    kind = "PNG" if kind in READ_ONLY else kind
    return path.name if kind is None or path.suffix.lower() in SUFFIXES[kind] else path.stem + SUFFIXES[kind][0]


def inspect(path: Path) -> Entry:
    """Look at the header only. Never raises for a bad file: the entry then carries the reason."""
    refusal, unreadable, drawn = None, False, False
    try:
        kind, data = _load(path)
        drawn = kind == "PNG" and png.is_drawn(data)
        decode(inspected, kind, data, stored=len(data)) if _codec(kind) is pillow else inspected(kind, data)
    except RefusedError as error:
        refusal, unreadable = str(error), isinstance(error, UnreadableError)
    label = safe_name(path.stem)
    load = partial(read, path, label)
    return Entry(label, "raster", (path,), Modality.PHOTO, "single", refusal, (), load, None, unreadable, drawn)


def read(path: Path, name: str | None = None) -> Volume:
    """Read one photo.

    Returns:
        ``array`` float32 ``(C, H, W)`` in [0, 1], ``C`` 1 for grey or 3 for RGB, in stored order: the EXIF orientation
        is not applied but written back, so that viewers turn the result like the source. Alpha is kept aside.

    Raises:
        RefusedError: not a photo that can be processed rightly (see the message).
    """
    kind, data = _load(path)
    pixels = decode(decoded, kind, data, stored=len(data))
    values = np.moveaxis(pixels.values, 2, 0)
    array = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype.kind == "u":
        array /= np.float32(np.iinfo(values.dtype).max)
    token = Pixels(pixels.values[:0].copy(), pixels.alpha, pixels.header)
    return Volume(
        array=array,
        modality=Modality.PHOTO,
        name=name or path.stem,
        source=RasterSource(path, "PNG" if kind in READ_ONLY else kind, token),
        geometry="single",
        notes=(*pixels.notes, *note_on(array, path.stem)),
    )


def write(volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool = False) -> list[Path]:
    """Write a photo as the same kind of file that :func:`read` made it from, or as PNG where its name asks for it.

    What is read but not written (:data:`READ_ONLY`), or came from no file, becomes PNG. Values are clipped to [0, 1]
    and rounded to the bit depth of the source (8 bits where an array had 8, else 16, as has PNG of float samples).
    The metadata stay the source's, as far as PNG has a place for them; of ``derivation`` only a warning is written,
    and only into PNG. Alpha grows with an enlarged photo.

    Raises:
        FileExistsError: the target exists and ``overwrite`` is off.
        ValueError: no photo, wrong suffix, the target is the source, or pixels are NaN or infinite.
    """
    source = volume.source if isinstance(volume.source, RasterSource) else _new_source(volume, path)
    check_suffix(source.kind, path)
    kind = kind_named(path.name)
    guard_target(path, overwrite=overwrite, sources=source.files)
    if not volume.is_finite:
        raise ValueError("a photo to be written must be finite, got NaN or infinite pixels; check the restoration")
    values, dtype = np.moveaxis(volume.array, 0, 2), source.pixels.values.dtype
    alpha, header = source.pixels.alpha, source.pixels.header
    if alpha is not None:
        factor = len(values) // len(alpha)
        alpha = alpha.repeat(factor, 0).repeat(factor, 1)
    if kind == "PNG":
        values, header = straight(values, alpha, header), png_header(header)
        if dtype.kind == "f":
            dtype, alpha = np.dtype(np.uint16), None if alpha is None else to_samples(alpha, np.dtype(np.uint16))
    if derivation.warning and kind == "PNG":
        header = png.with_warning(header, derivation.warning)
    encoded = _CODECS[kind].encode(Pixels(to_samples(values, dtype), alpha, header))
    with replacing(path, overwrite=overwrite, sources=source.files) as file:
        file.write(encoded)
    return [path]


def inspected(kind: str, data: bytes) -> None:
    """Check the header of a file of a kind.

    Raises:
        RefusedError: it is none that can be processed.
    """
    _codec(kind).inspect(data)


def decoded(kind: str, data: bytes) -> Pixels:
    """Pixels of a file of a kind.

    Raises:
        RefusedError: it is none that can be processed.
    """
    pixels: Pixels = _codec(kind).decode(data)
    return pixels


def check_suffix(kind: str, path: Path) -> None:
    """Refuse another suffix than that of a kind of photo, or that of PNG, which holds them all."""
    allowed = tuple(dict.fromkeys((*SUFFIXES[kind], *SUFFIXES["PNG"])))
    if path.suffix.lower() not in allowed:
        wanted = " or ".join(allowed)
        raise ValueError(f"a {kind} photo is written as {wanted}, got {path.name}; change the suffix")


def check_is_picture(modality: Modality, path: Path) -> None:
    """Refuse a photo file for an image that is none."""
    if not modality.profile.is_picture:
        raise ValueError(
            f"only photos are written as {path.suffix}, got {path.name}; a {modality.value} image is written as "
            ".nii, .nii.gz, .mha, .nrrd or .mgz, and a DICOM series into a folder, too"
        )


def kind_named(name: str) -> str:
    """The kind that a suffix of :data:`SUFFIXES` stands for."""
    return next(kind for kind, ends in SUFFIXES.items() if name.lower().endswith(ends))


def _new_source(volume: Volume, path: Path) -> RasterSource:
    check_is_picture(volume.modality, path)
    eight = getattr(volume.source, "dtype", None) == np.uint8
    none = np.empty((0, 0, len(volume.array)), np.uint8 if eight else np.uint16)
    return RasterSource(None, "PNG", Pixels(none, None, png.PngHeader(())))


def write_png(
    values: NDArray[np.float32],
    path: Path,
    *,
    orientation: int = 1,
    overwrite: bool = False,
    sources: tuple[Path, ...] = (),
) -> Path:
    """Write ``(H, W)`` or ``(H, W, 3)`` in [0, 1] as 8-bit PNG: maps that belong to a photo, and pairs made of it.

    ``orientation`` is that of the photo (:attr:`Volume.exif_orientation`); of its metadata it alone is written.
    ``sources`` are the files it was made of, see :func:`~monai_sasm.io.commit.replacing`.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"a map of a photo is written as .png, got {path.name}; change the suffix")
    guard_target(path, overwrite=overwrite)
    turned = () if orientation == 1 else ((b"eXIf", orientation_block(orientation)),)
    samples = to_samples(values.reshape(*values.shape[:2], -1), np.dtype(np.uint8))
    with replacing(path, overwrite=overwrite, sources=sources) as file:
        file.write(png.encode(Pixels(samples, None, png.PngHeader(turned))))
    return path


def to_samples(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Clip to [0, 1] and round to the full range of an unsigned type; float types are only clipped."""
    samples = np.empty(values.shape, dtype)
    for top in range(0, len(values), _BAND):  # copies of some rows, not of a large photo
        clipped = np.clip(values[top : top + _BAND], 0, 1)
        if dtype.kind == "u":
            clipped = np.rint(clipped * np.float32(np.iinfo(dtype).max))
        samples[top : top + _BAND] = clipped
    return samples


def _codec(kind: str) -> ModuleType:
    return _CODECS.get(kind, pillow)


def _load(path: Path) -> tuple[str, bytes]:
    try:
        if path.stat().st_size > _ROOM:
            raise RefusedError("the file is larger than 2 GiB: cut the image into parts")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"the file cannot be read ({type(error).__name__}): check its permissions") from error
    kind = kind_of(data[:64])
    if kind is None:
        raise RefusedError("the content is no photo that is read, whatever the name says: export it as PNG")
    return kind, data
