"""One received series becomes its derived series, with networks that are loaded once."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.plan import plan
from monai_sasm.batch.work import restorer_of, run_at_once
from monai_sasm.errors import DISK_FAULTS, MEMORY_FAULTS, BundleError
from monai_sasm.io.apart import decoding_apart
from monai_sasm.node.fields import as_list, check_fields
from monai_sasm.node.outcome import NoMemoryError, Outcome
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality

_RUN_SETTINGS = ("device", "precision", "trust")
_NOT_FOR_SERIES = ("keep_maps", "upscale")
_OPTION_SETTINGS = tuple(one.name for one in fields(Options) if one.name not in _NOT_FOR_SERIES)


class SeriesRestorer:
    """Restores the DICOM files of a folder. Only a fault of the machine is raised; the rest is part of the outcome.

    Args:
        settings: fields of :class:`monai_sasm.restoration.options.Options`, and ``device``, ``precision``, ``trust``
            (folders).
        keep_private: keep private attributes.

    Raises:
        ValueError: a setting is unknown or not allowed.
        BundleError: a bundle is missing or incomplete.
    """

    def __init__(self, settings: Mapping[str, Any], keep_private: bool = False) -> None:
        unknown = sorted(set(settings) - {*_RUN_SETTINGS, *_OPTION_SETTINGS})
        if unknown:
            known = ", ".join((*_OPTION_SETTINGS, *_RUN_SETTINGS))
            raise ValueError(f"unknown restore setting {', '.join(unknown)}; known are {known}")
        check_fields(Options, settings, "restore: ")
        run = {key: settings[key] for key in ("device", "precision") if key in settings}
        for key, value in run.items():
            if not isinstance(value, str):
                raise ValueError(f"restore: {key} must be text, got {value!r}")
        self._options = Options(**{key: value for key, value in settings.items() if key in _OPTION_SETTINGS})
        self._job = BatchJob(
            source=Path(),
            output=Path(),
            options=self._options,
            command="node",
            trust=tuple(Path(folder).expanduser() for folder in as_list("restore: trust", settings.get("trust"))),
            ledger=False,
            keep_private=keep_private,
            **run,
        )
        self._restorer = restorer_of(self._job)

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

    def __call__(self, source: Path, derived: Path, progress: Callable[[float], object] | None = None) -> Outcome:
        """Restore every series in ``source`` into a folder of its own below ``derived``; see :class:`Restores`."""
        job = replace(self._job, source=source, output=derived)
        written = 0
        left: dict[str, list[tuple[tuple[Path, ...], str]]] = {"failed": [], "skipped": []}
        for task in plan(job):
            with decoding_apart():
                row = run_at_once(task, job, restorer=self._restorer, progress=progress)
            if row.get("error") in DISK_FAULTS:
                raise OSError(getattr(errno, row["error"]), row["reason"])
            if row.get("error") in MEMORY_FAULTS:
                raise NoMemoryError(row["reason"])
            if row["status"] == "ok":
                written += row["output"]["files"]
            else:
                left[row["status"]].append((task.entry.paths, row["reason"]))
        return Outcome(written, tuple(left["failed"]), tuple(left["skipped"]))
