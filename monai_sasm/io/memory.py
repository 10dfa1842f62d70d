"""Does an image fit into this machine's memory? Asked before anything is allocated; and given back what is free."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from monai_sasm.errors import UnreadableError

_SHARE = 0.9  # of the free memory that one image may take
_SMALL = 1 << 24  # pixels
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_KEPT, _USUAL = 1 << 25, 1 << 17  # bytes: the most that mallopt(3) takes, and what it begins with
_MAX_PIXELS_PER_BYTE = 8 * 1032  # of one bit each, all the same, in the densest that deflate can


def refuse_if_too_large(needed: int) -> None:
    """Refuse to start reading when ``needed`` bytes exceed what is free.

    Raises:
        RefusedError: the image would not fit; its header may also be damaged.
    """
    free = free_memory()
    if free is not None and needed > _SHARE * free:
        raise UnreadableError(
            f"reading takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of memory are free: "
            "crop or split the image, or use a larger machine (or the header is damaged)"
        )


def refuse_if_too_short(pixels: int, stored: int) -> None:
    """Refuse a large image whose compressed data cannot hold it: no codec of ours says so much in so few bytes.

    The densest that real images come, blank ones, are some hundred pixels a byte.

    Args:
        pixels: that the header announces; small ones are let be, they cost nothing.
        stored: bytes of compressed data, or of the whole file.

    Raises:
        RefusedError: the header promises more than the data can hold.
    """
    if pixels > _SMALL and pixels > _MAX_PIXELS_PER_BYTE * stored:
        raise UnreadableError(
            f"the header announces {pixels} pixels and {stored} bytes of data are there, which cannot hold them: "
            "the file is damaged or cut off; fetch it again"
        )


def keep_freed(wanted: bool) -> None:
    """Have the C library keep freed blocks for the next ones, until :func:`give_back`; or no longer.

    By default it returns large ones at once, and each slice of a volume then waits for the system to clear thousands
    of pages: a tenth of a network's time. A large photo, whose blocks are of many sizes, would take a third more
    memory for it.
    """
    allow = _of_glibc("mallopt")
    if allow is not None and allow(_MMAP_THRESHOLD, _LARGEST_KEPT if wanted else _USUAL):
        allow(_TRIM_THRESHOLD, 2**31 - 1 if wanted else _USUAL)


def give_back() -> None:
    """Return to the system what the C library holds between its live blocks: half a megabyte a slice, in the end."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, TypeError, AttributeError):  # no Linux, or no glibc
        return None
    return function


def free_memory() -> int | None:
    """Free memory in bytes, of the machine or of the container, whichever is less; ``None`` where nobody tells."""
    if _assumed:
        return _assumed[0]
    told = [
        free for free in (_machine(), _container(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))) if free is not None
    ]
    return min(told) if told else None


def assume(free: int) -> None:
    """Take for free, from now on, what another process has found."""
    _assumed[:] = [free]


_assumed: list[int] = []


def _machine() -> int | None:
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


def _container(groups: Path, mount: Path) -> int | None:
    """What the control groups of this process leave it, the tightest of all above it; ``None`` without a limit.

    Both versions of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html and ``cgroup-v1/memory.html``.
    Pages of files that could be dropped count as free.

    Args:
        groups: ``/proc/self/cgroup``, lines of ``number:controllers:path``.
        mount: where the hierarchies are mounted. In a container, the path of the host is not below it.
    """
    try:
        lines = [line.split(":", 2) for line in groups.read_text("utf-8", "surrogateescape").split("\n")]
    except OSError:
        return None
    left: list[int] = []
    for line in lines:
        if len(line) != 3 or (line[1] and "memory" not in line[1].split(",")):
            continue
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") if line[1] else _VERSION_2
        root = mount / "memory" if line[1] else mount
        for group in (root / line[2].lstrip("/"), *(root / line[2].lstrip("/")).parents):
            if group.is_relative_to(root) and (free := _left(group, *names)) is not None:
                left.append(free)
    return min(left) if left else None


_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_NO_LIMIT = 1 << 60  # version 1 says the largest number of pages instead of nothing


def _left(group: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    try:
        limit, usage = int((group / limit_name).read_text()), int((group / usage_name).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    if limit >= _NO_LIMIT:
        return None
    return max(0, limit - usage + min(usage, int(stat.get(cache_name, 0))))
