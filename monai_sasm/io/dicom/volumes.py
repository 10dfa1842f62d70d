"""Volumes among the slices of a series: what lies on one grid, in one frame of reference, over each other, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from monai_sasm.io.dicom.geometry import ABSOLUTE_TOLERANCE, on_one_line
from monai_sasm.io.dicom.multiframe import Slice
from monai_sasm.io.dicom.support import modality_of

ORIENTATION_TOLERANCE = 2e-3
"""Difference of direction cosines within which slices count as parallel (0.1 degrees)."""


@dataclass(frozen=True)
class Parts:
    """Volumes that are one group by their grid, by what tells them apart: (its value, slices)."""

    told_by: str
    of: list[tuple[object, list[Slice]]]


def by_grid(slices: Sequence[Slice]) -> dict[tuple[object, ...], list[Slice]]:
    """Slices of one grid: parallel, of one size and spacing, of one image type, echo and time point.

    Bits Stored may differ between slices, as some encoders fit it to each; the key, which results are named after,
    holds the largest.
    """
    orientations: list[tuple[float, ...]] = []
    groups: dict[tuple[int, tuple[object, ...]], list[Slice]] = defaultdict(list)
    for one in slices:
        close = (
            number
            for number, known in enumerate(orientations)
            if np.abs(np.subtract(known, one.orientation)).max() < ORIENTATION_TOLERANCE
        )
        number = next(close, len(orientations))
        if number == len(orientations):
            orientations.append(one.orientation)
        header = one.header
        rounded = tuple(round(cosine, 2) + 0.0 for cosine in orientations[number])
        spacing = tuple(round(length, 4) for length in one.spacing)
        key: tuple[object, ...] = (modality_of(header), rounded, header.rows, header.columns, spacing, *one.key)
        if one.doubt:
            key += (one.doubt,)
        groups[number, key].append(one)
    alike = Counter(key for _, key in groups)
    named: dict[tuple[object, ...], list[Slice]] = {}
    for (_, key), group in groups.items():
        mean = np.mean([one.orientation for one in group], axis=0)
        finer = () if alike[key] == 1 else tuple(float(cosine) + 0.0 for cosine in mean.round(4))
        named[_with_bits(key, max(one.header.bits_stored for one in group)) + finer] = group
    return named


def _with_bits(key: tuple[object, ...], bits: int) -> tuple[object, ...]:
    modality, orientation, rows, columns, spacing, *rest = key
    return (modality, orientation, (rows, columns, bits, spacing), *rest)


def by_frame_of_reference(group: list[Slice]) -> Parts | None:
    """Slices by Frame of Reference UID, where they have several: no place in the one is known in the other.

    Some anonymisers give each file one of its own, which says nothing.
    """
    told = Counter(one.header.frame_of_reference for one in group)
    if len({*told} - {""}) < 2 or (len(told) == len(group) > 2):
        return None
    return Parts(
        "Frame of Reference UID",
        [(uid, [one for one in group if one.header.frame_of_reference == uid]) for uid in sorted(told)],
    )


def side_by_side(group: list[Slice], normal: np.ndarray) -> Parts | None:
    """Stacks of parallel slices that do not lie over each other, as the stations of a long spine do.

    Tilted slices lie on one line; others that are shifted are one by one, unless they would be taken for repeats.
    """
    places = np.array([one.position for one in group])
    heights, near = places @ normal, _half_a_pixel(group[0])
    level = bool(np.ptp(heights) < ABSOLUTE_TOLERANCE)
    if not level and on_one_line(places[np.argsort(heights)], near):
        return None
    across = places - heights[:, None] * normal
    labels = _clusters(across, near)
    stacks = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    several = [bool(np.ptp(heights[stack]) >= ABSOLUTE_TOLERANCE) for stack in stacks]
    overlap = any(
        (np.abs(heights[one][:, None] - heights[other]) < ABSOLUTE_TOLERANCE).any()
        for one, other in combinations(stacks, 2)
    )
    if len(stacks) == 1 or not (all(several) or (overlap and (any(several) or level))):
        return None
    origins = [tuple(float(part) + 0.0 for part in across[stack].mean(0).round(1)) for stack in stacks]
    of: list[tuple[object, list[Slice]]] = [
        (origin, [group[index] for index in stack]) for origin, stack in zip(origins, stacks, strict=True)
    ]
    return Parts("their places in the plane", sorted(of, key=lambda part: str(part[0])))


def _half_a_pixel(one: Slice) -> float:
    """mm in the plane, up to which slices lie over each other."""
    return min(one.spacing) / 2


def _clusters(points: np.ndarray, near: float) -> np.ndarray:
    """A number for each point, the same for points that a chain of steps up to ``near`` connects."""
    labels = np.full(len(points), -1)
    for start in range(len(points)):
        if labels[start] >= 0:
            continue
        label, edge = labels.max() + 1, [start]
        labels[start] = label
        while edge:
            beside = np.linalg.norm(points - points[edge.pop()], axis=1) <= near
            found = np.flatnonzero(beside & (labels < 0))
            labels[found] = label
            edge += found.tolist()
    return labels


def at_positions(group: list[Slice], normal: np.ndarray) -> list[list[Slice]]:
    """Slices in ascending order along the normal, those at one position together."""
    ordered = sorted(group, key=lambda one: (float(np.dot(one.position, normal)), str(one.header.path), one.frame))
    placed: list[list[Slice]] = []
    for one in ordered:
        for at in reversed(placed):
            apart = np.subtract(one.position, at[0].position)
            if apart @ normal >= ABSOLUTE_TOLERANCE:
                placed.append([one])
                break
            if np.linalg.norm(apart) <= _half_a_pixel(one):
                at.append(one)
                break
        else:
            placed.append([one])
    return placed


def told_apart(group: list[Slice], placed: list[list[Slice]], *, whole: bool) -> Parts | None:
    """An attribute, or a pair, that tells the slices at each position apart: echoes, b-values, ...

    Args:
        group: all slices.
        placed: the same by position.
        whole: each of its values covers every position. Else it has no more values than slices are at one position, so
            that it does not cut a volume into slices as times do.
    """
    attributes = dict.fromkeys(key for one in group for key in one.variants)
    varying = [key for key in attributes if len({one.variants.get(key, "") for one in group}) > 1]
    most = max(map(len, placed))
    for chosen in chain(((key,) for key in varying), combinations(varying, 2)):
        parts: dict[str, list[Slice]] = defaultdict(list)
        for at in placed:
            here = {" x ".join(one.variants.get(key, "") for key in chosen): one for one in at}
            if len(here) < len(at) or (whole and parts and here.keys() != parts.keys()):
                break
            for value, one in here.items():
                parts[value].append(one)
        else:
            if whole or len(parts) <= most:
                return Parts(" and ".join(chosen), sorted(parts.items()))
    return None
