"""DICOM pixels to a :class:`~monai_sasm.io.volume.Volume`, slice by slice, in HU or MR magnitude."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_sasm.errors import UnreadableError
from monai_sasm.io import paged
from monai_sasm.io.acquisition import Acquisition
from monai_sasm.io.ahead import in_order
from monai_sasm.io.dicom.acquisition import read_acquisition
from monai_sasm.io.dicom.geometry import Stack
from monai_sasm.io.dicom.multiframe import Slice
from monai_sasm.io.dicom.pixels import StoredPixels, read_stored, rescaled
from monai_sasm.io.dicom.support import is_enhanced
from monai_sasm.io.dicom.values import text_of
from monai_sasm.io.silence import quiet
from monai_sasm.io.volume import LPS_TO_RAS, FinerSlices, Source, Volume
from monai_sasm.types import Modality

MAX_IMPLAUSIBLE = 0.001
"""Part of a slice that may lie beyond the plausible values of its modality, besides one constant marker value."""
EVEN_MM, EVEN_PART = 0.05, 0.05
"""Distance in mm, or in steps, up to which slices may lie beside the places that an affine gives them."""
_AT_ONCE = 2  # files that are decoded at the same time; the headers are read by one after the other anyway


@dataclass(frozen=True)
class DicomSource(Source):
    """What the writer needs to give a series back; pixels and headers are read again from the files.

    Args:
        paths: file of each slice, in array order; frames of one multi-frame file repeat its path.
        frames: zero-based frame number within the file, one per slice.
        instances: SOP Instance UID per slice, to notice files that changed in the meantime.
        positions: ImagePositionPatient per slice, LPS mm: the native positions, also where steps differ.
        orientation: ImageOrientationPatient.
        contents: hash of the stored pixels per slice.
        slopes: rescale slope per slice.
        intercepts: rescale intercept per slice.
        multiframe: whether the slices are frames of Enhanced files.
        thickness: step in mm where the slices lie on a grid of their own, see :mod:`monai_sasm.io.finer_slices`; the
            paths then name the acquired slice whose header each takes over. ``None`` for slices as acquired.
        acquired: on such a grid, SOP Instance UIDs of the acquired slices that each was made of.
        owner: of :class:`~monai_sasm.io.dicom.header.Header`: what else UIDs follow from where patients share them.
    """

    format = "dicom"
    states_meaning = True

    paths: tuple[Path, ...]
    frames: tuple[int, ...]
    instances: tuple[str, ...]
    contents: tuple[str, ...]
    positions: tuple[tuple[float, ...], ...]
    orientation: tuple[float, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    multiframe: bool = False
    thickness: float | None = None
    acquired: tuple[tuple[str, ...], ...] = ()
    owner: str = field(default="", repr=False)

    @cached_property
    def repeated(self) -> frozenset[str]:
        """Instances that several slices have in common."""
        return frozenset(instance for instance, slices in Counter(self.instances).items() if slices > 1)

    @property
    def files(self) -> tuple[Path, ...]:
        """Each once."""
        return tuple(dict.fromkeys(self.paths))

    @property
    def states_unit(self) -> bool:
        """Of CT, whether an intercept makes Hounsfield units of its numbers; without one they may have lost theirs."""
        return min(self.intercepts) < 0

    @property
    def at_equal_steps(self) -> bool:
        """Whether the positions follow each other at one step, tilted or straight."""
        places = np.asarray(self.positions, float)
        if len(places) < 3:
            return len(places) < 2 or bool(np.abs(places[1] - places[0]).max() > 0)
        even = places[0] + np.arange(len(places))[:, None] * (places[-1] - places[0]) / (len(places) - 1)
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        off = float(np.linalg.norm(places - even, axis=1).max())
        return bool(steps.min() > 0) and off <= max(EVEN_MM, EVEN_PART * float(np.median(steps)))

    def result_name(self, name: str) -> str:
        """A folder."""
        return name

    def acquisition(self) -> Acquisition:
        """What the header of the first slice says."""
        return read_acquisition(self.paths[0])

    def on_finer_slices(self, grid: FinerSlices) -> DicomSource:
        """Every thin slice with its own position and the acquired slice that it lies in, which lends its header."""
        lps, thick, thin = LPS_TO_RAS @ grid.affine, grid.thick, grid.thin
        parents = np.minimum(((np.arange(thin) + 0.5) * thick / thin).astype(int), thick - 1)
        per_slice = ("paths", "frames", "instances", "contents", "slopes", "intercepts")
        chosen: dict[str, Any] = {name: tuple(getattr(self, name)[parent] for parent in parents) for name in per_slice}
        positions = tuple(tuple(float(part) for part in lps[:3, 3] + k * lps[:3, 0]) for k in range(thin))
        neighbours = tuple(_neighbours(k, thick, thin) for k in range(thin))
        return replace(
            self,
            **chosen,
            positions=positions,
            thickness=float(np.linalg.norm(lps[:3, 0])),
            acquired=tuple(tuple(self.instances[i] for i in each) for each in neighbours),
        )


def _neighbours(number: int, thick: int, thin: int) -> tuple[int, ...]:
    """The acquired slices between whose centres, or in which, a thin slice lies."""
    place = (number + 0.5) * thick / thin - 0.5
    low, high = int(np.floor(place)), int(np.ceil(place))
    return tuple(sorted({min(max(index, 0), thick - 1) for index in (low, high)}))


def load(
    name: str, modality: Modality, slices: tuple[Slice, ...], stack: Stack, geometry: str, notes: tuple[str, ...]
) -> Volume:
    """Read the pixels of sorted slices.

    Returns:
        Volume with array ``(1, slices, rows, columns)`` and ``slice_axis`` 0. Padding pixels keep
        ``stored * slope + intercept``; the writer gives them back exactly.

    Raises:
        RefusedError: pixels cannot be decoded, contradict their header, or do not fit into memory.
    """
    header = slices[0].header
    shape = (1, len(slices), header.rows, header.columns)
    multiframe = is_enhanced(header)
    file = 12 * math.prod(shape if multiframe else shape[2:])  # bytes: what a file is while it is decoded
    array = paged.empty(shape, beside=file)
    scattered = np.zeros(len(slices), np.int64)

    contents = [""] * len(slices)

    def decode(part: list[int]) -> None:
        dataset, pixels = read_stored(slices[part[0]].header.path)
        for index in part:
            one = slices[index]
            _check_same(dataset, one, pixels)
            array[0, index] = rescaled(pixels.values[one.frame], one.slope, one.intercept)
            scattered[index] = pixels.scattered[one.frame]
            _check_plausible(array[0, index], pixels.padding[one.frame], modality)
            contents[index] = content_of(pixels, one.frame)

    parts: dict[Path, list[int]] = defaultdict(list)
    for index, one in enumerate(slices):
        parts[one.header.path].append(index)
    for _ in paged.paging(in_order(decode, parts.values(), 1 if multiframe else _AT_ONCE)):
        pass
    if scattered.any():
        notes += (f"{scattered.sum()} pixels have the value of padding within the image; they are restored as tissue",)
    source = DicomSource(
        paths=tuple(one.header.path for one in slices),
        frames=tuple(one.frame for one in slices),
        instances=tuple(one.header.sop_instance for one in slices),
        contents=tuple(contents),
        positions=tuple(one.position for one in slices),
        orientation=slices[0].orientation,
        slopes=tuple(one.slope for one in slices),
        intercepts=tuple(one.intercept for one in slices),
        multiframe=multiframe,
        owner=header.owner,
    )
    return Volume(array, modality, stack.affine, 0, name, source, geometry, notes)


def instance_uid(dataset: Dataset) -> str:
    """SOP Instance UID of a data set, from the file meta information where the data set has lost it."""
    return text_of(dataset, "SOPInstanceUID") or text_of(dataset.file_meta, "MediaStorageSOPInstanceUID")


def content_of(pixels: StoredPixels, frame: int) -> str:
    """Hash of the stored integers of a frame."""
    return hashlib.sha256(pixels.values[frame].astype("<i4").tobytes()).hexdigest()


def _check_same(dataset: Dataset, one: Slice, pixels: StoredPixels) -> None:
    with quiet():
        instance = instance_uid(dataset)
    if instance != one.header.sop_instance:
        raise UnreadableError("a file changed while it was being read; run again when the folder is complete")
    expected = (one.header.frames, one.header.rows, one.header.columns)
    if pixels.values.shape != expected:
        raise UnreadableError(f"{pixels.values.shape} pixels decoded where the header announces {expected}")


def _check_plausible(values: NDArray[np.float32], padding: NDArray[np.bool_], modality: Modality) -> None:
    """Wrongly decoded or wrongly signed pixels show as numbers no scanner makes."""
    dicom = modality.profile.dicom
    if dicom is None or dicom.plausible is None:
        return
    lowest, highest = dicom.plausible
    outside = ((values < lowest) | (values > highest)) & ~padding
    if not outside.any():
        return
    low, high = float(values[outside].min()), float(values[outside].max())
    marker = values == (low if low < lowest else high)
    if (outside & ~marker).mean() > MAX_IMPLAUSIBLE:
        raise UnreadableError(
            f"values from {low:.0f} to {high:.0f} are no {modality.profile.quantity}: Pixel Representation or Rescale "
            "is wrong, or the compressed pixels are damaged; export the series uncompressed"
        )
