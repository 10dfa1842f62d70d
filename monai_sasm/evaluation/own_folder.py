"""Images in a user's own folder: pairs of a clean and a degraded image, or clean images only.

Pairs lie in two folders of ``DIR``, named as one of :data:`PAIRS`, and are matched by their place below them: files by
name, whatever their suffix, with or without a last word such as ``_clean``; a DICOM series by its folder. Without such
folders, everything in ``DIR`` (or in ``DIR/clean`` alone) is clean. A folder of such folders, as a training takes it,
is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.data import DataAbsentError
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory
from monai_sasm.io.nifti.names import stem
from monai_sasm.io.same_grid import check_same_grid
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

PAIRS = (("clean", "noisy"), ("full", "quarter"), ("gt", "data"))
_LAST_WORD = re.compile(r"[_-](clean|noisy|rain|full|quarter|gt|low)$", re.IGNORECASE)


@dataclass(frozen=True)
class OwnImage:
    """One image, or one pair.

    Args:
        name: a hash for DICOM series; for others the name of the file, which may be a patient's.
        clean: the reference.
        degraded: its partner; ``None`` where it has to be simulated.
    """

    name: str
    clean: Entry
    degraded: Entry | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (*self.clean.paths, *(self.degraded.paths if self.degraded else ()))

    def load(self) -> tuple[Volume, Volume | None]:
        """Clean and degraded image.

        Raises:
            RefusedError: one cannot be read rightly, or the two do not lie on one grid.
        """
        clean = self.clean.load()
        degraded = self.degraded.load() if self.degraded else None
        if degraded is not None:
            check_same_grid(clean, degraded)
        return clean, degraded


def own_images(folder: Path, modality: Modality) -> tuple[list[OwnImage], dict[str, str]]:
    """What there is in a folder, and for what is passed over the reason, by name.

    Args:
        folder: see above.
        modality: what the experts are for; NIfTI files are taken for it.

    Raises:
        DataAbsentError: there is no such folder, or nothing that can be measured.
        RefusedError: it holds pairs in subfolders, whose degraded images would count as clean.
    """
    if not folder.is_dir():
        raise DataAbsentError(f"{folder} is not a folder")
    kinds = next((kinds for kinds in PAIRS if all((folder / kind).is_dir() for kind in kinds)), None)
    if kinds is None:
        folder = folder / "clean" if (folder / "clean").is_dir() else folder
        _refuse_pairs_below(folder)
        entries, passed_over = _usable(folder, modality)
        found = [OwnImage(entry.name, entry, None) for entry in entries]
    else:
        clean, passed_over = _keyed(folder / kinds[0], modality)
        degraded, reasons = _keyed(folder / kinds[1], modality)
        passed_over |= reasons
        found = [OwnImage(entry.name, entry, degraded[key]) for key, entry in clean.items() if key in degraded]
        alone = {entry.name for key, entry in (clean | degraded).items() if (key in clean) != (key in degraded)}
        passed_over |= dict.fromkeys(alone, f"without a partner of the same name in {' and '.join(kinds)}")
    if not found:
        reasons_found = "; ".join(f"{name}: {reason}" for name, reason in sorted(passed_over.items())[:5])
        raise DataAbsentError(f"nothing to measure in {folder}: {reasons_found or 'no image'}")
    return found, passed_over


def _refuse_pairs_below(folder: Path) -> None:
    walked = os.walk(folder)
    paired = sorted(Path(place) for place, below, _ in walked if any({*kinds} <= {*below} for kinds in PAIRS))
    if paired:
        named = " or ".join(str(place) for place in paired[:5])
        raise RefusedError(f"{folder} holds pairs in subfolders, not images of its own; name {named}")


def _usable(folder: Path, modality: Modality) -> tuple[list[Entry], dict[str, str]]:
    entries, passed_over = [], {}
    for entry in inventory(folder, modality):
        if entry.refusal is not None:
            passed_over[entry.name] = entry.refusal
        elif entry.modality is not modality:
            kind = entry.modality.value if entry.modality else "of unknown kind"
            passed_over[entry.name] = f"the experts are for {modality.value}, this image is {kind}"
        else:
            entries.append(entry)
    return entries, passed_over


def _keyed(folder: Path, modality: Modality) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries by what they have in common with their partners."""
    entries, passed_over = _usable(folder, modality)
    found: dict[str, Entry] = {}
    for entry in entries:
        key = _key(entry, folder)
        if key in found:
            passed_over[entry.name] = "another image has the same place; one series per folder, one file per name"
        else:
            found[key] = entry
    return found, passed_over


def _key(entry: Entry, folder: Path) -> str:
    first = entry.paths[0].relative_to(folder)
    if len(entry.paths) > 1:
        return first.parent.as_posix()
    name = stem(first) if entry.format == "nifti" else first.stem
    return (first.parent / _LAST_WORD.sub("", name)).as_posix()


def reasons_in_words(passed_over: Mapping[str, str], shown: int = 5) -> tuple[str, ...]:
    """A flag that says what was passed over, where anything was."""
    if not passed_over:
        return ()
    listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(passed_over.items())[:shown])
    more = f"; and {len(passed_over) - shown} more" if len(passed_over) > shown else ""
    return (f"passed over: {listed}{more}",)
