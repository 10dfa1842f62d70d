"""The errors of this package, and any error as one line that a user can act on and that quotes no patient data."""

from __future__ import annotations


class RefusedError(ValueError):
    """The input cannot be processed rightly; the message is the reason and the way out. Never holds patient data."""


class BundleError(ValueError):
    """A bundle folder is incomplete or inconsistent; the message names the file and what it should hold."""


def reason_of(error: BaseException) -> str:
    """An error in one line. Unforeseen ones give their type only: their text may quote header values."""
    if isinstance(error, MemoryError):
        return "not enough memory; restore fewer or smaller images at once"
    if isinstance(error, RuntimeError) and "out of memory" in str(error):
        return "the accelerator has not enough memory; use --device cpu"
    if isinstance(error, (ValueError, OSError, ImportError, RuntimeError)) and str(error):
        return " ".join(str(error).split())
    return f"unforeseen {type(error).__name__}; run again with -vv for the traceback"
