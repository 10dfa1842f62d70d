"""One door for all files: what is in a path, reading it, and writing a result back as the same kind of file."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.nifti import nifti
from monai_sasm.io.nifti.nifti import NiftiSource
from monai_sasm.io.nofollow import below
from monai_sasm.io.photo import photo as raster
from monai_sasm.io.photo.photo import RasterSource
from monai_sasm.io.volume import Volume
from monai_sasm.io.walk import files_below
from monai_sasm.types import Modality

_RASTER_SUFFIXES = tuple(suffix for suffixes in raster.SUFFIXES.values() for suffix in suffixes)
_IMAGE_SUFFIXES = (*nifti.SUFFIXES, *_RASTER_SUFFIXES, ".hdr", ".img", ".gif", ".webp", ".jp2", ".heic", ".avif")
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_HEAD = 352  # a NIfTI header and its extension flag; every other signature is shorter
_OTHER_IMAGES = ((b"GIF8", "a GIF"), (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"), (b"\xff\x4f\xff\x51", "a JPEG 2000 file"))
_MISNAMED = "the content is not what the name says, or damaged: export the file again"
_COPY = "a copy: another file holds the same SOP Instance UID, and that one is taken"


def inventory(path: Path, modality: Modality | None = None) -> list[Entry]:
    """Everything image-like under a path, by content and not by name, before any pixel is read.

    Args:
        path: a file, or a folder that is searched recursively; symbolic links that leave it are refused.
        modality: what NIfTI files are, which do not say it themselves; DICOM files say it, photos are refused when it
            is CT or MR.

    Returns:
        One entry per image, volume or DICOM series, sorted by folder and name; what cannot be processed carries its
        reason in ``refusal``. Other files (text, tables, ...) are listed only when there is nothing else.

    Raises:
        FileNotFoundError: nothing is there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; check the path")
    entries: list[Entry] = []
    others: list[Path] = []
    claimed: set[Path] = set()
    for file, reason in files_below(path):
        entry = _refused(file, reason) if reason else _inspect(file, modality)
        if entry is None:
            others.append(file)
        else:
            claimed.add(file)
            entries.append(entry)
    if others:
        from monai_sasm.io.dicom import index as dicom_index

        entries += [entry for entry in dicom_index.index(path) if claimed.isdisjoint(entry.paths)]
    entries += _unclaimed(others, entries)
    if not entries:
        reason = "not an image: only DICOM, NIfTI, PNG, JPEG, TIFF and BMP are read"
        entries = [_refused(file, reason) for file in others]
    return _unique(sorted(entries, key=lambda entry: (entry.paths[0].parent.parts, entry.name)))


def read(path: Path, modality: Modality | None = None) -> list[Volume]:
    """Load every image under a path that is not refused; see :func:`inventory`.

    Raises:
        RefusedError: nothing could be read; the message lists the reasons.
        FileNotFoundError: nothing is there.
    """
    volumes, reasons = [], []
    for entry in inventory(path, modality):
        if entry.refusal is not None:
            reasons.append(f"{entry.name}: {entry.refusal}")
            continue
        try:
            volumes.append(entry.load())
        except RefusedError as error:
            reasons.append(f"{entry.name}: {error}")
    if not volumes:
        raise RefusedError("nothing to read: " + ("; ".join(reasons) or "the folder is empty; check the path"))
    return volumes


def write(
    volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool = False, keep_private: bool = False
) -> list[Path]:
    """Write a result as the kind of file its source was.

    DICOM goes to a folder, NIfTI to a file with a JSON sidecar, photos to a file of the same kind. A DICOM volume
    given a ``.nii`` or ``.nii.gz`` target is exported as float32 NIfTI. Files appear whole or not at all.

    Args:
        volume: what a reader of this house made, with new pixels.
        path: target file, or folder for DICOM.
        derivation: what was done, for headers and sidecars.
        overwrite: replace an existing target.
        keep_private: keep the private tags of DICOM sources.

    Raises:
        FileExistsError: the target exists and ``overwrite`` is off.
        ValueError: the target has another kind than the source, or is the source.
    """
    path = Path(path)
    if isinstance(volume.source, NiftiSource):
        return nifti.write(volume, path, derivation, overwrite=overwrite)
    if isinstance(volume.source, RasterSource):
        return raster.write(volume, path, derivation, overwrite=overwrite)
    if volume.source is None:
        raise ValueError("only volumes made by a reader can be written, got one without source; use with_array()")
    if path.name.lower().endswith(nifti.SUFFIXES):
        from monai_sasm.io.nifti import export as nifti_export

        values = volume.array if volume.array.shape[0] > 1 else volume.array[0]
        return [nifti_export.export(values, volume, path, overwrite=overwrite)]
    if path.name.lower().endswith(_IMAGE_SUFFIXES):
        raise ValueError(f"a DICOM series is written into a folder, or as .nii.gz, got {path.name}")
    return _write_dicom(volume, path, derivation, overwrite=overwrite, keep_private=keep_private)


def output_path(entry: Entry, input_root: Path, output: Path) -> Path:
    """Where the result of an entry goes.

    One input file and an ``output`` with a file suffix: ``output`` itself. Otherwise the folder structure below
    ``input_root`` is repeated below ``output``: files keep their name (with the suffix of their true kind), a DICOM
    series becomes a folder named after the entry, an Enhanced multi-frame object a ``.nii.gz`` file.

    Raises:
        ValueError: the result would lie on its source, or a link stands on the way to it.
    """
    input_root, output = Path(input_root), Path(output)
    single = not input_root.is_dir()
    if single and output.name.lower().endswith(_IMAGE_SUFFIXES) and not output.is_dir():
        target = output
    else:
        parent = Path() if single else _common_parent(entry.paths).relative_to(input_root)
        target = output / parent / _result_name(entry)
    folder = entry.format == "dicom" and not target.name.lower().endswith(nifti.SUFFIXES)
    taken = {os.path.realpath(file.parent if folder else file) for file in entry.paths}
    if os.path.realpath(target) in taken:
        raise ValueError(f"a result is never written onto its source, got {target.name}; choose another output folder")
    return below(output, target.relative_to(output).as_posix()) if target != output else target


def target_for(volume: Volume, path: Path) -> Path:
    """Where the result of a volume goes: ``path`` itself if it names an image file, else a file or folder in it.

    Files keep the name of their source, with the suffix of their true kind; a DICOM series becomes a folder.
    """
    if path.name.lower().endswith(_IMAGE_SUFFIXES) and not path.is_dir():
        return path
    source = volume.source
    if isinstance(source, NiftiSource):
        named = source.path.name.lower().endswith(nifti.SUFFIXES)
        return path / (source.path.name if named else f"{source.path.name}.nii.gz")
    if isinstance(source, RasterSource):
        suffixes = raster.SUFFIXES[source.kind]
        return path / (source.path.name if source.path.suffix.lower() in suffixes else source.path.stem + suffixes[0])
    return path / (f"{volume.name}.nii.gz" if volume.geometry == "multiframe" else volume.name)


def write_map(
    array: NDArray[np.float32],
    like: Volume,
    path: Path,
    *,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a companion map (expert weights, change) on the grid of an image.

    Args:
        array: float32 with the spatial shape of ``like``, or ``(K, *spatial)`` for ``K`` maps. For photos in [0, 1].
        like: the image the map belongs to.
        path: ``.nii`` or ``.nii.gz`` for CT and MR (float32, ``K`` as fourth axis); ``.png`` for photos (8-bit grey,
            ``K`` files ``<stem>_<name>.png``).
        names: one file-name part per map of a photo; numbers by default.
        overwrite: replace existing files.

    Raises:
        FileExistsError: a target exists and ``overwrite`` is off.
        ValueError: wrong suffix, shape or value range.
    """
    path = Path(path)
    array = np.asarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("a map must be finite, got NaN or infinite values")
    if like.modality is not Modality.PHOTO:
        from monai_sasm.io.nifti import export as nifti_export

        return [nifti_export.export(array, like, path, overwrite=overwrite)]
    spatial = like.array.shape[1:]
    if array.shape != spatial and array.shape[1:] != spatial:
        raise ValueError(f"expected shape {spatial} or (K, *{spatial}) as the image has, got {array.shape}")
    if array.min() < -1e-3 or array.max() > 1 + 1e-3:
        raise ValueError(f"maps of photos lie in [0, 1], got [{array.min():g}, {array.max():g}]; scale them first")
    if array.ndim == 2:
        return [raster.write_grey(array, path, overwrite=overwrite)]
    labels = [str(index) for index in range(len(array))] if names is None else [_safe(name) for name in names]
    if len(labels) != len(array):
        raise ValueError(f"one name per map is needed, got {len(labels)} names for {len(array)} maps")
    targets = [path.with_name(f"{path.stem}_{label}{path.suffix}") for label in labels]
    return [raster.write_grey(one, target, overwrite=overwrite) for one, target in zip(array, targets, strict=True)]


def _inspect(file: Path, modality: Modality | None) -> Entry | None:
    """The entry of a NIfTI or photo file; ``None`` for everything else, DICOM included."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(_HEAD)
        if head[:2] == b"\x1f\x8b":
            with nifti.open_plain(file) as stream:
                head = stream.read(_HEAD)
    except (OSError, EOFError, zlib.error) as error:
        if file.name.lower().endswith(_IMAGE_SUFFIXES):
            return _refused(file, f"the file cannot be read ({type(error).__name__}): copy it again")
        return None
    if head[128:132] == b"DICM":
        return None
    if nifti.is_nifti(head):
        return nifti.inspect(file, modality, _safe(nifti.stem(file)))
    if raster.kind_of(head) is not None:
        return raster.inspect(file, modality, _safe(file.stem))
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _refused(file, "a WebP file: convert it to PNG")
    for magic, kind in _OTHER_IMAGES:
        if head.startswith(magic):
            return _refused(file, f"{kind}: convert it to PNG")
    return None


def _unclaimed(others: list[Path], entries: list[Entry]) -> list[Entry]:
    """Files whose name promises an image that neither their content nor the DICOM index confirms, and DICOM copies."""
    known = {file for entry in entries for file in entry.paths}
    # .hdr and .img are ENVI headers and disk images, too
    suffixes = (*(suffix for suffix in _IMAGE_SUFFIXES if suffix not in (".hdr", ".img")), *_DICOM_SUFFIXES)
    named = [file for file in others if file not in known and file.name.lower().endswith(suffixes)]
    return [_refused(file, _COPY if _is_dicom(file) else _MISNAMED) for file in named]


def _is_dicom(file: Path) -> bool:
    from monai_sasm.io.dicom.header import is_dicom

    return is_dicom(file)


def _refused(file: Path, reason: str) -> Entry:
    name = file.name.lower()
    kind = "nifti" if name.endswith(nifti.SUFFIXES) else "dicom" if name.endswith(_DICOM_SUFFIXES) else "raster"
    return Entry(_safe(nifti.stem(file)), kind, (file,), None, "unknown", reason, (), _refusing(reason))


def _refusing(reason: str) -> Callable[[], Volume]:
    def refuse() -> Volume:
        raise RefusedError(reason)

    return refuse


def _unique(entries: list[Entry]) -> list[Entry]:
    taken = {entry.name for entry in entries}
    seen: set[str] = set()
    numbers: dict[str, int] = {}  # where to go on, so that 100 000 files of one name take no time
    unique = []
    for entry in entries:
        name, number = entry.name, numbers.get(entry.name, 2)
        while name in seen or (name != entry.name and name in taken):
            name, number = f"{entry.name}-{number}", number + 1
        numbers[entry.name] = number
        seen.add(name)
        unique.append(entry if name == entry.name else replace(entry, name=name))
    return unique


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "image"


def _result_name(entry: Entry) -> str:
    if entry.format == "dicom":
        return f"{entry.name}.nii.gz" if entry.geometry == "multiframe" else entry.name
    file = entry.paths[0]
    if entry.refusal is not None:  # may be a link, a folder or locked; there will be no result
        return file.name
    if entry.format == "nifti":
        return file.name if file.name.lower().endswith(nifti.SUFFIXES) else f"{file.name}.nii.gz"
    with open(file, "rb") as stream:
        kind = raster.kind_of(stream.read(_HEAD))
    if kind is None or file.suffix.lower() in raster.SUFFIXES[kind]:
        return file.name
    return file.stem + raster.SUFFIXES[kind][0]


def _common_parent(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in paths]))


def _write_dicom(
    volume: Volume, folder: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
) -> list[Path]:
    from monai_sasm.io.dicom import write as dicom_derived

    source: Any = volume.source
    if folder.resolve() in {file.parent.resolve() for file in source.paths}:
        raise ValueError(f"a series never goes into the folder of its source, got {folder.name}; choose another")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a DICOM series needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} holds files already; choose another output or pass --overwrite")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        files = dicom_derived.write_series(volume, unfinished, derivation, keep_private=keep_private)
        targets = [folder / file.relative_to(unfinished) for file in files]
        if not folder.exists():
            os.replace(unfinished, folder)
            return targets
        for file, target in zip(files, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        return targets
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
