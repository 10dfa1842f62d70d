"""Index: DICOM series among files, grouped, sorted and classified before any pixel is read."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from monai_sasm.io.dicom.geometry import ABSOLUTE_TOLERANCE, normal_of, stack
from monai_sasm.io.dicom.header import Header, read_header
from monai_sasm.io.dicom.multiframe import Slice, slice_of, slices_of
from monai_sasm.io.dicom.read import load
from monai_sasm.io.dicom.support import is_enhanced, modality_of, refusal_of
from monai_sasm.io.entry import Entry, refuse

ORIENTATION_TOLERANCE = 2e-3
"""Difference of direction cosines within which slices count as parallel (0.1 degrees)."""
MAX_DUPLICATES = 0.5
"""Part of the positions that may occur twice and be taken for repeated slices rather than an unknown dimension."""

_MULTIFRAME_NOTE = "Enhanced multi-frame: the result can be written as NIfTI, not as DICOM"
_DERIVED_NOTE = "already derived by this software: restoring it again smooths twice"


def index(files: Iterable[Path]) -> list[Entry]:
    """Group, sort and classify DICOM series.

    Args:
        files: recognised by content; others are ignored.

    Returns:
        One entry per volume, and one per group of files that will not be processed, each with its reason.
        An empty list when nothing is DICOM.
    """
    headers = [header for file in files if (header := read_header(file))]
    unreadable: dict[Path, int] = defaultdict(int)
    for header in headers:
        unreadable[header.path.parent] += _is_damaged(header)
    entries: list[Entry] = []
    for members in _by_series(headers).values():
        entries += _series_entries(members, unreadable)
    return _unique_names(sorted(entries, key=lambda entry: (entry.refusal is not None, entry.name)))


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


def _series_entries(members: list[Header], unreadable: dict[Path, int]) -> list[Entry]:
    refused: dict[str, list[Header]] = defaultdict(list)
    slices: list[Slice] = []
    unique = _without_copies(members)
    for header in unique:
        reason = refusal_of(header)
        if reason is None and is_enhanced(header):
            frames, reason = slices_of(header)
            slices += frames
        elif reason is None:
            slices.append(slice_of(header))
        if reason is not None:
            refused[reason].append(header)
    entries = [_refused_entry(headers, reason) for reason, headers in refused.items()]
    damaged = sum(map(_is_damaged, unique))
    copies = len(members) - len(unique)
    for key, group in _groups(slices).items():
        entries += _group_entries(key, group, damaged, copies, unreadable)
    return entries


def _is_damaged(header: Header) -> bool:
    """A file that cannot be read, or a CT or MR file that ends before its pixels."""
    return header.broken is not None or not (header.has_pixels or modality_of(header) is None)


def _without_copies(members: list[Header]) -> list[Header]:
    """The first intact file of each SOP Instance UID."""
    seen: dict[str, Header] = {}
    for header in sorted(members, key=lambda header: header.broken is not None):
        seen.setdefault(header.sop_instance or str(header.path), header)
    return list(seen.values())


def _groups(slices: Sequence[Slice]) -> dict[tuple[object, ...], list[Slice]]:
    """Slices of one grid: parallel, of one size and spacing, of one image type, echo and time point."""
    orientations: list[tuple[float, ...]] = []
    groups: dict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for one in slices:
        close = (
            known for known in orientations if np.abs(np.subtract(known, one.orientation)).max() < ORIENTATION_TOLERANCE
        )
        orientation = next(close, None)
        if orientation is None:
            orientation = one.orientation
            orientations.append(orientation)
        header = one.header
        rounded = tuple(round(number, 2) + 0.0 for number in orientation)
        spacing = tuple(round(number, 4) for number in one.spacing)
        grid = (header.rows, header.columns, header.bits_stored, spacing)
        key: tuple[object, ...] = (modality_of(header), rounded, grid, *one.key)
        groups[key].append(one)
    return groups


def _group_entries(
    key: tuple[object, ...], group: list[Slice], damaged: int, copies: int, unreadable: dict[Path, int]
) -> list[Entry]:
    if damaged:
        reason = f"{damaged} file(s) of this series cannot be read, so it would have a hole; get intact copies"
        return [_refused_entry([one.header for one in group], reason, key)]
    try:
        normal = normal_of(group[0].orientation)
    except ValueError as error:
        return [_refused_entry([one.header for one in group], f"{error}; correct the header", key)]
    notes: tuple[str, ...] = (f"{copies} further copies of the same instances ignored",) if copies else ()
    lost = sum(unreadable.get(folder, 0) for folder in {one.header.path.parent for one in group})
    notes += (f"{lost} unreadable DICOM file(s) in the same folder",) if lost else ()
    notes += (_DERIVED_NOTE,) if any(one.header.derived_here for one in group) else ()
    placed = _at_positions(group, normal)
    repeats = [len(at) for at in placed]
    if max(repeats) == 1:
        return [_unless_hole(_entry(key, [at[0] for at in placed], notes), group, lost, key)]
    split = _split(group, placed)
    if split:
        attribute, parts = split
        note = f"one of {len(parts)} volumes of this series, told apart by {attribute}"
        return [_entry((*key, attribute, value), part, (*notes, note)) for value, part in parts]
    doubled = sum(count > 1 for count in repeats)
    if doubled > MAX_DUPLICATES * len(placed):
        reason = f"{doubled} of {len(placed)} slice positions occur more than once and no attribute tells them apart"
        return [_refused_entry([one.header for one in group], f"{reason}; give the files of one volume only", key)]
    kept = [max(at, key=lambda one: (one.header.acquisition, one.header.instance, one.frame)) for at in placed]
    note = f"{sum(repeats) - len(placed)} duplicate slice(s) left out, the highest Acquisition Number kept"
    return [_unless_hole(_entry(key, kept, (*notes, note)), group, lost, key)]


def _unless_hole(entry: Entry, group: list[Slice], lost: int, key: tuple[object, ...]) -> Entry:
    """Slices missing beside files whose series cannot be told: the missing ones, most likely."""
    if not lost or entry.geometry not in ("gap", "irregular"):
        return entry
    reason = f"slices are missing and {lost} file(s) beside them cannot be read, so it has a hole; get intact copies"
    return _refused_entry([one.header for one in group], reason, key)


def _at_positions(group: list[Slice], normal: np.ndarray) -> list[list[Slice]]:
    """Slices in ascending order along the normal, those at one position together."""
    ordered = sorted(group, key=lambda one: (float(np.dot(one.position, normal)), str(one.header.path), one.frame))
    placed: list[list[Slice]] = []
    for one in ordered:
        if placed and np.dot(one.position, normal) - np.dot(placed[-1][0].position, normal) < ABSOLUTE_TOLERANCE:
            placed[-1].append(one)
        else:
            placed.append([one])
    return placed


def _split(group: list[Slice], placed: list[list[Slice]]) -> tuple[str, list[tuple[str, list[Slice]]]] | None:
    """An attribute whose values each cover every position exactly once: time points, echoes, b-values, ..."""
    attributes = dict.fromkeys(key for one in group for key in one.variants)
    for attribute in attributes:
        parts: dict[str, list[Slice]] = defaultdict(list)
        for at in placed:
            for one in at:
                parts[one.variants.get(attribute, "")].append(one)
        values = [{one.variants.get(attribute, "") for one in at} for at in placed]
        complete = all(len(part) == len(placed) for part in parts.values())
        if len(parts) > 1 and complete and all(len(here) == len(parts) for here in values):
            return attribute, sorted(parts.items())
    return None


def _entry(key: tuple[object, ...], slices: list[Slice], notes: tuple[str, ...]) -> Entry:
    first = slices[0]
    modality = modality_of(first.header)
    if modality is None:
        raise ValueError("only slices of known modality are grouped")
    positions = np.array([one.position for one in slices])
    lying = stack(positions, first.orientation, first.spacing, first.thickness)
    multiframe = is_enhanced(first.header)
    notes += lying.notes + ((_MULTIFRAME_NOTE,) if multiframe else ())
    geometry = "multiframe" if multiframe else lying.geometry
    name = _name(first.header, key)
    paths = tuple(dict.fromkeys(one.header.path for one in slices))
    reader = partial(load, name, modality, tuple(slices), lying, geometry, notes)
    return Entry(name, "dicom", paths, modality, geometry, None, notes, reader)


def _refused_entry(headers: list[Header], reason: str, key: tuple[object, ...] = ()) -> Entry:
    first = headers[0]
    paths = tuple(dict.fromkeys(header.path for header in headers))
    name = _name(first, key or (reason,))
    return Entry(name, "dicom", paths, modality_of(first), "unknown", reason, (), partial(refuse, reason))


def _name(header: Header, key: tuple[object, ...]) -> str:
    """Stable label without patient data; the hash tells apart what shares a series number."""
    modality = modality_of(header)
    kind = modality.value if modality else "DICOM"
    identity = header.series or header.sop_instance or header.path.name
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
