"""What becomes of each image of an input, seen before a network runs: its place in the output, or why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.dicom.geometry import UNEVEN
from monai_sasm.io.distinct import distinct
from monai_sasm.io.entry import RESTORED, Entry
from monai_sasm.io.formats import is_file_name, output_path
from monai_sasm.io.nofollow import inside
from monai_sasm.types import Modality


@dataclass(frozen=True)
class Planned:
    """One image of the input.

    Args:
        entry: as found by :func:`monai_sasm.io.formats.inventory`.
        target: place of the result; where it gets none, the place it would have had, or ``None``.
        refusal: why the image is passed over or cannot be read; quotes no name.
        error: what is in the way of the result; its text may quote paths.
    """

    entry: Entry
    target: Path | None = None
    refusal: str | None = None
    error: Exception | None = None

    @property
    def reason(self) -> Exception | None:
        """Why it gets no result, as an error; ``None`` where it gets one."""
        if self.refusal is None:
            return self.error
        return (UnreadableError if self.entry.unreadable else RefusedError)(self.refusal)


def visible(entries: Iterable[Entry], roots: Sequence[Path], output: Path, hidden: Iterable[Path] = ()) -> list[Entry]:
    """Those of the entries that are input: an output below one of the roots is none, nor are the ``hidden`` folders."""
    place = output.absolute()
    below = any(place != root.absolute() and place.is_relative_to(root.absolute()) for root in roots)
    folders = [folder.absolute() for folder in (*hidden, *([output] if below else []))]
    return [
        entry for entry in entries if not any(entry.paths[0].absolute().is_relative_to(folder) for folder in folders)
    ]


def one_image(entries: Sequence[Entry], output: Path, *, again: bool = False) -> bool:
    """Whether one image, and no more, may get a result.

    Raises:
        ValueError: ``output`` is the name of one file, and there are several.
    """
    usable = sum(entry.refusal is None and (again or not entry.is_result) for entry in entries)
    if usable > 1 and is_file_name(output) and not output.is_dir():
        raise ValueError(f"{output.name} is the name of one file, and there are {usable} images; name a folder")
    return usable == 1


def plan_results(
    entries: Sequence[Entry],
    output: Path,
    *,
    alone: bool,
    root_of: Callable[[Entry], Path],
    mismatch: Callable[[Modality | None], str | None],
    again: bool = False,
    rename: Callable[[Entry, Path], Path] | None = None,
    maps: bool = False,
    check: Callable[[Entry, Path], None] | None = None,
) -> list[Planned]:
    """Give each image a place of its own, or the first reason why it gets none; nothing is written.

    Args:
        entries: see :func:`visible`.
        output: folder, or the name of one file.
        alone: see :func:`one_image`.
        root_of: the file or folder in which an entry was found.
        mismatch: why images of a modality are passed over; ``None`` where they are not.
        again: take results of this program, too.
        rename: the place of a result, from that of :func:`monai_sasm.io.formats.output_path`; may raise ``ValueError``.
        maps: whether maps are written beside the results.
        check: raises ``ValueError`` or ``OSError`` where something is in the way of a result; ``None`` where that is
            for later.
    """

    def wanted(entry: Entry) -> Planned:
        refusal = entry.refusal or (RESTORED if entry.is_result and not again else None)
        if refusal is not None:
            return Planned(entry, refusal=refusal)
        target = None
        try:
            place = output_path(entry, root_of(entry), output, alone=alone)
            target = place if rename is None else rename(entry, place)
            if entry.format == "dicom" and entry.geometry in UNEVEN and is_file_name(target):
                raise RefusedError(f"{entry.geometry} slices have no affine, which NIfTI needs; write DICOM")
        except (ValueError, OSError) as error:
            return Planned(entry, target, error=error)
        return Planned(entry, target, refusal=mismatch(entry.modality))

    planned = [wanted(entry) for entry in entries]
    going = {number: one.target for number, one in enumerate(planned) if one.reason is None and one.target is not None}
    places = distinct(list(going.values()), [entries[number] for number in going], maps=maps)
    for (number, target), place in zip(going.items(), places, strict=True):
        try:
            if place != target:
                inside(place.parent, place.name)
                planned[number] = replace(planned[number], target=place)
            if check is not None:
                check(entries[number], place)
        except (ValueError, OSError) as error:
            planned[number] = replace(planned[number], error=error)
    return planned
