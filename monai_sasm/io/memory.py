"""Does an image fit into this machine's memory? Asked before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from monai_sasm.io.entry import RefusedError

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
