"""Names of results that are written into one folder: each file has one owner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_sasm.io.formats import companions, is_file_name
from monai_sasm.io.nifti.names import stem

_FIRST = 2  # number of the second of a name


def distinct(targets: Sequence[Path], *, maps: bool = False) -> list[Path]:
    """The targets, some of them with a number: ``ct.nrrd`` and ``ct.mha``, which share a sidecar, give ``ct-2.mha``.

    The first of those that would share a name keeps it, and so does whatever shares none; a number is one that gives
    no name which another target has.

    Args:
        targets: from :func:`monai_sasm.io.formats.output_path`, in an order that is the same every time.
        maps: whether maps are written beside them, which are named after the result without its suffix.
    """
    wanted = {file for target in targets for file in _files(target, maps)}
    taken: set[Path] = set()
    numbers: dict[Path, int] = {}  # where to go on, so that 100 000 of one name take no time
    named = []
    for target in targets:
        place, own = target, _files(target, maps)
        while own & (taken if place == target else taken | wanted):
            number = numbers.get(target, _FIRST)
            numbers[target] = number + 1
            place = target.with_name(_numbered(target, number))
            own = _files(place, maps)
        taken |= own
        named.append(place)
    return named


def _numbered(target: Path, number: int) -> str:
    begin = _begin(target)
    return f"{begin}-{number}{target.name[len(begin) :]}"


def _begin(target: Path) -> str:
    return stem(target) if is_file_name(target) else target.name


def _files(target: Path, maps: bool) -> set[Path]:
    """What is written for a result, and, as one name, its maps: which ones is known when it is restored."""
    return {target, *companions(target), *([target.with_name(f"{_begin(target)}_maps")] if maps else [])}
