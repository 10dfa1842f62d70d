"""One received series becomes its derived series, with networks that are loaded once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.errors import BundleError, RefusedError, reason_of
from monai_sasm.io.formats import inventory
from monai_sasm.node.outcome import Outcome, is_disk_fault
from monai_sasm.restoration.files import open_restorer, restore_to
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry

_HOUSE_SETTINGS = ("device", "precision", "trust")
_NOT_FOR_SERIES = ("keep_maps", "upscale")
_OPTION_SETTINGS = tuple(one.name for one in fields(Options) if one.name not in _NOT_FOR_SERIES)

logger = logging.getLogger(__name__)


class SeriesRestorer:
    """Restores the DICOM files of a folder. Only a fault of the disk is raised; the rest is part of the outcome.

    Args:
        settings: fields of :class:`monai_sasm.restoration.options.Options`, and ``device``, ``precision``, ``trust``
            (folders).
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
        self._restorer = open_restorer(
            settings.get("device", "auto"),
            settings.get("precision", "float32"),
            [Path(folder) for folder in settings.get("trust", ())],
            self._options,
        )

    @property
    def digest(self) -> str:
        """Hexadecimal digest of version, models and options: what UIDs depend on besides those of the source."""
        digests = []
        for modality in (one for one in Modality.known() if one.profile.dicom):
            try:
                digests.append(self._restorer.plan(modality, self._options).derivation.digest)
            except BundleError:  # series of this modality will be refused, with the reason
                digests.append("refused")
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def __call__(self, source: Path, derived: Path) -> Outcome:
        """Restore every series in ``source`` into a folder of its own below ``derived``."""
        written = 0
        refused: list[tuple[tuple[Path, ...], str]] = []
        for entry in inventory(source):
            try:
                written += self._restore(entry, derived / entry.name)
            except Exception as error:  # one volume of a series must not stop the others
                if is_disk_fault(error):
                    raise
                logger.debug("traceback", exc_info=True)
                refused.append((entry.paths, reason_of(error)))
        return Outcome(written, tuple(refused))

    def _restore(self, entry: Entry, folder: Path) -> int:
        if entry.refusal is not None:
            raise RefusedError(entry.refusal)
        if entry.geometry == "multiframe":
            raise RefusedError("an Enhanced multi-frame result is no DICOM series; use `sasm restore` for NIfTI")
        done = restore_to(entry.load(), folder, self._restorer, self._options, keep_private=self._keep_private)
        return int(done["output"]["files"])
