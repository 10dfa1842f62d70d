"""The errors of this package, and any error as one line that a user can act on and that quotes no patient data."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterable
from types import TracebackType

DISK_FULL = frozenset({"ENOSPC", "EDQUOT", "EROFS"})
"""Names of errors after which nothing more can be written."""
DISK_FAULTS = DISK_FULL | {"EIO", "EMFILE", "ENFILE"}
"""Names of errors that are no fault of the image under way: it may be tried again."""
MEMORY_FAULTS = frozenset({"MemoryError", "OutOfMemoryError"})
"""Names of errors for want of memory, of the machine or of the accelerator: another program may have it for now."""
EXTRAS = {
    "dask": "cluster",
    "dask_jobqueue": "cluster",
    "diffusers": "diffusion",
    "distributed": "cluster",
    "einops": "diffusion",
    "fire": "train",
    "h5py": "fastmri",
    "ignite": "train",
    "jsonschema": "train",
    "lpips": "lpips",
    "matplotlib": "evaluate",
    "pillow_heif": "formats",
    "pynetdicom": "node",
    "requests": "node",
    "scipy": "evaluate",
    "SimpleITK": "evaluate",
    "skimage": "evaluate",
    "starlette": "view",
    "tensorboard": "train",
    "transformers": "diffusion",
    "uvicorn": "view",
}
"""Module -> the extra of ``monai-sasm`` that brings it."""
_MISSING = re.compile(r"No module named '(\w+)")
_FLAGS = {"gate_name": "gate", "bundles": "bundle", "destinations": "to"}
_CHOICE = re.compile(
    r"\b(data|overwrite|force_modality|force_refiner|resume|adopt|modality|device|expert|trust|gate_name|bundles"
    r"|destinations|allow|spool)=(?:True\b|\[?'([^']*)'\]?|\{'([^']*)': '([^']*)'\})"
)
_PASSED_CHOICE = re.compile(rf"(?:\b(?:pass|use) )?{_CHOICE.pattern}")
_OF_SERVERS = ("modality", "device", "trust", "gate_name")
_SHORTEST_NAME = 4  # a shorter one would be found inside of ordinary words


class RefusedError(ValueError):
    """The input cannot be processed rightly; the message is the reason and the way out. Never holds patient data."""


class UnreadableError(RefusedError):
    """What should have been processed could not be read: it is damaged, incomplete or locked. A failure, no choice."""


class NotAnImageError(RefusedError):
    """The pixels are something else than an image of their modality: a label map, phase, a parameter map, ..."""


class BundleError(ValueError):
    """A bundle folder is incomplete or inconsistent; the message names the file and what it should hold."""


def reason_of(error: BaseException, private: Iterable[str] = ()) -> str:
    """An error in one line. Unforeseen ones give their type only: their text may quote header values.

    Args:
        error: what was raised.
        private: names and paths that must not be told; ``...`` stands for them, and errors of the system, which end in
            a path, give their cause alone.
    """
    if isinstance(error, MemoryError):
        return "not enough memory; restore fewer or smaller images at once"
    if _is_of_accelerator(error):
        return "the accelerator has not enough memory; use device='cpu'"
    if not (isinstance(error, (ValueError, OSError, ImportError, RuntimeError)) and str(error)):
        return f"unforeseen {type(error).__name__}; run again with -vv for the traceback"
    names = sorted((name for name in private if len(name) >= _SHORTEST_NAME), key=len, reverse=True)
    if names and isinstance(error, OSError) and error.strerror:
        return error.strerror
    missing = _MISSING.search(str(error)) if isinstance(error, ImportError) else None
    if missing is not None and missing[1] in EXTRAS and "pip install" not in str(error):
        return f"this needs {missing[1]}, which is not installed: pip install 'monai-sasm[{EXTRAS[missing[1]]}]'"
    reason = " ".join(str(error).split())
    for name in names:
        reason = reason.replace(name, "...")
    return reason


def buried_reason(error: BaseException) -> str | None:
    """What an error came from that a user can act on, in one line; ``None`` where it says so itself, or nothing does.

    MONAI's configurations and transforms wrap each error in ones of their own, which name components and no reason.
    """
    if isinstance(error, _TOLD):
        return None
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _TOLD):
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None if cause is None else reason_of(cause)


_TOLD = (RefusedError, BundleError, OSError, ImportError)


def _tell_buried(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    if reason := buried_reason(error):
        print(f"\nmonai_sasm: {reason}", file=sys.stderr)


if getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None) == "monai.bundle.__main__":
    sys.excepthook = _tell_buried  # the command `python -m monai.bundle`, whose tracebacks are long


def as_flags(reason: str) -> str:
    """A reason for whoever types commands: ``modality='CT'`` becomes ``--modality CT``, ``overwrite=True`` a flag.

    Reasons name choices as Python has them, for that is where they come from: ``name=True``, ``name='value'``,
    ``name=['value']`` or ``name={'key': 'value'}``.
    """
    return _CHOICE.sub(_flag, reason)


def as_commands(reason: str, server: str = "sasm view") -> str:
    """A reason for whoever sees a page of a server: a choice it has no button for names the command that has it.

    Args:
        reason: as for :func:`as_flags`.
        server: command by which the server is started with another choice.
    """

    def use(found: re.Match[str]) -> str:
        return f"use `{server if found[1] in _OF_SERVERS else 'sasm restore'} {_flag(found)}`"

    return _PASSED_CHOICE.sub(use, reason)


def _flag(found: re.Match[str]) -> str:
    name, value, key, item = found.groups()
    flag = "--" + _FLAGS.get(name, name).replace("_", "-")
    return f"{flag} {key}={item}" if key else f"{flag} {value or ''}".rstrip()


def error_name(error: BaseException) -> str:
    """The name of an error: of the system's, where it is one (``ENOSPC``), else of its type.

    ``OutOfMemoryError`` for every accelerator: torch has that type for CUDA alone.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "OSError")
    return "OutOfMemoryError" if _is_of_accelerator(error) else type(error).__name__


def _is_of_accelerator(error: BaseException) -> bool:
    """Whether an accelerator has not enough memory."""
    return isinstance(error, RuntimeError) and "out of memory" in str(error)
