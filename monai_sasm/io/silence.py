"""Silence for libraries that quote what they read: of one thread, while others read on."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Here(threading.local):
    depth = 0  # of :func:`quiet`, one inside the other


_here = _Here()
_LOGGERS = (  # a filter works on what its own logger is told, not on what comes from below it
    *("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.encoders.base", "pydicom.pixels.utils"),
    *("nibabel.global", "tifffile", "PIL.ImageFile", "PIL.PngImagePlugin", "PIL.TiffImagePlugin"),
)
"""Loggers of the libraries that read headers: pydicom 3 logs each of its warnings, too."""


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


class _Deaf(logging.Filter):
    """Drops the records of threads that are inside :func:`quiet`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged; asked in the thread that logs."""
        return _here.depth == 0


_silence()
_deaf = _Deaf()
for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_deaf)


def mute(*libraries: str) -> None:
    """Let libraries log what is critical alone and warn of nothing, in all threads: for servers that have their own.

    Args:
        libraries: names of loggers and of packages, with all below them.
    """
    for name in libraries:
        logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=rf"{re.escape(name)}(\.|$)")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and logs of libraries in this thread: they quote header values, which may be patient data."""
    _silence()
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1
