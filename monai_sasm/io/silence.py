"""Silence for libraries that quote what they read: of one thread, while others read on."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Here(threading.local):
    depth = 0  # of :func:`quiet`, one inside the other


_here = _Here()


class _InQuiet(type):
    def __subclasscheck__(cls, other: type) -> bool:
        return _here.depth > 0


class _Silenced(Warning, metaclass=_InQuiet):
    """Stands for every category of warnings, in threads that are inside :func:`quiet` alone.

    ``warnings.catch_warnings`` changes the filters of all threads, and puts back what others have changed meanwhile.
    """


def _silence() -> None:
    if not warnings.filters or warnings.filters[0][2] is not _Silenced:
        warnings.simplefilter("ignore", _Silenced)


_silence()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings in this thread: they quote attribute values, and so may quote patient data."""
    _silence()
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1
