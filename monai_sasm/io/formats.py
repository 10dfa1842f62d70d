"""One place for all files: what is in a path, reading it, and writing a result back as the same kind of file."""

from __future__ import annotations

import logging
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from monai_sasm.errors import NotAnImageError, RefusedError
from monai_sasm.io import foreign
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.format import DicomFormat, likeness
from monai_sasm.io.doubts import OVERRULE, doubt_about
from monai_sasm.io.entry import Entry, refuse, refused
from monai_sasm.io.file_format import HEAD, FileFormat
from monai_sasm.io.meaning import refusal
from monai_sasm.io.nifti.format import NiftiFormat
from monai_sasm.io.nifti.header import open_plain
from monai_sasm.io.nifti.names import meaning
from monai_sasm.io.nofollow import inside
from monai_sasm.io.photo.format import PhotoFormat
from monai_sasm.io.volume import Volume, check_volume
from monai_sasm.io.volumes import metaimage, mgh, nrrd
from monai_sasm.io.volumes.format import LayoutFormat
from monai_sasm.io.walk import UNREADABLE, files_below
from monai_sasm.types import Modality

FORMATS: list[FileFormat] = [
    DicomFormat(),
    NiftiFormat(),
    *(LayoutFormat(codec) for codec in (nrrd, metaimage, mgh)),
    PhotoFormat(),
]
"""All that is read and written, in the order in which they are asked whether a file is theirs. Files whose first bytes
cannot be read and whose names say nothing are left to the first."""

READ = "DICOM, NIfTI, NRRD, MetaImage, MGH, PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, AVIF, HEIC or PNM"
"""What is read, for people."""

REASONS = 3  # why nothing could be read, in one message

logger = logging.getLogger(__name__)


def inventory(
    path: Path | Sequence[Path], modality: Modality | None = None, *, force_modality: bool = False
) -> list[Entry]:
    """Everything image-like under a path, by content and not by name, before any pixel is read.

    Args:
        path: a file, or a folder that is searched recursively, or several of them, whose DICOM files may make up one
            series; symbolic links that leave a folder are refused.
        modality: what files are that do not say it themselves, such as NIfTI. Those that say another one are refused
            where they are named themselves, or where all that is found says another one.
        force_modality: do not refuse what seems to be no image of its modality (label maps, phase, parameter maps, CT
            that is not in HU); its notes say so.

    Returns:
        One entry per image, volume or DICOM series, sorted by folder and name; what cannot be processed carries its
        reason in ``refusal``. Other files (text, tables, ...) are listed only when there is nothing else.

    Raises:
        FileNotFoundError: nothing is there.
    """
    roots = [Path(path)] if isinstance(path, (str, Path)) else [Path(one) for one in path]
    for root in roots:
        if not root.exists():
            raise FileNotFoundError(f"{root} does not exist; check the path")
    entries: list[Entry] = []
    others: list[Path] = []
    claimed: dict[str, list[Path]] = defaultdict(list)
    for file, reason in dict.fromkeys(found for root in roots for found in files_below(root)):
        claim = reason or _claim(file)
        if isinstance(claim, str):
            entries.append(_refused(file, claim, unreadable=reason is None or reason in UNREADABLE))
        elif claim is None:
            others.append(file)
        else:
            claimed[claim.name].append(file)
    near = {likeness(file) for file in claimed[DicomFormat.name]}
    claimed[DicomFormat.name] += [file for file in others if likeness(file) in near]  # a slice that lost its content
    known: set[Path] = set()
    for one in FORMATS:
        files = claimed[one.name]
        found = one.inspect(files, modality) if files else []
        entries += found
        own = {file for entry in found for file in entry.paths}
        others += (file for file in files if file not in own)
        known |= own
    others = [file for file in others if file not in known]  # voxels with a header beside them are no file of their own
    for file in others:
        promised = file.name.lower().endswith(_suffixes(folders=True))
        reason = foreign.reason_for(file, promised=promised)
        unreadable = promised and reason in (foreign.EMPTY, foreign.DAMAGED)
        entries += [_refused(file, reason, unreadable=unreadable)] if reason else []
    if not entries:
        entries = [_refused(file, f"not an image: only {READ} is read") for file in others]
    entries = entries if modality is None else _agreed(entries, modality, {root for root in roots if root.is_file()})
    entries = [_settled(one, force_modality) for one in entries]
    return _unique(sorted(entries, key=lambda one: (one.paths[0].parent.parts, one.name)))


def open_images(
    path: str | Path, modality: Modality | str | None = None, *, force_modality: bool = False
) -> Iterator[Volume]:
    """Read the images under a path one after the other, so that one is in memory at a time.

    What cannot be read is left out, with the reason in the log (warnings of ``monai_sasm.io.formats``); see
    :func:`inventory` to have the reasons, and images in another order.

    Args:
        path: a file, or a folder that is searched recursively.
        modality: what NIfTI files are, for example ``"MR"``.
        force_modality: see :func:`inventory`.

    Yields:
        Volumes, sorted by folder and name.

    Raises:
        FileNotFoundError: nothing is there; at once.
        RefusedError: nothing could be read; the message gives the first reasons.
    """
    known = None if modality is None else Modality(modality)
    return _opened(inventory(Path(path), known, force_modality=force_modality))


def _opened(entries: Sequence[Entry]) -> Iterator[Volume]:
    reasons = []
    for entry in entries:
        try:
            volume = entry.load()
        except RefusedError as error:
            logger.warning("left out %s: %s", entry.label, error)
            reasons.append(f"{entry.label}: {error}")
            continue
        yield volume
        del volume  # before the next one is read
    if len(reasons) == len(entries):
        raise RefusedError("nothing to read: " + (_first(reasons) or "the folder is empty; check the path"))


def _first(reasons: Sequence[str]) -> str:
    """The first reasons of many; all of them are in the log."""
    rest = len(reasons) - REASONS
    return "; ".join(reasons[:REASONS]) + (f"; and {rest} more, which the log lists" if rest > 0 else "")


def save(
    volume: Volume,
    path: str | Path,
    derivation: Derivation | None = None,
    *,
    overwrite: bool = False,
    keep_private: bool = False,
) -> list[Path]:
    """Write an image to a file, or into a folder under the name of its source; see :func:`write`.

    Args:
        volume: finite values.
        path: a file name with the suffix of an image, or a folder, made where missing.
        derivation: what was done; by default that this package wrote it.
        overwrite: replace an existing target.
        keep_private: keep the private tags of DICOM sources.

    Returns:
        The files written, the image first.

    Raises:
        FileExistsError: something is there already and ``overwrite`` is off; nothing was written.
        TypeError: the image is no :class:`Volume`.
        ValueError: a value is NaN or infinite, or the suffix is that of another kind of image.
    """
    check_volume(volume)
    if derivation is None:
        from monai_sasm import __version__

        derivation = Derivation("monai_sasm", __version__, summary="image processing")
    target = target_for(volume, Path(path))
    return write(volume, target, derivation, overwrite=overwrite, keep_private=keep_private)


def write(
    volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool = False, keep_private: bool = False
) -> list[Path]:
    """Write an image in the format that a file name says, or else as the kind of file its source was.

    DICOM goes to a folder, volumes of other kinds to a file with a JSON sidecar, photos to a file of the same kind. A
    volume given a name of another kind (``.nii.gz``, ``.mha``, ``.nrrd``, ``.mgz``) is exported as float32. Files
    appear whole or not at all.

    Args:
        volume: finite values.
        path: target file, or folder for DICOM.
        derivation: what was done, for headers and sidecars.
        overwrite: replace an existing target.
        keep_private: keep the private tags of DICOM sources.

    Returns:
        The files written, the image first.

    Raises:
        FileExistsError: the target exists and ``overwrite`` is off.
        ValueError: the format of the target cannot hold the image, or the target is the source.
    """
    path = Path(path)
    _check_written(path)
    own = None if volume.source is None else _named(volume.source.format)
    chosen = _named_by(path) or own
    if chosen is None:
        raise ValueError(f"an image without source is written as .nii.gz or .png, got {path.name}; add a suffix")
    return chosen.write(volume, path, derivation, overwrite=overwrite, keep_private=keep_private)


def output_path(entry: Entry, input_root: Path, output: Path, *, alone: bool | None = None) -> Path:
    """Where the result of an entry goes.

    One image and an ``output`` with a file suffix: ``output`` itself. Otherwise the folder structure below
    ``input_root`` is repeated below ``output``: files keep their name (with the suffix of their true kind), a DICOM
    series becomes a folder named after the entry.

    Args:
        entry: what is restored.
        input_root: the file or folder that it was found in.
        output: file or folder.
        alone: whether it is the only image there is; by default, whether ``input_root`` is a file.

    Raises:
        ValueError: the result would lie on its source, a link stands on the way to it, or ``output`` is the name of
            a file that cannot hold it.
    """
    input_root, output = Path(input_root), Path(output)
    single = not input_root.is_dir()
    if not output.is_dir():
        _check_written(output)
    named = None if output.is_dir() else _named_by(output)
    if named is not None and not (single if alone is None else alone):
        held = "is a folder" if alone is None else "holds several images"
        raise ValueError(f"{output.name} is the name of one file, and the input {held}; name a folder")
    if named is not None:
        named.check_target(entry, output)
        target = output
    else:
        target = output / result_place(entry, input_root)
    taken = {os.path.realpath(place) for file in entry.paths for place in (file, file.parent)}
    if os.path.realpath(target) in taken:
        raise ValueError(f"a result is never written onto its source, got {target.name}; choose another output folder")
    return inside(output, target.relative_to(output).as_posix()) if target != output else target


def result_place(entry: Entry, input_root: Path) -> Path:
    """Where the result of an entry goes below an output folder, see :func:`output_path`."""
    folder = Path(os.path.commonpath([file.parent for file in entry.paths]))
    own = None if entry.refusal is not None else _named(entry.format)  # what is refused may be a link or a folder
    name = entry.paths[0].name if own is None else own.result_name(entry)
    return folder.relative_to(input_root) / name if input_root.is_dir() else Path(name)


def target_for(volume: Volume, path: Path) -> Path:
    """Where the result of a volume goes: ``path`` itself if it names an image file, else a file or folder in it.

    Files keep the name of their source, with the suffix of their true kind; a DICOM series becomes a folder.
    """
    if _named_by(path) is not None and not path.is_dir():
        return path
    if volume.source is not None:
        return path / volume.source.result_name(volume.name)
    return path / (volume.name + (".png" if volume.modality.profile.is_picture else ".nii.gz"))


def _settled(entry: Entry, force: bool) -> Entry:
    """The entry with its doubts decided: refused, or overruled; the values themselves are looked at when it is read."""
    named = None if entry.format in ("dicom", "raster") else meaning(entry.paths[0])
    if named and entry.refusal is None:
        entry = replace(entry, refusal=refusal(named, "name or folder", entry.modality), forced=entry.load)
    if entry.refusal is not None and (entry.forced is None or not force):
        reason = entry.refusal if entry.forced is None else f"{entry.refusal}; {OVERRULE}"
        return replace(entry, refusal=reason, load=partial(refuse, reason, unreadable=entry.unreadable), forced=None)
    notes = () if entry.refusal is None else (f"read all the same: {entry.refusal}",)
    load = partial(_checked, entry.forced or entry.load, force, notes)
    return replace(entry, refusal=None, load=load, forced=None, notes=(*entry.notes, *notes))


def _checked(load: Callable[[], Volume], force: bool, notes: tuple[str, ...]) -> Volume:
    if (doubt := doubt_about(volume := load())) and not force:
        raise NotAnImageError(f"{doubt}; {OVERRULE}")
    notes += (f"read all the same: {doubt}",) if doubt and not notes else ()
    return replace(volume, notes=(*volume.notes, *notes)) if notes else volume


def _claim(file: Path) -> FileFormat | str | None:
    """The format of a file by its first bytes, or why it is none; ``None`` for what is no image."""
    try:
        with open_plain(file) as stream:
            head = stream.read(HEAD)
    except (OSError, EOFError, zlib.error) as error:
        if file.name.lower().endswith(_suffixes()):
            return f"the file cannot be read ({type(error).__name__}): copy it again"
        return FORMATS[0]
    for one in FORMATS:
        if one.sniff(head):
            return one
    return None


def _agreed(entries: list[Entry], modality: Modality, named: set[Path]) -> list[Entry]:
    """The entries, refused where they contradict a modality that can have been meant for nothing else."""
    useful = any(entry.modality == modality for entry in entries)
    return [
        entry
        if entry.refusal is not None or entry.modality in (None, modality) or (useful and named.isdisjoint(entry.paths))
        else _contradicting(entry, modality)
        for entry in entries
    ]


def _contradicting(entry: Entry, modality: Modality) -> Entry:
    if entry.modality is not None and entry.modality.profile.is_picture:
        reason = f"a photo file holds no {modality} units: give DICOM or NIfTI, or leave modality='{modality}' out"
    else:
        reason = f"the file says that it is {entry.modality}, not {modality}: leave modality='{modality}' out"
    return replace(entry, refusal=reason, load=partial(refuse, reason))


def _check_written(path: Path) -> None:
    """Refuse a name of a kind of image that is not written."""
    ends = (*(end for one in FORMATS for end in one.read_only), *foreign.SUFFIXES)
    if path.name.lower().endswith(ends):
        raise ValueError(f"images are not written as {path.suffix}, got {path.name}; choose another suffix")


def companions(target: Path) -> tuple[Path, ...]:
    """Files that are written beside a result of this name, such as a sidecar."""
    named = _named_by(target)
    return () if named is None else named.companions(target)


def is_file_name(target: Path) -> bool:
    """Whether a name promises a file with an image; the others are folders of DICOM series."""
    return _named_by(target) is not None


def _named(name: str) -> FileFormat | None:
    return next((one for one in FORMATS if one.name == name), None)


def _named_by(path: Path) -> FileFormat | None:
    """The format that a file name promises."""
    return next((one for one in FORMATS if path.name.lower().endswith(one.suffixes)), None)


def _suffixes(folders: bool = False) -> tuple[str, ...]:
    """Ends of file names that promise an image; on request also those of formats whose images are folders."""
    named = [one for one in FORMATS if folders or not one.is_folder]
    return tuple(end for one in named for end in (*one.suffixes, *one.read_only))


def _refused(file: Path, reason: str, unreadable: bool = False) -> Entry:
    named = _named_by(file)
    return refused(file, reason, "raster" if named is None else named.name, unreadable=unreadable)


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
