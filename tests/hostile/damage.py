"""What disks, networks and attackers do to a file, as a hypothesis strategy."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.hostile.intact import Intact, intact_files

HEADER = 1024  # bytes in which most of a file's promises stand
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7F800000, 0x7FC00000)
"""Numbers at the ends of their types, among them the float32 infinity and NaN."""


@dataclass(frozen=True)
class Damaged:
    """A file after some accidents.

    Args:
        intact: what it was.
        content: its bytes now.
        accidents: what happened, for whoever looks into a failure.
    """

    intact: Intact
    content: bytes = field(repr=False)
    accidents: tuple[str, ...]


@st.composite
def damaged(draw: st.DrawFn) -> Damaged:
    """A file after one to three accidents."""
    intact = draw(st.sampled_from(intact_files()))
    content, story = intact.content, []
    for _ in range(draw(st.integers(1, 3))):
        if content:
            content, what = _accident(draw, content)
            story.append(what)
    return Damaged(intact, intact.pack(content), tuple(story))


def _accident(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    reach = min(len(content), HEADER) if draw(st.booleans()) else len(content)
    at = draw(st.integers(0, reach - 1))
    changed = bytearray(content)
    kind = draw(st.sampled_from(("cut", "flip", "extreme", "wipe", "remove", "repeat", "splice")))
    match kind:
        case "cut":
            del changed[at:]
        case "flip":
            changed[at] ^= 1 << draw(st.integers(0, 7))
        case "extreme":
            form = draw(st.sampled_from(("B", "<H", ">H", "<I", ">I")))
            size = struct.calcsize(form)
            limit = (1 << 8 * size) - 1
            changed[at : at + size] = struct.pack(form, draw(st.sampled_from(EXTREMES)) & limit)
        case "wipe":
            length = draw(st.integers(1, 64))
            changed[at : at + length] = bytes([draw(st.sampled_from((0, 0x20, 0xFF)))]) * len(changed[at : at + length])
        case "remove":
            del changed[at : at + draw(st.integers(1, 64))]
        case "repeat":
            changed[at:at] = content[at : at + draw(st.integers(1, 64))]
        case "splice":
            other = draw(st.sampled_from(intact_files())).content
            start = draw(st.integers(0, len(other) - 1))
            length = draw(st.integers(1, 256))
            changed[at : at + length] = other[start : start + length]
    return bytes(changed), f"{kind} at {at}"
