"""Stored pixel values of one DICOM file: decode them, and encode restored values back into the same integers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io import apart
from monai_sasm.io.dicom import jpeg
from monai_sasm.io.dicom.header import guessed_syntax, quiet_read
from monai_sasm.io.dicom.values import number_of, text_of, uid_of
from monai_sasm.io.memory import free_memory, refuse_if_too_short
from monai_sasm.io.silence import quiet

PLUGINS = "pip install imagecodecs pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle pyjpegls"

PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_J2K_SIZE_MARKER = b"\xff\x4f\xff\x51"
_AIR = -1000.0  # HU
_Version = tuple[Path, str, int, int, int]
_BLOCK = 5  # pixels; as in monai_sasm.restoration.shelter
_J2K_DEPTH_OFFSET = 42  # from SOC to Ssiz of component 0 (ISO/IEC 15444-1 A.5.1); bit 7 set: signed


@dataclass(frozen=True)
class StoredPixels:
    """Integers of one file.

    Args:
        values: int32 ``(frames, rows, columns)``, sign-extended from Bits Stored.
        padding: bool, same shape: where there is no image. The Pixel Padding Value (range) says so; of a value that
            tissue has, too, where it fills squares alone.
        padding_range: lowest and highest stored padding value; ``None`` without padding.
        limits: lowest and highest integer that Bits Stored can hold.
        scattered: int, ``(frames,)``: pixels that have a padding value and are none of ``padding``.
    """

    values: NDArray[np.int32]
    padding: NDArray[np.bool_]
    padding_range: tuple[int, int] | None
    limits: tuple[int, int]
    scattered: NDArray[np.int64]


def missing_decoder(transfer_syntax: str) -> str | None:
    """Why pixels in this transfer syntax cannot be decoded here; ``None`` when they can."""
    uid = uid_of(transfer_syntax)
    if not uid.is_transfer_syntax:
        return "unknown transfer syntax; convert the file to Explicit VR Little Endian"
    if not uid.is_compressed:
        return None
    try:
        available = _has_decoder(uid)
    except NotImplementedError:
        return f"{uid.name} is no still-image coding; convert the file to Explicit VR Little Endian"
    return None if available else f"{uid.name} needs a decoder that is not installed: {PLUGINS}"


def _has_decoder(uid: UID) -> bool:
    jpeg.register()
    try:
        from pydicom.pixels import get_decoder
    except ImportError:  # pydicom 2.4
        from pydicom import config

        handlers = [handler for handler in config.pixel_data_handlers if handler.supports_transfer_syntax(uid)]
        return any(handler.is_available() for handler in handlers)
    return bool(get_decoder(uid).is_available)


def read_stored(path: Path) -> tuple[Dataset, StoredPixels]:
    """Read one whole file and decode its pixels.

    Those of compressed files of several frames are kept for a while: these are read for each time point, and to write.

    Raises:
        RefusedError: the pixels cannot be decoded, or the decoded numbers contradict the header.
    """
    with _refusing():
        version = _version(path)
        dataset = _opened(path)
        if (known := _known(version)) is not None:
            return dataset, known
        with quiet():
            sign = dataset.PixelRepresentation
            _choose_decoder(dataset)
            pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
            if dataset.file_meta.TransferSyntaxUID.is_compressed:
                stored = len(dataset.PixelData)
                refuse_if_too_short(pixels, stored)
                _refuse_cut_frames(dataset)
                raw = apart.decode(decoded, str(path), stored=stored) if apart.is_apart() else dataset.pixel_array
            else:
                raw = dataset.pixel_array
            dataset.PixelRepresentation = sign  # pydicom 2 overwrites it with what the codestream says
            unsigned_codestream = _is_unsigned_codestream(dataset)
            raw = raw.reshape(-1, int(dataset.Rows), int(dataset.Columns)).astype(np.int32)
            found = _sign_extended(dataset, raw, unsigned_codestream or _has_embedded_overlay(dataset))
            if dataset.file_meta.TransferSyntaxUID.is_compressed and len(raw) > 1:
                _keep(version, found)
            return dataset, found


_kept: dict[_Version, StoredPixels] = {}
"""Of files of one folder, oldest first."""
_KEPT_SHARE = 8  # all of it takes so many times less than is free


def _version(path: Path) -> _Version:
    """Equal for a file that has not changed; its folder comes first."""
    found = path.stat()
    return path.parent.resolve(), path.name, found.st_ino, found.st_size, found.st_mtime_ns


def _known(version: _Version) -> StoredPixels | None:
    """Pixels that are kept; those of other folders are dropped."""
    if any(one[0] != version[0] for one in list(_kept)):  # a copy, for there are threads
        _kept.clear()
    return _kept.get(version)


def _keep(version: _Version, pixels: StoredPixels) -> None:
    pixels.values.setflags(write=False)
    pixels.padding.setflags(write=False)
    _kept[version] = pixels
    free = free_memory()
    for oldest in list(_kept):
        taken = sum(one.values.nbytes + one.padding.nbytes for one in list(_kept.values()))
        if free is not None and _KEPT_SHARE * taken > free:
            _kept.pop(oldest, None)


def decoded(path: str) -> NDArray[Any]:
    """The pixels of a compressed file as its decoder gives them, ``(rows, columns)`` or ``(frames, rows, columns)``.

    Raises:
        RefusedError: they cannot be decoded.
    """
    with _refusing(), quiet():
        dataset = _opened(Path(path))
        _choose_decoder(dataset)
        return dataset.pixel_array


def _opened(path: Path) -> Dataset:
    dataset = quiet_read(path, force=True)
    _name_syntax(dataset)
    return dataset


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (RefusedError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # decoders raise whatever the damage provokes; a Rust panic is no Exception
        raise UnreadableError(
            f"the pixel data cannot be decoded ({type(error).__name__}); get an intact or uncompressed copy"
        ) from error


def _choose_decoder(dataset: Dataset) -> None:
    """The same pixels wherever this runs: pydicom would try other decoders first for :data:`jpeg.SYNTAXES`.

    pydicom 3 would cut off the bits above Bits Stored, which makes bone of padding; see :func:`_sign_extended`.
    """
    jpeg.register()
    if hasattr(dataset, "pixel_array_options"):  # pydicom 3
        plugin = jpeg.PLUGIN if dataset.file_meta.TransferSyntaxUID in jpeg.SYNTAXES else ""
        dataset.pixel_array_options(correct_unused_bits=False, decoding_plugin=plugin)


def _refuse_cut_frames(dataset: Dataset) -> None:
    """JPEG and JPEG-LS decoders fill what is missing with anything; a whole frame has its end marker.

    Neither marker can occur within coded data, where bytes are stuffed (ITU-T T.81 B.1.1.5, T.87 A.1). What follows the
    end does not matter: to make the length even, some archives append whatever was in memory.
    """
    if "JPEG" not in dataset.file_meta.TransferSyntaxUID.name or "2000" in dataset.file_meta.TransferSyntaxUID.name:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    for number, frame in enumerate(_frames(dataset.PixelData, count), 1):
        if frame.rfind(_END_OF_IMAGE) <= frame.rfind(_START_OF_SCAN):
            raise UnreadableError(f"the compressed frame {number} of {count} is cut off; get an intact copy")


def _frames(pixel_data: bytes, count: int) -> Iterator[bytes]:
    try:
        from pydicom.encaps import generate_frames
    except ImportError:  # pydicom 2.4
        from pydicom.encaps import generate_pixel_data_frame

        return generate_pixel_data_frame(pixel_data, count)
    return generate_frames(pixel_data, number_of_frames=count)


def _name_syntax(dataset: Dataset) -> None:
    """Data sets without file meta information: say which uncompressed syntax they were read in."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = UID(guessed_syntax(dataset))


def _is_unsigned_codestream(dataset: Dataset) -> bool:
    """Header signed, JPEG 2000 codestream unsigned: its values are two's complement in Bits Stored.

    The opposite, header unsigned and codestream signed, is refused: some scanners write it, and which one is right
    cannot be told, but negative values would come out near 65535.
    """
    if "2000" not in dataset.file_meta.TransferSyntaxUID.name:
        return False
    start = dataset.PixelData.find(_J2K_SIZE_MARKER)
    depth = dataset.PixelData[start + _J2K_DEPTH_OFFSET : start + _J2K_DEPTH_OFFSET + 1] if start >= 0 else b""
    if not depth or bool(depth[0] & 0x80) == bool(dataset.PixelRepresentation):
        return False
    if dataset.PixelRepresentation == 0:
        raise RefusedError(
            "Pixel Representation says unsigned but the JPEG 2000 codestream is signed, so negative values are lost; "
            "correct Pixel Representation to 1 or export the file uncompressed"
        )
    return True


def _sign_extended(dataset: Dataset, raw: NDArray[np.int32], foreign_bits: bool) -> StoredPixels:
    """Bits above Bits Stored (PS3.5 8.1.1) cut off where something explains them, and refused where nothing does.

    What explains them: ``foreign_bits``; two's complement in Bits Stored; one value that all pixels have that do not
    fit, which is undeclared padding and is kept. Padding whose sign ends at Bits Stored is negative, as other pixels
    are: some writers extend the sign of the image alone.
    """
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    limits = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    padding_range = _padding_range(dataset, signed)
    if signed and padding_range is not None and raw.max(initial=0) > limits[1]:  # else there is nothing to extend
        whole = extended(raw, bits)
        raw = np.where(_in_range(whole, padding_range), whole, raw)
    padding = _in_range(raw, padding_range)
    outside = ((raw < limits[0]) | (raw > limits[1])) & ~padding
    if outside.any():
        half = 1 << bits - 1
        masked = raw & ((1 << bits) - 1)
        within = (masked ^ half) - half if signed else masked
        if foreign_bits or (signed and raw[~padding].min() >= 0 and _is_smoother(within, raw, ~padding)):
            raw = np.where(padding, raw, within)
            padding |= _in_range(raw, padding_range)  # which other bits had hidden
        elif np.ptp(raw[outside]) == 0:
            raw = np.where(outside, extended(raw, bits), raw) if signed else raw
            padding |= outside
        else:
            raise UnreadableError(
                f"{int(outside.sum())} stored values do not fit into {bits} Bits Stored; correct the header"
            )
    declared = padding
    if padding_range is not None and not _is_below_air(dataset, padding_range[1]):
        padding = _regions(raw, padding)
    return StoredPixels(raw, padding, padding_range, limits, (declared & ~padding).sum((1, 2)))


def extended(values: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """Signed integers of ``bits`` that have nothing above them, with their sign; all others as they are."""
    half = 1 << bits - 1
    return np.where((values >= half) & (values < 2 * half), values - 2 * half, values)


def _in_range(raw: NDArray[np.int32], ends: tuple[int, int] | None) -> NDArray[np.bool_]:
    return np.zeros(raw.shape, bool) if ends is None else (raw >= ends[0]) & (raw <= ends[1])


def _is_below_air(dataset: Dataset, value: int) -> bool:
    """Whether a stored value is of HU that no tissue has; lossy compression scatters others around it."""
    hu = value * number_of(dataset, "RescaleSlope", 1.0) + number_of(dataset, "RescaleIntercept", 0.0)
    return text_of(dataset, "Modality") == "CT" and hu <= _AIR


def _regions(raw: NDArray[np.int32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Padding without the pixels that happen to have its value: of a value between those of the image, as 0 HU is.

    In each frame that is so, padding are squares of :data:`_BLOCK` pixels and what is connected with them.
    """
    kept = padding.copy()
    for frame, values, where in zip(kept, raw, padding, strict=True):
        image, fill = values[~where], values[where]
        if image.size and fill.size and image.min() < fill.min() and fill.max() < image.max():
            from scipy import ndimage

            labels, _ = ndimage.label(where, np.ones((3, 3)))
            squares = ndimage.binary_erosion(where, np.ones((_BLOCK, _BLOCK)))
            frame &= np.isin(labels, labels[squares])
    return kept


def _is_smoother(one: NDArray[np.int32], other: NDArray[np.int32], where: NDArray[np.bool_]) -> bool:
    """Whether neighbours in a row are more alike: read with a wrong sign, values jump by the whole range."""
    pairs = where[..., 1:] & where[..., :-1]
    one_jumps, other_jumps = (
        int(np.abs(np.diff(values, axis=-1))[pairs].sum(dtype=np.int64)) for values in (one, other)
    )
    return one_jumps < other_jumps


def _padding_range(dataset: Dataset, signed: bool) -> tuple[int, int] | None:
    try:
        ends = [int(dataset[key].value) for key in PADDING if key in dataset]
    except (TypeError, ValueError):
        return None
    if not ends:
        return None
    wrap = 1 << int(dataset.BitsAllocated)
    if signed:  # written as US by some devices although the pixels are signed
        ends = [end - wrap if end >= wrap // 2 else end for end in ends]
        ends = extended(np.array(ends), int(dataset.BitsStored)).tolist()
    else:
        ends = [end + wrap if end < 0 else end for end in ends]
    return min(ends), max(ends)


def _has_embedded_overlay(dataset: Dataset) -> bool:
    groups = (0x6000 + 2 * number for number in range(16))
    return any((group, 0x0100) in dataset and (group, 0x3000) not in dataset for group in groups)


def encode(
    restored: NDArray[np.float32], source: StoredPixels, frame: int, slope: float, intercept: float
) -> tuple[NDArray[np.int32], int]:
    """Restored values back to stored integers: ``rint((x - intercept) / slope)``, limited to Bits Stored.

    A pixel that equals its source keeps its integer, padding stays padding, and no other pixel becomes padding.

    Returns:
        ``(rows, columns)`` integers, and how many pixels had to be clipped. An end of the range at which the source
        frame itself is saturated (air below -1024 HU, mostly) does not count: nothing is lost there that was there.
    """
    stored, padding = source.values[frame], source.padding[frame]
    if not np.isfinite(restored).all():
        raise ValueError("restored pixels must be finite to be stored as integers; got NaN or infinity")
    wanted = np.rint((restored.astype(np.float64) - intercept) / slope)
    limited = np.clip(wanted, *source.limits)
    unchanged = padding | (restored == rescaled(stored, slope, intercept))
    saturated = np.isin(limited, [end for end in source.limits if (stored == end).any()])
    clipped = int(((wanted != limited) & ~unchanged & ~saturated).sum())
    result = limited.astype(np.int32)
    if source.padding_range is not None and (padding.any() or not source.scattered[frame]):
        low, high = source.padding_range
        beside = high + 1 if high < source.limits[1] else low - 1
        result[(result >= low) & (result <= high)] = beside
    return np.where(unchanged, stored, result), clipped


def rescaled(stored: NDArray[np.int32], slope: float, intercept: float) -> NDArray[np.float32]:
    """Modality LUT of PS3.3 C.11.1 in float64, rounded once to float32."""
    return (stored * float(slope) + float(intercept)).astype(np.float32)
