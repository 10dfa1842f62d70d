"""BraTS: one folder per subject with its MR modalities and the tumour's labels, in the naming of each year.

======== ============================================ ================================== ==========
year     folder                                       files                              labels
======== ============================================ ================================== ==========
2017-19  ``[HGG|LGG/]Brats18_2013_2_1``               ``<folder>_{t1,t1ce,t2,flair,seg}`` 1 2 4
2020     ``BraTS20_Training_001``                     the same                           1 2 4
2021     ``BraTS2021_00000``                          the same                           1 2 4
2023     ``BraTS-GLI-00000-000``                      ``<folder>-{t1n,t1c,t2w,t2f,seg}``  1 2 3
2015     ``brats_2013_pat0001_1`` (DeepMedic's copy)  ``T1c_subtrMeanDivStd``, ...,       1 2 3 4
                                                      ``OTMultiClass``, ``brainmask``
======== ============================================ ================================== ==========

Labels of 2018: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour (Menze et al. 2015; Bakas et al. 2018).
2015 kept necrosis (1) and non-enhancing core (3) apart; 2023 calls the enhancing tumour 3. :func:`unified` gives those
of 2018, which MONAI's ``ConvertToMultiChannelBasedOnBratsClassesd`` expects.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from monai_sasm.datasets.naming import existing, natural, selected
from monai_sasm.io.nifti.names import SUFFIXES

MODALITIES = ("t1", "t1ce", "t2", "flair")
LABELS = (0, 1, 2, 4)

_FILE = re.compile(r"(.+)[_-](t1ce|t1c|t1n|t1|t2w|t2f|t2|flair|segm?)", re.IGNORECASE)
_DEEPMEDIC = re.compile(r"(t1c|t1|t2|flair)_subtrmeandivstd|(otmulticlass)|(brainmask)", re.IGNORECASE)
_KINDS = {"t1c": "t1ce", "t1n": "t1", "t2w": "t2", "t2f": "flair", "segm": "seg", "otmulticlass": "seg"}
_YEAR = re.compile(r"brats(?:20)?(\d\d)_", re.IGNORECASE)
_RENAMED = {2015: {3: 1}, 2023: {3: 4}}  # label of the year -> label of 2018


@dataclass(frozen=True)
class BratsSubject:
    """One subject.

    Args:
        name: of its folder.
        modalities: ``t1``, ``t1ce``, ``t2``, ``flair`` (those that are there, in this order) -> NIfTI file.
        label: the tumour's labels as the year numbers them, see :func:`unified`; ``None`` where there are none.
        year: whose naming the folder has; 2015 is DeepMedic's z-scored copy, ``None`` for a name without a year.
        brain: mask of the brain, only in DeepMedic's copy, whose background is not 0; threshold it at 0.5.
    """

    name: str
    modalities: Mapping[str, Path]
    label: Path | None
    year: int | None
    brain: Path | None = None

    @property
    def id(self) -> str:
        """16 hexadecimal digits that follow from the name."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]


def subjects(root: str | Path, require: Sequence[str] = ()) -> list[BratsSubject]:
    """All subjects in a folder and its subfolders (``HGG``, ``LGG``, years), in natural order of their names.

    Args:
        root: folder of subjects, or of one subject.
        require: modalities that every subject must have; with ``"seg"`` among them, also labels.

    Raises:
        FileNotFoundError: no such folder, no subject in it, or one lacks what is required.
        ValueError: a folder holds two files of one kind, two folders have one name, or ``require`` names what BraTS
            has not.
    """
    unknown = set(require) - {*MODALITIES, "seg"}
    if unknown:
        raise ValueError(f"BraTS has {', '.join(MODALITIES)} and seg, got {', '.join(sorted(unknown))}")
    folder = existing(root)
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    found = [subject for path in folders if (subject := _subject(path)) is not None]
    if not found:
        raise FileNotFoundError(
            f"no BraTS subject in {folder}; expected folders like BraTS2021_00000 with BraTS2021_00000_flair.nii.gz, "
            "or brats_2013_pat0001_1 with Flair_subtrMeanDivStd.nii.gz"
        )
    found.sort(key=lambda subject: natural(subject.name))
    for before, after in pairwise(found):
        if before.name == after.name:
            raise ValueError(f"two folders are named {after.name} in {folder}; one subject, one folder")
    for subject in found:
        _check_has(subject, require)
    return found


def datalist(
    root: str | Path,
    modalities: Sequence[str] = MODALITIES,
    labelled: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Subjects as a MONAI data list: ``image`` (files in the order of ``modalities``), ``label``, ``name``, ``year``.

    Args:
        root: folder of subjects.
        modalities: channels of the image.
        labelled: every subject must have labels; otherwise ``label`` is left out.
        include: names of the subjects to take; all when empty.
        exclude: names to leave out, for example a test set's.

    Raises:
        FileNotFoundError, ValueError: as for :func:`subjects`; or a name is not there.
    """
    found = {subject.name: subject for subject in subjects(root)}
    chosen = [found[name] for name in selected(list(found), include, exclude)]
    listed = []
    for subject in chosen:
        _check_has(subject, [*modalities, *(["seg"] if labelled else [])])
        item: dict[str, Any] = {"image": [str(subject.modalities[kind]) for kind in modalities]}
        if labelled:
            item["label"] = str(subject.label)
        listed.append(item | {"name": subject.name, "year": subject.year})
    return listed


def held_out(root: str | Path, names: Sequence[str] = (), exclude: Sequence[str] = (), every: int = 5) -> list[str]:
    """Subjects to validate on: ``names``, or without any the first and every ``every``-th after it.

    Args:
        root: folder of subjects.
        names: of their folders.
        exclude: names of those that are neither trained nor validated on.
        every: as large a part of the rest is held out.

    Raises:
        FileNotFoundError: as for :func:`datalist`; or nothing is left to train on.
    """
    rest = selected([subject.name for subject in subjects(root)], exclude=exclude)
    chosen = list(names) or rest[::every]
    if not set(rest) - set(chosen):
        raise FileNotFoundError(f"{root} must hold a subject to train on beside those to validate on, {chosen}")
    return chosen


def files(
    root: str | Path, modality: str = "t2", include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[str]:
    """Files of one modality, in the order of their subjects; arguments and errors as for :func:`datalist`."""
    return [item["image"][0] for item in datalist(root, [modality], False, include, exclude)]


def read_labels(subject: BratsSubject) -> NDArray[np.uint8]:
    """Labels ``(I, J, K)`` in the numbering of 2018: 0, 1, 2, 4.

    Raises:
        FileNotFoundError: the subject has none.
    """
    import nibabel

    if subject.label is None:
        raise FileNotFoundError(f"{subject.name} has no labels")
    return unified(np.asarray(nibabel.load(subject.label).dataobj), subject.year)  # type: ignore[attr-defined]


def unified(label: NDArray[Any], year: int | None) -> NDArray[np.uint8]:
    """Labels of any year in the numbering of 2018.

    Args:
        label: whole numbers, any shape.
        year: whose numbering they have; ``None`` for that of 2018.

    Raises:
        ValueError: a label that the year does not have.
    """
    whole = np.rint(label).astype(np.uint8)  # resaved label maps hold 0.9999
    renamed = _RENAMED.get(year or 0, {})
    result = whole.copy()
    for old, new in renamed.items():
        result[whole == old] = new
    known = (set(LABELS) | set(renamed)) - ({4} if year == 2023 else set())
    strange = sorted(set(np.unique(whole).tolist()) - known)
    if strange:
        raise ValueError(f"BraTS {year or 2018} has the labels {sorted(known)}, got {strange}; is the year right?")
    return result


class UnifyBratsLabelsd(MapTransform):
    """Labels of the year that ``data["year"]`` says -> those of 2018; see :func:`unified`.

    Args:
        keys: keys with label maps.
        year: key of the year, as :func:`datalist` gives it.
    """

    def __init__(self, keys: KeysCollection, year: str = "year", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.year = year

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Renumber each label map; type and metadata stay."""
        result = dict(data)
        for key in self.key_iterator(result):
            label = result[key]
            numbers = unified(np.asarray(label), result[self.year])
            if isinstance(label, np.ndarray):
                result[key] = numbers.astype(label.dtype)
            else:
                renumbered = label.clone()
                renumbered[:] = renumbered.new_tensor(numbers)
                result[key] = renumbered
        return result


def _subject(folder: Path) -> BratsSubject | None:
    """The subject whose files lie in ``folder``; ``None`` where there are no such files."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        kind = _kind(path) if path.is_file() else None
        if kind is None:
            continue
        if kind in files:
            raise ValueError(f"{folder.name} holds two files of {kind}, {files[kind].name} and {path.name}; keep one")
        files[kind] = path
    present = {kind: files[kind] for kind in MODALITIES if kind in files}
    if not present:
        return None
    return BratsSubject(folder.name, present, files.get("seg"), _year(folder, present), files.get("brainmask"))


def _kind(path: Path) -> str | None:
    """``t1``, ``t1ce``, ``t2``, ``flair``, ``seg`` or ``brainmask``; ``None`` for any other file."""
    stem = next((path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    if stem is None:
        return None
    if match := _DEEPMEDIC.fullmatch(stem):
        kind = next(group for group in match.groups() if group).lower()
    elif match := _FILE.fullmatch(stem):
        kind = match[2].lower()
        # Images are named as their folder; the labels of subject 355 of 2020 are not: W39_1998.09.19_Segm.nii.
        if match[1] != path.parent.name and not kind.startswith("seg"):
            return None
    else:
        return None
    return _KINDS.get(kind, kind)


def _year(folder: Path, files: Mapping[str, Path]) -> int | None:
    if any(_DEEPMEDIC.match(path.name) for path in files.values()):
        return 2015
    if folder.name.lower().startswith("brats-"):
        return 2023
    match = _YEAR.match(folder.name)
    return 2000 + int(match[1]) if match else None


def _check_has(subject: BratsSubject, kinds: Sequence[str]) -> None:
    present = [*subject.modalities, *(["seg"] if subject.label else [])]
    missing = [kind for kind in kinds if kind not in present]
    if missing:
        raise FileNotFoundError(f"{subject.name} has no {', '.join(missing)}; it has {', '.join(present)}")
