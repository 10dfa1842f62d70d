"""One received series becomes its derived series, with networks that are loaded once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm import restore as room
from monai_sasm.io.entry import RefusedError
from monai_sasm.io.formats import inventory, write
from monai_sasm.restore import Options

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry

_HOUSE_SETTINGS = ("device", "precision", "trust")
_OPTION_SETTINGS = tuple(one.name for one in fields(Options) if one.name != "keep_maps")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one folder.

    Args:
        written: derived files.
        refused: files that were not restored, with the reason.
    """

    written: int
    refused: tuple[tuple[tuple[Path, ...], str], ...]


class Restorer:
    """Restores the DICOM files of a folder. Only a fault of the disk is raised; the rest is part of the outcome.

    Args:
        settings: fields of :class:`monai_sasm.restore.Options`, and ``device``, ``precision``, ``trust`` (folders).
        keep_private: keep private attributes.

    Raises:
        ValueError: a setting is unknown or not allowed.
        BundleError: a bundle is missing or incomplete.
    """

    def __init__(self, settings: Mapping[str, Any], keep_private: bool = False) -> None:
        unknown = sorted(set(settings) - {*_HOUSE_SETTINGS, *_OPTION_SETTINGS})
        if unknown:
            known = ", ".join((*_OPTION_SETTINGS, *_HOUSE_SETTINGS))
            raise ValueError(f"unknown restore setting {', '.join(unknown)}; known are {known}")
        self._options = Options(**{key: value for key, value in settings.items() if key in _OPTION_SETTINGS})
        self._keep_private = keep_private
        self._house = room.load_house(
            settings.get("device", "auto"),
            [Path(folder) for folder in settings.get("trust", ())],
            only=[self._options.expert] if self._options.expert else [],
            precision=settings.get("precision", "float32"),
        )
        self._derivation = room.derivation(self._house, self._options)

    @property
    def digest(self) -> str:
        """Hexadecimal digest of models and options: equal digests give equal UIDs."""
        return self._derivation.digest

    def __call__(self, source: Path, derived: Path) -> Outcome:
        """Restore every series in ``source`` into a folder of its own below ``derived``."""
        written, refused = 0, []
        for entry in inventory(source):
            try:
                written += self._restore(entry, derived / entry.name)
            except OSError:  # the disk, not the series
                raise
            except Exception as error:  # one volume of a series must not stop the others
                logger.debug("traceback", exc_info=True)
                refused.append((entry.paths, reason_of(error)))
        return Outcome(written, tuple(refused))

    def _restore(self, entry: Entry, folder: Path) -> int:
        if entry.refusal is not None:
            raise RefusedError(entry.refusal)
        if entry.geometry == "multiframe":
            raise RefusedError(
                "an Enhanced multi-frame result cannot be written as DICOM; use `sasm restore` for NIfTI"
            )
        restored = room.restore(entry.load(), self._house, self._options)
        return len(write(restored.volume, folder, self._derivation, keep_private=self._keep_private))


def reason_of(error: BaseException) -> str:
    """An error in one line. Unforeseen ones give their type only: their text may quote header values."""
    if isinstance(error, MemoryError):
        return "not enough memory for this series"
    if isinstance(error, (ValueError, OSError, RuntimeError, ImportError)) and str(error):
        return " ".join(str(error).split())
    return f"unforeseen {type(error).__name__}"
