"""Whether the place of a result is free, seen before anything is restored."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from monai_sasm.io.commit import guard_folder, guard_target
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import companions, is_file_name
from monai_sasm.io.nifti.names import sidecar_of, stem

_MAPS = ("_weight-*", "_trust", "_uncertainty", "_change")  # beside a result; which weights, only restoring tells


def check_target(entry: Entry, target: Path, *, overwrite: bool, maps: bool) -> None:
    """Refuse a target where the result, its sidecar or its maps would destroy something.

    Args:
        entry: what is restored.
        target: file, or folder of a DICOM series.
        overwrite: earlier results may be replaced.
        maps: whether maps are written beside it.

    Raises:
        FileExistsError: one of them is there, and is not to be overwritten, or is nothing that this program wrote.
        ValueError: one of them is a source, or the sidecar of one.
    """
    result, series = {target, *companions(target)}, not is_file_name(target)
    if series:
        result.remove(target)
        guard_folder(target, overwrite=overwrite, ours=is_result)
    if maps and target.parent.is_dir():
        name = glob.escape(target.name if series else stem(target))
        result |= {found for part in _MAPS for found in target.parent.glob(f"{name}{part}.*")}
    there = [file for file in sorted(result, key=lambda file: (file != target, file)) if os.path.lexists(file)]
    if there:
        sources = (*entry.paths, *(sidecar_of(path) for path in entry.paths))
        for file in there:
            guard_target(file, overwrite=overwrite, sources=sources)


def is_result(path: Path) -> bool:
    """Whether a file is a DICOM object that this program derived."""
    from monai_sasm.io.dicom.header import read_header

    header = read_header(path)
    return header is not None and header.derived_here
