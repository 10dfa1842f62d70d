"""Inputs that are wrong where their format says something: tags, fields, chunks and series; one for each seed."""

from __future__ import annotations

import gzip
import random
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel
import numpy as np

from tests.hostile.intact import Intact, intact_files, with_checksums

NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 32, 255, 12000, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = (
    "", " ", "0", "1", "-1", "2", "3", "16", "12000", "65536", "1e400", "-1e-400", "nan", "NaN", "inf", "-inf", "1,5",
    "0x10", "SECRET^Jane", "19700101", "1\\2\\3", "\\\\", "9" * 70, "-9999999999999999999", "1.2.3.4.5.6.7.8.9.10",
    "ORIGINAL\\PRIMARY\\AXIAL", "ORIGINAL\\PRIMARY\\P", "MR", "CT", "PT", "\x00\x01", "ISO_IR 192", "\xe9\xff",
)  # fmt: skip
VRS = ("US", "SS", "UL", "SL", "FD", "FL", "DS", "IS", "CS", "LO", "UI", "SQ", "OB", "OW", "UN", "AT", "TM", "DA", "PN")
LONG = {b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"OD", b"OL", b"UC", b"UR", b"OV", b"SV", b"UV"}

Random = random.Random
Files = dict[str, bytes]
_Make = Callable[[Random], Files]


def case(seed: int) -> tuple[str, Files]:
    """What was done, and the files of one input by name; the same for the same seed."""
    chance = Random(seed)
    kind = chance.choice(tuple(_KINDS))
    return kind, _KINDS[kind](chance)


def _of(*ends: str) -> list[Intact]:
    return [one for one in intact_files() if one.name.endswith(ends)]


# --- DICOM: elements (tag, VR, value) of a file, and series


@cache
def _elements(content: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes, bytes], ...], bytes]:
    """Preamble and meta group, elements, and from the first of undefined length on the rest as it is."""
    start = 132 + 12 + struct.unpack("<L", content[140:144])[0]
    found, at = [], start
    while at + 8 <= len(content):
        tag, vr = content[at : at + 4], content[at + 4 : at + 6]
        head, form, place = (12, "<L", 8) if vr in LONG else (8, "<H", 6)
        (length,) = struct.unpack_from(form, content, at + place)
        if length == 0xFFFFFFFF:
            break
        found.append((tag, vr, content[at + head : at + head + length]))
        at += head + length
    return content[:start], tuple(found), content[at:]


def _joined(head: bytes, elements: list[tuple[bytes, bytes, bytes]], rest: bytes, lie: int | None = None) -> bytes:
    parts = [head]
    for index, (tag, vr, value) in enumerate(elements):
        length = len(value) if index != lie else 0xFFF0
        parts += [tag, vr, struct.pack("<HL", 0, length) if vr in LONG else struct.pack("<H", length & 0xFFFF), value]
    return b"".join([*parts, rest])


def _value(chance: Random, vr: bytes) -> bytes:
    forms = {b"US": "<H", b"SS": "<H", b"UL": "<L", b"SL": "<L", b"FL": "<f", b"FD": "<d", b"AT": "<L"}
    if vr in forms and chance.random() < 0.8:
        if forms[vr][1] in "fd":
            return struct.pack(forms[vr], chance.choice([0.0, -1.0, 1e30, float("nan"), float("inf")]))
        number = chance.choice(NUMBERS)
        return struct.pack(forms[vr], number & (0xFFFF if forms[vr][1] == "H" else 0xFFFFFFFF))
    text = chance.choice(WORDS).encode("latin-1")
    return text + b" " * (len(text) % 2)


def _wrong_elements(chance: Random, content: bytes) -> bytes:
    head, found, rest = _elements(content)
    elements = list(found)
    lie = None
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(elements))
        tag, vr, value = elements[at]
        match chance.choice(("value", "value", "value", "drop", "vr", "copy", "move", "cut", "swap", "nest", "lie")):
            case "value":
                elements[at] = (tag, vr, _value(chance, vr))
            case "drop" if len(elements) > 1:
                del elements[at]
            case "vr":
                elements[at] = (tag, chance.choice(VRS).encode(), value)
            case "copy":
                elements.insert(at, (tag, vr, _value(chance, vr)))
            case "move":
                elements.insert(chance.randrange(len(elements)), elements.pop(at))
            case "cut":
                elements[at] = (tag, vr, value[: chance.randrange(len(value) + 1)])
            case "swap":
                other = chance.randrange(len(elements))
                elements[at], elements[other] = (tag, vr, elements[other][2]), (*elements[other][:2], value)
            case "nest":
                elements[at] = (tag, b"SQ", _nested(chance.choice((1, 3, 200, 3000))))
            case "lie":
                lie = at
    return _joined(head, elements, rest, lie if lie is not None and lie < len(elements) else None)


def _nested(depth: int) -> bytes:
    begin = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
    return begin * depth


def _dicom(chance: Random) -> Files:
    one = chance.choice([one for one in _of(".dcm") if one.name not in ("implicit.dcm", "deflated.dcm")])
    files = {f"beside{index}.dcm": other for index, other in enumerate(one.beside)}
    files[one.name] = _wrong_elements(chance, one.content)
    if chance.random() < 0.1:
        files[f"{one.name}.gz"] = gzip.compress(files.pop(one.name))
    return files


_SERIES_TAGS = {  # what decides how slices lie: (group, element), VR, values
    (0x0020, 0x0032): (b"DS", ("0\\0\\0", "nan\\0\\0", "1e9\\0\\0", "-20\\-30\\7.5", "0\\0", "inf\\inf\\inf")),
    (0x0020, 0x0037): (b"DS", ("1\\0\\0\\0\\1\\0", "1\\0\\0\\1\\0\\0", "0\\0\\0\\0\\0\\0", "nan\\0\\0\\0\\1\\0")),
    (0x0028, 0x0030): (b"DS", ("0\\0", "-1\\1", "nan\\nan", "1e-30\\1e-30", "0.7", "0.7\\0.8\\0.9")),
    (0x0018, 0x0088): (b"DS", ("nan", "inf", "-2.5", "0", "1e300")),
    (0x0018, 0x0050): (b"DS", ("nan", "inf", "0", "-1")),
    (0x0028, 0x1053): (b"DS", ("0", "nan", "inf", "1e30", "-1", "2")),
    (0x0028, 0x1052): (b"DS", ("nan", "inf", "1e30", "0")),
    (0x0028, 0x0010): (b"US", ("\x00\x00", "\xff\xff", "\x1f\x00", "\x00\x80")),
    (0x0028, 0x0100): (b"US", ("\x08\x00", "\x20\x00", "\x01\x00", "\x0c\x00")),
    (0x0028, 0x0101): (b"US", ("\x00\x00", "\x11\x00", "\x01\x00")),
    (0x0028, 0x0103): (b"US", ("\x00\x00", "\x01\x00", "\x02\x00")),
    (0x0028, 0x0008): (b"IS", ("0 ", "-1", "2 ", "999999")),
    (0x0008, 0x0018): (b"UI", ("", "1.2.3\0", "SECRET")),
    (0x0020, 0x000E): (b"UI", ("", "1.2.3\0", "x\0")),
    (0x0008, 0x0008): (b"CS", ("", "ORIGINAL\\PRIMARY\\LOCALIZER ", "\\\\\\")),
}


def _series(chance: Random) -> Files:
    """A series of three, of whose slices some differ, are missing, copied or cut."""
    one = chance.choice([one for one in _of(".dcm") if one.beside])
    slices = [one.beside[0], one.content, one.beside[1]]
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(slices))
        match chance.choice(("tag", "tag", "tag", "all", "drop", "copy", "cut")):
            case "tag":
                slices[at] = _with_tag(chance, slices[at])
            case "all":
                state = chance.getstate()
                same = []
                for content in slices:
                    chance.setstate(state)
                    same.append(_with_tag(chance, content))
                slices = same
            case "drop" if len(slices) > 1:
                del slices[at]
            case "copy":
                slices.append(slices[at])
            case "cut":
                slices[at] = slices[at][: chance.randrange(len(slices[at]))]
    return {f"{index}.dcm": content for index, content in enumerate(slices)}


def _with_tag(chance: Random, content: bytes) -> bytes:
    if len(content) < 200 or content[128:132] != b"DICM":
        return content
    (group, element), (vr, values) = chance.choice(tuple(_SERIES_TAGS.items()))
    tag, value = struct.pack("<HH", group, element), chance.choice(values).encode("latin-1")
    value += (b"" if vr == b"US" else b" ") * (len(value) % 2)
    try:
        head, found, rest = _elements(content)
    except struct.error:
        return content
    kept = [one for one in found if one[0] != tag]
    place = next((i for i, one in enumerate(kept) if _order(one[0]) > (group, element)), len(kept))
    return _joined(head, [*kept[:place], (tag, vr, value), *kept[place:]], rest)


def _order(tag: bytes) -> tuple[int, ...]:
    return struct.unpack("<HH", tag)


# --- NIfTI and others: fields of fixed headers, lines of text


def _nifti(chance: Random) -> Files:
    one = chance.choice([one for one in _of(".nii", ".nii.gz") if one.content[:2] != b"\x1f\x8b"])
    kind = nibabel.Nifti2Header if one.content[:4] == b"\x1c\x02\0\0" else nibabel.Nifti1Header
    content, fields = bytearray(one.content), dict(kind.template_dtype.fields or {})
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(tuple(fields))
        dtype, offset = fields[name][:2]
        base, shape = dtype.subdtype or (dtype, (1,))
        at = offset + base.itemsize * chance.randrange(int(np.prod(shape)))
        if base.kind == "f":
            value: object = chance.choice([0, -1, 1, 1e-30, 1e30, np.nan, np.inf, 256, 352, 1e9])
        elif base.kind in "iu":
            limit = np.iinfo(base)
            value = int(np.clip(chance.choice([-1, *NUMBERS]), limit.min, limit.max))
        else:
            value = chance.choice(WORDS).encode("latin-1")[: base.itemsize]
        content[at : at + base.itemsize] = np.array(value, base).tobytes()[: base.itemsize]
    if chance.random() < 0.2:
        content[348:352] = b"\1\0\0\0"
        content[352:360] = struct.pack("<ii", chance.choice((-1, 0, 7, 16, 2**30)), chance.choice((0, 2, 4, 6, 999)))
    packed = bytes(content)
    if one.name.endswith("gz"):
        packed = gzip.compress(packed, 1)
        packed = chance.choice([packed, packed * 2, packed[: chance.randrange(1, len(packed))], packed + b"tail"])
    return {one.name: packed}


def _lines(chance: Random) -> Files:
    """Headers of text: a value, a line or the order is wrong."""
    one = chance.choice(_of(".nrrd", ".mha"))
    end = one.content.index(b"\n\n") + 2 if one.name.endswith("nrrd") else one.content.index(b"LOCAL\n") + 6
    lines = one.content[:end].decode().splitlines()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        match chance.choice(("value", "number", "drop", "copy", "cut", "file")):
            case "value":
                key, sign, _ = re.match(r"([^=:]*)(:=|[:=]?)(.*)", lines[at]).groups()  # type: ignore[union-attr]
                lines[at] = f"{key}{sign} {chance.choice(WORDS)}"
            case "number":
                lines[at] = re.sub(r"\d+", lambda _: str(chance.choice((*NUMBERS, -1, "nan", "1e999"))), lines[at])
            case "drop" if len(lines) > 1:
                del lines[at]
            case "copy":
                lines.insert(at, lines[at])
            case "cut":
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
            case "file":
                name = chance.choice(("../x.raw", "gone.raw", "", "LIST", "a%d.raw 1 9 1", "/etc/hostname"))
                lines.insert(at, f"data file: {name}" if one.name.endswith("nrrd") else f"ElementDataFile = {name}")
    return {one.name: "\n".join([*lines, ""]).encode("utf-8", "replace") + one.content[end - 1 :]}


# --- pictures: chunks, segments and tags


def _png(chance: Random) -> Files:
    one = chance.choice(list(_of(".png")))
    chunks, at = [], 8
    while at + 12 <= len(one.content):
        (length,) = struct.unpack_from(">I", one.content, at)
        chunks.append((one.content[at + 4 : at + 8], one.content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(chunks))
        name, body = chunks[at]
        match chance.choice(("header", "header", "drop", "copy", "move", "cut", "new", "noise")):
            case "header":
                spot, form = chance.choice(((0, ">I"), (4, ">I"), (8, "B"), (9, "B"), (10, "B"), (11, "B"), (12, "B")))
                head = bytearray(chunks[0][1].ljust(13, b"\0"))
                struct.pack_into(form, head, spot, chance.choice(NUMBERS) & (0xFF if form == "B" else 0xFFFFFFFF))
                chunks[0] = (chunks[0][0], bytes(head))
            case "drop" if len(chunks) > 1:
                del chunks[at]
            case "copy":
                chunks.insert(at, chunks[at])
            case "move":
                chunks.insert(chance.randrange(len(chunks)), chunks.pop(at))
            case "cut":
                chunks[at] = (name, body[: chance.randrange(len(body) + 1)])
            case "new":
                kind = chance.choice((b"iCCP", b"tRNS", b"PLTE", b"eXIf", b"zTXt", b"acTL", b"gAMA", b"sBIT", b"pHYs"))
                chunks.insert(at, (kind, chance.choice((b"", b"x\0\0junk", b"\0" * 9, bytes(range(256)) * 4))))
            case "noise":
                chunks[at] = (name, chance.randbytes(len(body)))
    plain = one.content[:8] + b"".join(struct.pack(">I", len(b)) + n + b + bytes(4) for n, b in chunks)
    return {"a.png": with_checksums(plain) if chance.random() < 0.9 else plain}


def _jpeg(chance: Random) -> Files:
    one = chance.choice(_of(".jpg"))
    segments, at = [], 2
    while one.content[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", one.content, at + 2)
        segments.append(one.content[at : at + 2 + length])
        at += 2 + length
    scan = bytearray(one.content[at:])
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(segments))
        match chance.choice(("frame", "frame", "drop", "copy", "move", "byte", "scan", "scan", "short", "restart")):
            case "frame":
                spot = next((i for i, s in enumerate(segments) if s[1] in (0xC0, 0xC2)), at)
                head = bytearray(segments[spot].ljust(20, b"\0"))
                where, form = chance.choice(((4, "B"), (5, ">H"), (7, ">H"), (9, "B"), (11, "B")))
                struct.pack_into(form, head, where, chance.choice(NUMBERS) & (0xFF if form == "B" else 0xFFFF))
                segments[spot] = bytes(head)
            case "drop" if len(segments) > 1:
                del segments[at]
            case "copy":
                segments.insert(at, segments[at])
            case "move":
                segments.insert(chance.randrange(len(segments)), segments.pop(at))
            case "byte":
                changed = bytearray(segments[at])
                changed[chance.randrange(2, len(changed))] = chance.randrange(256)
                segments[at] = bytes(changed)
            case "scan" if len(scan) > 20:
                spot = chance.randrange(14, len(scan))
                scan[spot : spot + chance.randint(0, 9)] = chance.randbytes(chance.randint(0, 9))
            case "short" if len(scan) > 20:
                del scan[chance.randrange(14, len(scan)) :]
            case "restart":
                segments.insert(at, b"\xff\xdd\0\4" + struct.pack(">H", chance.choice((0, 1, 7, 65535))))
    return {"a.jpg": one.content[:2] + b"".join(segments) + bytes(scan)}


def _tiff(chance: Random) -> Files:
    """Entries of the directory: tag, type, count and value."""
    one = chance.choice(_of(".tif"))
    content = bytearray(one.content)
    order = "<" if content[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, directory)
    for _ in range(chance.randint(1, 3)):
        at = directory + 2 + 12 * chance.randrange(count)
        field = chance.choice(("tag", "type", "count", "value", "value", "value", "layout", "layout", "next", "cut"))
        if field == "layout":  # of strips and samples
            tag = chance.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 339))
            entries = range(directory + 2, directory + 2 + 12 * count, 12)
            at = next((e for e in entries if struct.unpack_from(order + "H", content, e)[0] == tag), at)
            field = "value"
        if field in ("tag", "type"):
            code = chance.choice(
                (256, 258, 259, 262, 273, 277, 279, 284, 322, 325, 330, 338, 339, 700, 34665, 0, 5, 12)
            )
            struct.pack_into(order + "H", content, at + (0 if field == "tag" else 2), code)
        elif field in ("count", "value"):
            struct.pack_into(order + "I", content, at + (4 if field == "count" else 8), chance.choice(NUMBERS))
        elif field == "next":
            struct.pack_into(order + "I", content, directory + 2 + 12 * count, chance.choice((directory, 4, 2**31)))
        else:
            del content[chance.randrange(directory + 14 if directory < 100 else 8, len(content)) :]
            content += bytes(max(0, directory + 6 + 12 * count - len(content)))
    return {"a.tif": bytes(content)}


def _fixed(chance: Random) -> Files:
    """Numbers of the first bytes: BMP, MGH, GIF, WebP, JPEG 2000, AVIF and the text of PNM."""
    one = chance.choice(_of(".bmp", ".mgh", ".gif", ".webp", ".jp2", ".avif", ".ppm"))
    content = bytearray(one.content)
    for _ in range(chance.randint(1, 3)):
        form = chance.choice(("B", "<H", ">H", "<I", ">I"))
        size = struct.calcsize(form)
        at = chance.randrange(2 if chance.random() < 0.9 else 0, min(len(content) - size, 300))
        struct.pack_into(form, content, at, chance.choice(NUMBERS) & ((1 << 8 * size) - 1))
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    if one.name.endswith("ppm") and chance.random() < 0.5:
        words = [chance.choice(("P1", "P2", "P3", "P4", "P5", "P6")), *(str(chance.choice(NUMBERS)) for _ in range(3))]
        content = bytearray(" ".join(words).encode() + b"\n" + one.content[-3000:])
    return {one.name: bytes(content)}


_KINDS: dict[str, _Make] = {
    "dicom": _dicom,
    "series": _series,
    "nifti": _nifti,
    "lines": _lines,
    "png": _png,
    "jpeg": _jpeg,
    "tiff": _tiff,
    "fixed": _fixed,
}


def write(files: Files, folder: Path) -> None:
    """Put the files of a case into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
