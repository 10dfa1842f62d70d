"""Names of results that are written into one folder: each file has one owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import companions, is_file_name
from monai_sasm.io.nifti.names import stem

_FIRST = 2  # number of the second of a name


def distinct(targets: Sequence[Path], entries: Sequence[Entry], *, maps: bool = False) -> list[Path]:
    """The targets, those that would share a name, a sidecar or maps told apart by the suffixes of their sources.

    The first source whose result keeps its suffix has the name; each other result is named after its own source,
    whatever else is there: ``pic.gif`` and ``pic.jp2`` give ``pic.gif.png`` and ``pic.jp2.png``, and ``ct.mha`` beside
    ``ct.nrrd``, whose sidecar it would share, ``ct-mha.mha``. Only where such a name is taken, or sources have the same
    name, there is a number: ``ct-2.mha``.

    Args:
        targets: from :func:`monai_sasm.io.formats.output_path`, in an order that is the same every time.
        entries: what each of them is the result of.
        maps: whether maps are written beside them, which are named after the result without its suffix.
    """
    claims = Counter(file for target in targets for file in _files(target, maps))
    keeps = [_keeps_suffix(entry, target) for entry, target in zip(entries, targets, strict=True)]
    taken: set[Path] = set()
    numbers: dict[Path, int] = {}  # where to go on, so that 100 000 of one name take no time
    named = list(targets)
    for index in sorted(range(len(targets)), key=lambda index: not keeps[index]):
        target = targets[index]
        own = _files(target, maps)
        if own & taken or (not keeps[index] and any(claims[file] > 1 for file in own)):
            wanted = place = _after(entries[index], target, alike=target in taken)
            own = _files(place, maps)
            while any(file in taken or file in claims for file in own):
                number = numbers.get(wanted, _FIRST)
                numbers[wanted] = number + 1
                place = wanted.with_name(f"{_begin(wanted)}-{number}{_end(wanted)}")
                own = _files(place, maps)
            named[index] = place
        taken |= own
    return named


def _keeps_suffix(entry: Entry, target: Path) -> bool:
    """Whether a result has the suffix of its source; a DICOM series is named after its UIDs."""
    return entry.format == "dicom" or _source_end(entry).lower() == _end(target).lower()


def _after(entry: Entry, target: Path, *, alike: bool) -> Path:
    """The target with the suffix of its source in its name; itself where that tells nothing apart.

    ``alike``: another source of this very name has it.
    """
    end = _source_end(entry)
    if not _keeps_suffix(entry, target):
        return target.with_name(f"{_begin(target)}{end}{_end(target)}")
    if alike or entry.format == "dicom":
        return target
    return target.with_name(f"{_begin(target)}-{end.replace('.', '')}{end}")


def _source_end(entry: Entry) -> str:
    name = entry.paths[0].name
    return name[len(stem(entry.paths[0])) :]


def _begin(target: Path) -> str:
    return stem(target) if is_file_name(target) else target.name


def _end(target: Path) -> str:
    return target.name[len(_begin(target)) :]


def _files(target: Path, maps: bool) -> set[Path]:
    """What is written for a result, and, as one name, its maps: which ones is known when it is restored."""
    return {target, *companions(target), *([target.with_name(f"{_begin(target)}_maps")] if maps else [])}
