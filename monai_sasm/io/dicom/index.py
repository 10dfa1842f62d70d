"""Index: DICOM series among files, grouped, sorted and classified before any pixel is read."""

from __future__ import annotations

import filecmp
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.format import likeness
from monai_sasm.io.dicom.geometry import UNEVEN, normal_of, stack
from monai_sasm.io.dicom.header import Header, read_header
from monai_sasm.io.dicom.multiframe import Slice, lost_parts, slice_of, slices_of
from monai_sasm.io.dicom.pixels import read_stored
from monai_sasm.io.dicom.read import load
from monai_sasm.io.dicom.support import is_damaged, is_enhanced, is_unreadable, modality_of, refusal_of, scout_refusal
from monai_sasm.io.dicom.volumes import at_positions, by_frame_of_reference, by_grid, side_by_side, told_apart
from monai_sasm.io.entry import Entry, refuse

MAX_DUPLICATES = 0.5
"""Part of the positions that may occur twice, with the same attributes, and be taken for repeated slices rather than an
unknown dimension."""

_DERIVED_NOTE = "already derived by this software: restoring it again smooths twice"
_INTACT = "get intact copies, or move what is no slice of it out of the folder"
_COPY = "a copy: another file holds the same SOP Instance UID and pixels, and that one is taken"
_CONTRADICTS = (
    "a SOP Instance UID names one image, and another file with that of this one holds other pixels for the same place; "
    "leave only the right one there, or export the series again"
)
_NO_OWNER = (
    "files of several patients have one Series Instance UID, and some do not say which patient they are of; correct "
    "Patient ID and its issuer, or restore the files of each patient alone"
)
_SHARED_UID = "files of another patient have the same Series Instance UID; they are kept apart by Patient ID"
_ONE_WHITE = (
    ", all by one white: if they are of several times, echoes or b-values, the dark ones are smoothed too much; "
    "restore the files of each of them alone"
)
_REPEATED = "a duplicate slice: another one at its position, of a higher Instance Number, is taken"


@dataclass(frozen=True)
class _Beside:
    """How many damaged files each folder holds, and how many of them say no series."""

    damaged: dict[Path, int] = field(default_factory=lambda: defaultdict(int))
    unknown: dict[Path, int] = field(default_factory=lambda: defaultdict(int))


def index(files: Iterable[Path], left_out: dict[Path, str] | None = None) -> list[Entry]:
    """Group, sort and classify DICOM series.

    Args:
        files: recognised by content; others are ignored.
        left_out: is told the files that are in no entry, because another one stands for them, and why.

    Returns:
        One entry per volume, and one per group of files that will not be processed, each with its reason.
        An empty list when nothing is DICOM.
    """
    left_out = {} if left_out is None else left_out
    headers = _headers(files)
    beside = _Beside()
    for header in headers:
        beside.damaged[header.path.parent] += is_damaged(header)
        beside.unknown[header.path.parent] += is_damaged(header) and not header.series
    entries: list[Entry] = []
    for members in _by_series(headers).values():
        owners = _by_patient(members)
        if owners is None:
            entries.append(_refused_entry(members, _NO_OWNER, unreadable=True))
            continue
        for own in owners:
            entries += _series_entries(own, beside, left_out)
    return _unique_names(sorted(entries, key=lambda entry: (entry.refusal is not None, entry.name)))


def _headers(files: Iterable[Path]) -> list[Header]:
    """Those of DICOM files, and broken ones for what is none but is named as a slice beside it is: a lost copy."""
    found = [(file, read_header(file)) for file in files]
    headers = [header for _, header in found if header is not None]
    named = {likeness(header.path) for header in headers}
    lost = (file for file, header in found if header is None and likeness(file) in named)
    return headers + [Header(file, broken="the file is empty or damaged, for it is named like DICOM") for file in lost]


def _by_series(headers: Iterable[Header]) -> dict[tuple[str, ...], list[Header]]:
    """Files by study and series; where the UIDs were emptied, by folder."""
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        if header.broken and not header.series:
            series["file", str(header.path)].append(header)
        elif header.series:
            series[header.study, header.series].append(header)
        else:
            series["folder", str(header.path.parent), header.sop_class].append(header)
    return series


def _by_patient(members: list[Header]) -> list[list[Header]] | None:
    """Files of one series by patient, where they are of several; ``None`` where some do not say of which.

    A file that lacks the ID or its issuer is of the only patient that it can be of.
    """
    said = {header.patient for header in members}
    patients = [one for one in said if not any(_fits(one, other) for other in said - {one})]
    if len(patients) < 2:
        return [members]
    owned: dict[tuple[str, str], list[Header]] = {patient: [] for patient in sorted(patients)}
    for header in members:
        possible = [patient for patient in patients if _fits(header.patient, patient)]
        if len(possible) > 1:
            return None
        owner = hashlib.sha256(repr(possible[0]).encode()).hexdigest()
        owned[possible[0]].append(replace(header, owner=owner))
    return list(owned.values())


def _fits(told: tuple[str, str], patient: tuple[str, str]) -> bool:
    """Whether what a file tells of its patient, all of it or a part, is of this one."""
    return all(part in ("", whole) for part, whole in zip(told, patient, strict=True))


def _series_entries(members: list[Header], beside: _Beside, left_out: dict[Path, str]) -> list[Entry]:
    refused: dict[tuple[str, bool], list[Header]] = defaultdict(list)
    slices: list[Slice] = []
    unique, contradicting = _without_copies(members)
    for header in unique:
        if header.path in contradicting:
            refused[_CONTRADICTS, True].append(header)
            continue
        reason = refusal_of(header)
        unreadable = reason is None or is_unreadable(header, reason)
        if reason is None and is_enhanced(header):
            frames, reason = slices_of(header)
            slices += frames
        elif reason is None:
            slices.append(slice_of(header))
        if reason is not None:
            refused[reason, unreadable].append(header)
    scout = scout_refusal(slices[0].header, [one.orientation for one in slices]) if slices else None
    if scout is not None:
        refused[scout, False] = [one.header for one in slices]
        slices = []
    entries = [_refused_entry(headers, why, unreadable=unread) for (why, unread), headers in refused.items()]
    damaged = sum(map(is_damaged, unique)) + len(contradicting)
    taken = {header.path for header in unique}
    left_out |= {header.path: _COPY for header in members if header.path not in taken}
    copies = len(members) - len(unique)
    notes: tuple[str, ...] = (f"{copies} further copies of the same instances ignored",) if copies else ()
    notes += (_SHARED_UID,) if members[0].owner else ()
    notes += lost_parts(slices)
    for key, group in by_grid(slices).items():
        found, repeated = _group_entry(key, group, damaged=damaged, notes=notes, beside=beside)
        entries += found
        used = {path for entry in found for path in entry.paths}
        left_out |= {one.header.path: _REPEATED for one in repeated if one.header.path not in used}
    return entries


def _without_copies(members: list[Header]) -> tuple[list[Header], set[Path]]:
    """Files without those that say the same as another, intact ones first, and which of them contradict each other.

    Some anonymisers give one UID to all slices. So a copy has the place, the attributes and the pixels of another, too;
    pixels are read only where all the others agree.
    """
    kept: dict[tuple[str, tuple[float, ...] | None], list[Header]] = defaultdict(list)
    contradicting: set[Path] = set()
    for header in sorted(members, key=lambda header: header.broken is not None):
        known = kept[header.sop_instance or str(header.path), header.position]
        alike = [one for one in known if _attributes(one) == _attributes(header)]
        if any(_is_copy(header, one) for one in alike):
            continue
        known.append(header)
        wrong = {one.path for one in alike if one.instance == header.instance}
        contradicting |= wrong | ({header.path} if wrong else set())
    return [header for known in kept.values() for header in known], contradicting


def _attributes(header: Header) -> tuple[object, ...]:
    """What tells images of one place apart."""
    grid = (header.rows, header.columns, header.frames, header.orientation, header.spacing, header.frame_of_reference)
    return (*grid, header.image_type, header.component, header.temporal, header.echo, header.variants)


def _is_copy(header: Header, known: Header) -> bool:
    """Whether a file holds the pixels of one with the same attributes; of what is not restored it does not matter."""
    if refusal_of(header) is not None or known.broken is not None:
        return True
    if (header.slope, header.intercept) != (known.slope, known.intercept):
        return False
    try:
        if filecmp.cmp(header.path, known.path, shallow=False):
            return True
        one, other = (read_stored(file.path)[1].values for file in (header, known))  # packed or not, they are the same
        return np.array_equal(one, other)
    except (RefusedError, OSError):
        return False


def _group_entry(
    key: tuple[object, ...], group: list[Slice], *, damaged: int, notes: tuple[str, ...], beside: _Beside
) -> tuple[list[Entry], list[Slice]]:
    """The volumes that slices of one grid are, and the slices that are left out for others at their positions."""
    headers = [one.header for one in group]
    if damaged:
        reason = f"{damaged} file(s) of this series cannot be read, so it would have a hole; get intact copies"
        return [_refused_entry(headers, reason, key, unreadable=True)], []
    folders = {header.path.parent for header in headers}
    unknown = sum(beside.unknown[folder] for folder in folders)
    if unknown and len(group) > 1:  # one slice is no stack that could have a hole
        reason = f"{unknown} file(s) beside it cannot be read and may be slices of it, so it may have a hole; {_INTACT}"
        return [_refused_entry(headers, reason, key, unreadable=True)], []
    try:
        normal = normal_of(group[0].orientation)
    except ValueError as error:
        return [_refused_entry(headers, f"{error}; correct the header", key, unreadable=True)], []
    parts = by_frame_of_reference(group) or side_by_side(group, normal)
    if parts:
        found: list[Entry] = []
        left: list[Slice] = []
        for value, part in parts.of:
            note = f"one of {len(parts.of)} volumes of this series, told apart by {parts.told_by}"
            own = (*key, parts.told_by, value)
            entries, repeated = _group_entry(own, part, damaged=damaged, notes=(*notes, note), beside=beside)
            found, left = found + entries, left + repeated
        return found, left
    lost = sum(beside.damaged[folder] for folder in folders)
    notes += (f"{lost} unreadable DICOM file(s) of other series in the same folder",) if lost else ()
    notes += (_DERIVED_NOTE,) if any(header.derived_here for header in headers) else ()
    placed = at_positions(group, normal)
    repeats = [len(at) for at in placed]
    if max(repeats) == 1:
        return [_unless_hole(_entry(key, [at[0] for at in placed], notes), group, lost, key)], []
    split = told_apart(group, placed, whole=True) or told_apart(group, placed, whole=False)
    if split:
        note = f"one of {len(split.of)} volumes of this series, told apart by {split.told_by}"
        volumes = [(part, _entry((*key, split.told_by, value), part, (*notes, note))) for value, part in split.of]
        return [_unless_hole(entry, part, lost, key) for part, entry in volumes], []
    doubled = sum(count > 1 for count in repeats)
    differing = sum(any(one.variants != at[0].variants for one in at) for at in placed)
    if doubled > MAX_DUPLICATES * len(placed) or differing:
        told = f"{doubled} of {len(placed)} slice positions occur more than once and no attributes tell volumes apart"
        if is_enhanced(headers[0]):  # becomes a NIfTI file, which has one slice at each position
            return [_refused_entry(headers, f"{told}; export the frames of one volume as single slices", key)], []
        note = f"{told}; slices are processed one by one"
        modality = modality_of(headers[0])
        note += _ONE_WHITE if modality is not None and modality.profile.relative else ""
        return [_entry(key, [one for at in placed for one in at], (*notes, note))], []
    kept = [max(at, key=lambda one: (one.header.instance, one.frame)) for at in placed]
    note = f"{sum(repeats) - len(placed)} duplicate slice(s) left out, the highest Instance Number kept"
    repeated = [one for at, chosen in zip(placed, kept, strict=True) for one in at if one is not chosen]
    return [_unless_hole(_entry(key, kept, (*notes, note)), group, lost, key)], repeated


def _unless_hole(entry: Entry, group: list[Slice], lost: int, key: tuple[object, ...]) -> Entry:
    """Slices missing beside damaged files of other series, as whose UIDs may be damaged, too: the missing ones."""
    if not lost or not (entry.geometry in ("gap", "irregular") or _far_apart(group)):
        return entry
    reason = f"slices are missing and {lost} file(s) beside them cannot be read, so it has a hole; get intact copies"
    return _refused_entry([one.header for one in group], reason, key, unreadable=True)


def _far_apart(group: list[Slice]) -> bool:
    """Two slices with room for more between them, which are at equal steps however many are missing."""
    step = group[0].thickness
    if len(group) != 2 or step is None:
        return False
    apart = abs(float(np.dot(np.subtract(group[1].position, group[0].position), normal_of(group[0].orientation))))
    return apart > 1.5 * step


def _entry(key: tuple[object, ...], slices: list[Slice], notes: tuple[str, ...]) -> Entry:
    first = slices[0]
    modality = modality_of(first.header)
    if modality is None:
        raise ValueError("only slices of known modality are grouped")
    places = [at[0].position for at in at_positions(slices, normal_of(first.orientation))]
    lying = stack(np.array(places), first.orientation, first.spacing, first.thickness)
    if len(places) < len(slices):
        lying = replace(lying, geometry="irregular")
    multiframe = is_enhanced(first.header)
    projection = next((one.projection for one in slices if one.projection), None)
    notes += lying.notes if projection is None else (projection, *lying.notes)
    geometry = "multiframe" if multiframe and lying.geometry not in UNEVEN else lying.geometry
    name = _name(first.header, key)
    paths = tuple(dict.fromkeys(one.header.path for one in slices))
    reader = partial(load, name, modality, tuple(slices), lying, geometry, notes)
    own = any(one.header.restored_here for one in slices)
    found = Entry(name, "dicom", paths, modality, geometry, None, notes, reader, is_result=own)
    if first.doubt:
        return replace(found, refusal=first.doubt, load=partial(refuse, first.doubt), forced=reader)
    return found


def _refused_entry(
    headers: list[Header], reason: str, key: tuple[object, ...] = (), *, unreadable: bool = False
) -> Entry:
    first, modality = headers[0], modality_of(headers[0])
    paths = tuple(dict.fromkeys(header.path for header in headers))
    name = _name(first, key or (reason,))
    load = partial(refuse, reason, unreadable=unreadable)
    return Entry(name, "dicom", paths, modality, "unknown", reason, (), load, unreadable=unreadable)


def _name(header: Header, key: tuple[object, ...]) -> str:
    """Stable label without patient data; the hash tells apart what shares a series number."""
    modality = modality_of(header)
    kind = modality.value if modality else "DICOM"
    identity: object = header.series or header.sop_instance or header.path.name
    if header.owner:
        identity = identity, header.owner
    digest = hashlib.sha256(repr((identity, key)).encode()).hexdigest()[:8]
    return f"{kind}-series{header.series_number or 0:03d}-{digest}"


def _unique_names(entries: list[Entry]) -> list[Entry]:
    counts: dict[str, int] = defaultdict(int)
    unique = []
    for entry in entries:
        counts[entry.name] += 1
        repeated = counts[entry.name]
        unique.append(replace(entry, name=f"{entry.name}-{repeated}") if repeated > 1 else entry)
    return unique
