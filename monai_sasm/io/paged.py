"""Long volumes in a file without a name, which the system takes out of memory and puts back page by page.

A CT of 3,000 slices is 3 GiB of float32. It is read, restored and written slice by slice, so that only the slices at
work have to be in memory. The file lies where temporary files do (``TMPDIR``), or large ones (``/var/tmp``) where these
are in memory themselves; it is readable by its owner alone, never has a name, and goes with the array. Where there is
no room for it, or no Linux, arrays stay in memory.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.memory import refuse_if_too_large

T = TypeVar("T")

LONG = 1 << 29  # bytes; shorter volumes stay in memory
_SHARE = 0.5  # of the free space that one volume may take
_OFTEN = 32  # slices between two looks
_LARGE_FILES = "/var/tmp"

_in_use: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_changing = threading.Lock()


def empty(shape: tuple[int, ...], *, order: Literal["C", "F"] = "C", beside: int = 0) -> NDArray[np.float32]:
    """A float32 array of arbitrary values, in a file if it is long.

    Args:
        shape: of the array.
        order: of its elements: what is used together should lie together.
        beside: bytes of memory that its reader takes besides.

    Raises:
        RefusedError: what has to be in memory does not fit.
    """
    size = 4 * math.prod(shape)
    pages = _mapped(size) if size >= LONG else None
    refuse_if_too_large(size + beside if pages is None else beside)
    if pages is None:
        return np.empty(shape, np.float32, order=order)
    with _changing:
        _in_use.add(pages)
    return np.ndarray(shape, np.float32, buffer=pages, order=order)


def like(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """:func:`empty` in the shape of another array, its elements in the same order in memory."""
    axes = np.argsort([-abs(step) for step in array.strides], kind="stable")
    return empty(tuple(array.shape[axis] for axis in axes)).transpose(np.argsort(axes))


def paging(items: Iterable[T]) -> Iterator[T]:
    """The items, one for each slice or so, with memory freed of the paged arrays' slices every now and then."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _OFTEN == 0:
            page_out()
    page_out()


def page_out() -> None:
    """Free the memory that paged arrays take at the moment; their values are kept, and come back when asked for."""
    with _changing:
        found = tuple(_in_use)
    for pages in found:
        pages.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: the file keeps what was written, see madvise(2)


def _mapped(size: int) -> mmap.mmap | None:
    """So many bytes of a file whose blocks are all there: to run out of them later would end the process."""
    if not (hasattr(os, "posix_fallocate") and hasattr(mmap, "MADV_DONTNEED")):
        return None
    folders = (one for one in (tempfile.gettempdir(), _LARGE_FILES) if os.access(one, os.W_OK) and not _in_memory(one))
    folder = next((one for one in folders if size <= _SHARE * shutil.disk_usage(one).free), None)
    if folder is None:
        return None
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
        except OSError:  # no room after all, on the disk or among the addresses that a limit leaves
            return None


def _in_memory(folder: str, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether what lies in a folder takes memory, as below ``/tmp`` of many systems."""
    try:
        lines = [line.split(" ") for line in mounts.read_text("utf-8", "surrogateescape").split("\n")]
    except OSError:
        return False
    place = Path(folder).resolve()
    above = [(line[1].replace("\\040", " "), line[2]) for line in lines if len(line) > 2]
    kinds = {Path(point): kind for point, kind in above if place.is_relative_to(point)}  # a later mount hides another
    return kinds[max(kinds, key=lambda point: len(point.parts))] in ("tmpfs", "ramfs") if kinds else False
