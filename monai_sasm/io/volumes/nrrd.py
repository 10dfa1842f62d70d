"""NRRD of Teem and Slicer: ``.nrrd``, or ``.nhdr`` with the voxels beside it.

Its fields: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.volume import LPS_TO_RAS
from monai_sasm.io.volumes.layout import (
    MAX_HEADER,
    NO_ORIENTATION,
    Layout,
    affine_from_lps,
    beside,
    bytes_of,
    lines_of,
)

NAME = "nrrd"
SUFFIXES = (".nrrd", ".nhdr")
DETACHED = (".nhdr",)
_NAMES = {  # of types, with their synonyms
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {name: code for code, names in _NAMES.items() for name in names.split(", ")}
_CODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_SPACES = {  # -> signs that make LPS of it
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_UNORIENTED = ("", "scanner-xyz", "3d-right-handed", "3d-left-handed")
_SPATIAL_KINDS = ("domain", "space", "???", "none", "")
_LONGEST_DIRECTIONS = 1000  # characters; four vectors take a third. Looking for brackets takes squares of it
_COUNTING_KINDS = ("list", "time", "point")
_UNITS = {
    **{"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1e3},
    **dict.fromkeys(("um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "\udcb5m"), 1e-3),  # the last of Latin-1
}
_PACKING = ("encoding", "data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip")


def sniff(head: bytes) -> bool:
    """The magic of versions 1 to 5."""
    return re.match(rb"NRRD000[1-5]\s", head) is not None


def parse(path: Path) -> Layout:
    """The header of a file.

    Raises:
        RefusedError: it is damaged, or holds a segmentation, vectors, colours, or voxels in a way that is not read.
    """
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    head = start if end is None else start[: end.end()]
    fields = {key: value for key, value in map(_field, lines_of(head)) if key}
    if any(re.match(r"segment\d+_", key) for key in fields):
        raise RefusedError("a segmentation of Slicer by its header, not an image: nothing to restore")
    try:
        return _layout(path, head, fields, whole=end is not None)
    except (KeyError, ValueError, OverflowError) as error:
        if isinstance(error, RefusedError):
            raise
        raise UnreadableError("the NRRD header is damaged or lacks a field: export the file again") from error


def header(layout: Layout, stored: int, data: str | None) -> bytes:
    """See :class:`~monai_sasm.io.volumes.layout.Codec`."""
    kept = [line for line in lines_of(layout.head) if _field(line)[0] not in _PACKING and line.strip()]
    kept += [f"encoding: {layout.coding}", *([f"data file: {data}"] if data else [])]
    return bytes_of([*kept, ""])


def new(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Layout:
    """See :class:`~monai_sasm.io.volumes.layout.Codec`."""
    lps = LPS_TO_RAS @ affine
    directions = [_vector(lps[:3, axis]) for axis in range(min(3, len(shape)))]
    listed = len(shape) == 4
    lines = [
        "NRRD0004",
        "type: float",
        f"dimension: {len(shape)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, shape))}",
        f"space directions: {' '.join([*directions, *(['none'] if listed else [])])}",
        f"kinds: {' '.join(['domain'] * len(directions) + ['list'] * listed)}",
        "endian: little",
        f"space origin: {_vector(lps[:3, 3])}",
    ]
    head = "\n".join(lines).encode()
    return Layout(shape, np.dtype("<f4"), affine, head, Path(), coding="gzip", channel=3 if listed else None)


def _vector(numbers: NDArray[np.float64]) -> str:
    return f"({','.join(f'{float(number):.17g}' for number in numbers)})"


def _field(line: str) -> tuple[str, str]:
    """Key in lower case and value of a field or of a key/value pair; empty for others."""
    if line.startswith(("#", "NRRD")):
        return "", ""
    for sign in (":=", ": "):
        if sign in line:
            key, _, value = line.partition(sign)
            return key.strip().lower(), value.strip()
    return "", ""


def _layout(path: Path, head: bytes, fields: dict[str, str], whole: bool) -> Layout:
    if fields["type"].lower() not in _TYPES:
        raise RefusedError("an NRRD of an unknown type of number: convert it to float")
    coding = _CODINGS.get(fields["encoding"].lower())
    if coding is None:
        raise RefusedError("an NRRD whose voxels are neither raw nor gzip: save it again in Slicer")
    if any(fields.get(key, "0") != "0" for key in _PACKING if "skip" in key):
        raise RefusedError("an NRRD over a file with a header of its own: save it again as one .nrrd file")
    count = int(fields["dimension"])
    shape = tuple(int(word) for word in fields["sizes"].split())
    if len(shape) != count or not 2 <= count <= 4:
        raise RefusedError("an NRRD of another number of axes than an image has: 2, 3 or, with time points, 4")
    channel = _channel(fields, count)
    affine, notes = _affine(fields, count, channel)
    apart = fields.get("data file") or fields.get("datafile")
    if apart is None and not whole:
        raise UnreadableError("the NRRD header has no end: the file is damaged, export it again")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "little").lower(), "<")
    return Layout(
        shape,
        np.dtype(order + _TYPES[fields["type"].lower()]),
        affine,
        head,
        data=path if apart is None else beside(path, apart),
        offset=len(head) if apart is None else 0,
        coding=coding,
        channel=channel,
        notes=notes,
    )


def _directions(fields: dict[str, str], count: int) -> list[list[float] | None] | None:
    if "space directions" not in fields:
        return None
    if len(fields["space directions"]) > _LONGEST_DIRECTIONS:
        raise UnreadableError("the space directions of the NRRD are longer than those of any volume: repair the header")
    words = re.findall(r"none|\([^)]*\)", fields["space directions"])
    found = [None if word == "none" else [float(part) for part in word[1:-1].split(",")] for word in words]
    if len(found) != count or any(one is not None and len(one) not in (2, 3) for one in found):
        raise UnreadableError("the space directions of the NRRD do not fit its axes: repair the header")
    return found


def _channel(fields: dict[str, str], count: int) -> int | None:
    """The axis that is not spatial."""
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()] or [""] * count
    directions = _directions(fields, count)
    other = {axis for axis, kind in enumerate(kinds) if kind not in _SPATIAL_KINDS}
    if directions is not None:
        other |= {axis for axis, one in enumerate(directions) if one is None}
    if not other:
        if count == 4:
            raise RefusedError("an NRRD of four axes that does not say which one is no place: save it with kinds")
        return None
    axis = min(other)
    if len(other) > 1 or axis >= len(kinds) or kinds[axis] not in (*_SPATIAL_KINDS, *_COUNTING_KINDS):
        raise RefusedError("an NRRD of vectors, colours or tensors: give the original grey volume")
    return axis


def _affine(fields: dict[str, str], count: int, channel: int | None) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    space = fields.get("space", "").lower()
    if space not in _SPACES and space not in _UNORIENTED:
        raise RefusedError("an NRRD in a space that is not read: save it in left-posterior-superior")
    spatial = [axis for axis in range(count) if axis != channel]
    directions, origin = np.zeros((len(spatial), 3)), np.zeros(3)
    given = _directions(fields, count)
    if given is not None:
        for row, axis in enumerate(spatial):
            one = given[axis] or []
            directions[row, : len(one)] = one
        if "space origin" in fields:
            start = [float(part) for part in fields["space origin"].strip("() ").split(",")]
            origin[: len(start)] = start
    else:
        words = fields.get("spacings", "").split() or ["1"] * count
        directions[range(len(spatial)), range(len(spatial))] = [float(words[axis]) for axis in spatial]
    signs = np.array(_SPACES.get(space, (1, 1, 1)), float)
    factor = _UNITS.get((re.findall(r'"([^"]*)"', fields.get("space units", "")) or ["mm"])[0])
    if factor is None:
        raise RefusedError("an NRRD in an unknown unit of length: save it in mm")
    oriented = space in _SPACES and given is not None
    return affine_from_lps(directions * signs * factor, origin * signs * factor), () if oriented else (NO_ORIENTATION,)
