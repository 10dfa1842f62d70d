"""Does an image fit into this machine's memory? Asked before anything is allocated; and given back what is free."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from monai_sasm.errors import RefusedError

_SHARE = 0.9  # of the free memory that one image may take


def refuse_if_too_large(needed: int) -> None:
    """Refuse to start reading when ``needed`` bytes exceed what is free.

    Raises:
        RefusedError: the image would not fit; its header may also be damaged.
    """
    free = free_memory()
    if free is not None and needed > _SHARE * free:
        raise RefusedError(
            f"reading takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of memory are free: "
            "crop or split the image, or use a larger machine (or the header is damaged)"
        )


def give_back() -> None:
    """Return to the system what the C library holds between its live blocks: half a megabyte a slice, in the end."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):  # no Linux, or no glibc
        return None
    return trim


def free_memory() -> int | None:
    """Free memory in bytes; ``None`` where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    names = getattr(os, "sysconf_names", {})
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if pages in names and "SC_PAGE_SIZE" in names:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return None
