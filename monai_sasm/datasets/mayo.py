"""Mayo's low-dose CT as it is unpacked: pairs of a full-dose and a low-dose slice, found by position.

Two publications of the same scans (Moen et al. 2021, "Low-dose CT image and projection dataset", Med. Phys. 48(2)):

- AAPM Low Dose CT Grand Challenge 2016: ``L096/full_3mm/*.IMA`` and ``L096/quarter_3mm/*.IMA``, also in folders per
  thickness and kernel (``3mm D45/full_3mm_sharp/L096``);
- TCIA LDCT-and-Projection-data: ``L096/<date>/1.000000-Full Dose Images-12345/1-001.dcm`` and ``... Low Dose Images``.

File names and UIDs do not tell which slices belong together (names carry the dose and the time of export, anonymised
copies share one UID), positions do: two slices are a pair when patient, kernel, thickness and Image Position agree.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.datasets.naming import existing, natural, selected
from monai_sasm.functional.intensity import HU_PER_UNIT
from monai_sasm.io.dicom.header import Header, is_dicom, read_header
from monai_sasm.io.dicom.pixels import read_stored, rescaled

TOLERANCE = 0.05  # mm by which two positions may differ and still be one

_FULL, _LOW = (
    re.compile(r"\bfull(?![a-z])|\bfd(?![a-z])"),
    re.compile(r"\bquarter(?![a-z])|\blow(?![a-z])|\bqd(?![a-z])"),
)
_PATIENT = re.compile(r"[LCN]\d{3}", re.IGNORECASE)
_Key = tuple[str, str, float]  # patient, kernel, thickness

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MayoPair:
    """One slice at both doses.

    Args:
        patient: for example ``L096``; the name of the folder that holds both doses where no such part is in the path.
        kernel: reconstruction kernel (B30f, D45f, ...); empty where the header does not say.
        position: Image Position (Patient), mm.
        full: file at full dose.
        low: file at low dose, a quarter or, for chests, a tenth.
    """

    patient: str
    kernel: str
    position: tuple[float, float, float]
    full: Path
    low: Path


def pairs(
    root: str | Path, include: Sequence[str] = (), exclude: Sequence[str] = (), kernel: str = ""
) -> list[MayoPair]:
    """All pairs below a folder, sorted by patient, kernel and position.

    Slices without a partner are counted in a log warning. Projections are passed over.

    Args:
        root: folder with any number of patients.
        include: patients to take; all when empty.
        exclude: patients to leave out, for example a test set's.
        kernel: only slices whose kernel begins so.

    Raises:
        FileNotFoundError: no such folder, no pair in it, or a patient that is not there.
        ValueError: two slices of one dose lie at one position.
    """
    folder = existing(root)
    full, low = _slices(folder, folder, _FULL, _LOW), _slices(folder, folder, _LOW, _FULL)
    found: list[MayoPair] = []
    alone = 0
    for key in sorted(set(full) | set(low), key=lambda key: (natural(key[0]), key[1:])):
        matched = _matched(full.get(key, []), low.get(key, []))
        alone += len(full.get(key, [])) + len(low.get(key, [])) - 2 * len(matched)
        found += [MayoPair(key[0], key[1], _position(one), one.path, other.path) for one, other in matched]
    if not found:
        raise FileNotFoundError(
            f"no slice at two doses in {folder} ({alone} at one dose); expected folders of DICOM files named full... "
            "and quarter..., or Full Dose Images and Low Dose Images"
        )
    if alone:
        log.warning("%d slices in %s have no partner at their position and are left out", alone, folder)
    patients = selected(list(dict.fromkeys(pair.patient for pair in found)), include, exclude)
    kept = [pair for pair in found if pair.patient in patients and pair.kernel.startswith(kernel)]
    if not kept:
        known = sorted({pair.kernel for pair in found})
        raise FileNotFoundError(f"no pair with a kernel {kernel!r}; there are {', '.join(known)}")
    return kept


def training_pairs(
    root: str | Path,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    kernel: str = "",
    limit: int | None = None,
) -> list[tuple[NDArray[np.float32], ...]]:
    """Pairs ``(full, low)`` of slices ``(1, H, W)`` in HU / 1000, as ``monai_sasm.datasets.images.paired`` gives them.

    Args:
        root, include, exclude, kernel: see :func:`pairs`.
        limit: so many pairs, spread evenly over all.
    """
    found = pairs(root, include, exclude, kernel)
    if limit is not None and limit < len(found):
        found = [found[index] for index in np.linspace(0, len(found) - 1, limit).round().astype(int)]
    return [(hounsfield(pair.full) / HU_PER_UNIT, hounsfield(pair.low) / HU_PER_UNIT) for pair in found]


def hounsfield(path: Path) -> NDArray[np.float32]:
    """One DICOM slice ``(1, H, W)`` in HU."""
    header = read_header(path)
    if header is None:
        raise FileNotFoundError(f"{path.name} is no DICOM file")
    return rescaled(read_stored(path)[1].values[:1], header.slope, header.intercept)


def _slices(folder: Path, root: Path, wanted: re.Pattern[str], other: re.Pattern[str]) -> dict[_Key, list[Header]]:
    """CT slices of one dose by patient, kernel and thickness."""
    found: dict[_Key, list[Header]] = {}
    for path in _files_of_dose(folder, wanted, other):
        header = read_header(path) if is_dicom(path) else None
        if (
            header is None
            or header.broken
            or header.modality != "CT"
            or header.position is None
            or not header.has_pixels
        ):
            continue
        key = (_patient(path, root, wanted), header.variants.get("ConvolutionKernel", ""), header.thickness or 0.0)
        found.setdefault(key, []).append(header)
    return found


def _files_of_dose(folder: Path, wanted: re.Pattern[str], other: re.Pattern[str]) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        names = [_words(name) for name in path.relative_to(folder).parts[:-1]]
        if any("projection" in name for name in names[1:] or names) or not path.is_file():
            continue
        # The innermost folder that names a dose decides: "Full and Low Dose/Low Dose Images".
        dose = next((name for name in reversed(names) if wanted.search(name) or other.search(name)), "")
        if wanted.search(dose) and not other.search(dose):
            yield path


def _words(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _patient(path: Path, root: Path, dose: re.Pattern[str]) -> str:
    parts = (root.name, *path.relative_to(root).parts[:-1])
    for part in reversed(parts):
        if match := _PATIENT.match(part):
            return match[0].upper()
    above = [part for part in parts if not dose.search(_words(part))]
    return above[-1]


def _position(header: Header) -> tuple[float, float, float]:
    x, y, z = header.position or (0.0, 0.0, 0.0)
    return x, y, z


def _matched(full: list[Header], low: list[Header]) -> list[tuple[Header, Header]]:
    """Slices of both doses at one position, sorted along z."""
    full, low = (sorted(slices, key=lambda one: _position(one)[::-1]) for slices in (full, low))
    for slices in (full, low):
        for one, other in pairwise(slices):
            if np.allclose(_position(one), _position(other), rtol=0, atol=TOLERANCE):
                raise ValueError(
                    f"{one.path.name} and {other.path.name} lie at one position; keep one series per dose and kernel"
                )
    found, index = [], 0
    for one in full:
        while index < len(low) and _position(low[index])[2] < _position(one)[2] - TOLERANCE:
            index += 1
        if index < len(low) and np.allclose(_position(one), _position(low[index]), rtol=0, atol=TOLERANCE):
            found.append((one, low[index]))
            index += 1
    return found
