"""IXI: 600 healthy brains from three hospitals, one folder per MR sequence, as the archives unpack.

``IXI-T1/IXI002-Guys-0828-T1.nii.gz``, and ``-T2``, ``-PD``, ``-MRA``; ``-DTI-00`` to ``-DTI-15``. The number is the
subject's in all folders; not every subject has every sequence (brain-development.org/ixi-dataset, CC BY-SA 3.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_sasm.datasets.naming import existing

MODALITIES = ("T1", "T2", "PD", "MRA")
SITES = ("Guys", "HH", "IOP")

_FILE = re.compile(r"(IXI(\d{3})-(Guys|HH|IOP)-(\d{4}))-(T1|T2|PD|MRA|DTI-\d{2})\.nii(?:\.gz)?")


@dataclass(frozen=True)
class IxiSubject:
    """One subject.

    Args:
        name: ``IXI002-Guys-0828``.
        number: 2.
        site: ``Guys`` (Philips 1.5 T), ``HH`` (Philips 3 T) or ``IOP`` (GE 1.5 T).
        modalities: ``T1``, ``T2``, ``PD``, ``MRA``, ``DTI-00``, ... (those that are there) -> NIfTI file.
    """

    name: str
    number: int
    site: str
    modalities: Mapping[str, Path]


def subjects(root: str | Path, require: Sequence[str] = ()) -> list[IxiSubject]:
    """All subjects below a folder that have the modalities required, by number.

    Args:
        root: folder of one sequence, or of several such folders.
        require: modalities a subject must have; those that lack one are left out, as half of a study is no study.

    Raises:
        FileNotFoundError: no such folder, or no subject has them all.
        ValueError: one image is there twice.
    """
    folder = existing(root)
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("IXI*")):
        match = _FILE.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        own = files.setdefault(match[1], {})
        if match[5] in own:
            raise ValueError(f"{path.name} is there twice, in {own[match[5]].parent} and {path.parent}; keep one")
        own[match[5]] = path
    found = [
        IxiSubject(name, int(name[3:6]), name.split("-")[1], own)
        for name, own in sorted(files.items())
        if set(require) <= set(own)
    ]
    if not found:
        wanted = f" with {', '.join(require)}" if require else ""
        raise FileNotFoundError(
            f"no IXI subject{wanted} in {folder}; expected files like IXI-T1/IXI002-Guys-0828-T1.nii.gz"
        )
    return found


def files(
    root: str | Path, modality: str = "T2", sites: Sequence[str] = SITES, first: int = 0, last: int | None = None
) -> list[str]:
    """Files of one modality, by number.

    Args:
        root: see :func:`subjects`.
        modality: ``T1``, ``T2``, ``PD`` or ``MRA``.
        sites: hospitals to take; one left out makes a test set of another scanner.
        first: smallest number to take.
        last: largest; all from ``first`` on when ``None``.

    Raises:
        FileNotFoundError: none is left.
        ValueError: unknown modality or hospital.
    """
    if modality not in MODALITIES or not set(sites) <= set(SITES):
        raise ValueError(
            f"modality is one of {MODALITIES} and sites are of {SITES}, got {modality!r} and {tuple(sites)}"
        )
    chosen = [
        str(subject.modalities[modality])
        for subject in subjects(root, [modality])
        if subject.site in sites and first <= subject.number <= (subject.number if last is None else last)
    ]
    if not chosen:
        raise FileNotFoundError(
            f"no IXI {modality} of {', '.join(sites)} from {first} to {last or 'the last'} in {root}"
        )
    return chosen
