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


def check_output(output: Path, *, named: bool = True) -> None:
    """Refuse an output into which nothing can be written, before anything is looked through or loaded.

    Args:
        output: folder, missing or not.
        named: it may also be the name of one image, such as ``x.nii.gz``.

    Raises:
        NotADirectoryError: a file, or a link that leads nowhere, is where a folder must be.
        PermissionError: nothing may be written there.
    """
    folder = output.parent if named and is_file_name(output) and not output.is_dir() else output
    found = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(one))
    if not found.is_dir():
        what = "file" if found.exists() else "link that leads nowhere"
        raise NotADirectoryError(f"{found.name if found != folder.absolute() else folder} is a {what}; name a folder")
    if hasattr(os, "statvfs") and os.statvfs(found).f_flag & os.ST_RDONLY:
        raise PermissionError(f"{found} lies on a read-only file system; choose another output")
    if not os.access(found, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write into {found}; choose another output")


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
