"""Frames of Enhanced multi-frame CT and MR: place and rescale from the functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

from monai_sasm.io.dicom.header import Header, quiet_read
from monai_sasm.io.dicom.support import doubt_of, rescale_refusal
from monai_sasm.io.dicom.values import floats_of, integer_of, scale_of, step_of, text_of, units_of
from monai_sasm.io.meaning import projection_note
from monai_sasm.io.silence import quiet

_VARIANTS = (
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    ("CTXRayDetailsSequence", "KVP"),
    ("CTReconstructionSequence", "ConvolutionKernel"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("FrameContentSequence", "FrameAcquisitionDateTime"),
)


@dataclass(frozen=True)
class Slice:
    """One frame of one file with its place in space; the unit in which series are grouped and sorted.

    Args:
        frame: zero-based frame number in the file.
        key: what makes it a part of another volume even at another position (stack, time point, echo, image type).
        variants: what may tell it from another frame at the same position.
        doubt: see :func:`monai_sasm.io.dicom.support.doubt_of`.
        projection: see :func:`monai_sasm.io.meaning.projection_note`.
        part: which object of which concatenation holds it, and of how many; 0 where that is not told.
    """

    header: Header
    frame: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None
    slope: float
    intercept: float
    key: tuple[str, ...]
    variants: dict[str, str]
    doubt: str | None = None
    projection: str | None = None
    part: tuple[str, int, int] | None = None


def slice_of(header: Header) -> Slice:
    """The only slice of a classic CT or MR file that :func:`~monai_sasm.io.dicom.support.refusal_of` let through."""
    kind = header.image_type[2] if len(header.image_type) > 2 else ""
    key = (kind, str(header.temporal), header.echo)
    place = header.position or (), header.orientation or (), header.spacing or ()
    own = header.thickness, header.slope, header.intercept
    projection = projection_note(header.image_type, header.technique, header.texts)
    return Slice(header, 0, *place, *own, key, header.variants, doubt_of(header), projection)


def slices_of(header: Header) -> tuple[list[Slice], str | None]:
    """Every frame of an Enhanced file, or the reason why its frames have no certain place."""
    try:
        dataset = quiet_read(header.path, stop_before_pixels=True)
        with quiet():
            shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]))
            frames = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
            whole = text_of(dataset, "ConcatenationUID")
            number, total = (integer_of(dataset, f"InConcatenation{key}", 0) for key in ("Number", "TotalNumber"))
            part = (whole, number, total) if whole else None
            slices = [replace(_slice(header, index, frame, shared), part=part) for index, frame in enumerate(frames)]
    except Exception as error:  # damaged sequences raise whatever they provoke
        return [], f"the functional groups cannot be parsed ({type(error).__name__}); get an intact copy of the file"
    if len(slices) != header.frames:
        return [], (
            "the number of frames is not that of the per-frame functional groups, so their positions are unknown; "
            "export the series as single slices"
        )
    lost = sum(not (one.position and one.orientation and one.spacing) for one in slices)
    if lost:
        return [], f"{lost} of {len(slices)} frames have no position, orientation or spacing; export as single slices"
    unusable = next(filter(None, (rescale_refusal(one.slope, one.intercept) for one in slices)), None)
    return ([], unusable) if unusable else (slices, None)


def lost_parts(slices: Iterable[Slice]) -> tuple[str, ...]:
    """A note for each concatenation (PS3.3 C.7.6.16.2.2.4) of which objects are missing."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for one in slices:
        if one.part is not None:
            found[one.part[0]].add(one.part[1:])
    notes = []
    for parts in found.values():
        there = {number for number, _ in parts}
        total = max(max(part) for part in parts)
        if len(there) < total:
            notes.append(
                f"{total - len(there)} of {total} objects of a concatenation are missing, and their frames with them"
            )
    return tuple(notes)


def _macro(frame: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """The single item of a functional group macro, per frame before shared."""
    for holder in (frame, shared):
        items: Any = holder.get(keyword)
        if items:
            return items[0]
    return Dataset()


def _slice(header: Header, number: int, frame: Dataset, shared: Dataset) -> Slice:
    content = _macro(frame, shared, "FrameContentSequence")
    measures = _macro(frame, shared, "PixelMeasuresSequence")
    rescale = _macro(frame, shared, "PixelValueTransformationSequence")
    kinds = (_macro(frame, shared, name) for name in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence"))
    kind = next((one for one in kinds if text_of(one, "FrameType")), Dataset())
    frame_type, component = text_of(kind, "FrameType"), text_of(kind, "ComplexImageComponent")
    units = units_of(frame) or units_of(shared)
    types = tuple(frame_type.split("\\")) if frame_type else ()
    technique = text_of(kind, "VolumeBasedCalculationTechnique") or header.technique
    variants = {key: text_of(_macro(frame, shared, group), key) for group, key in _VARIANTS}
    return Slice(
        header,
        number,
        floats_of(_macro(frame, shared, "PlanePositionSequence"), "ImagePositionPatient", 3) or (),
        floats_of(_macro(frame, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6) or (),
        floats_of(measures, "PixelSpacing", 2) or (),
        step_of(measures),
        scale_of(rescale, "RescaleSlope", 1.0),
        scale_of(rescale, "RescaleIntercept", 0.0),
        (
            frame_type or "\\".join(header.image_type),
            component,
            text_of(content, "StackID"),
            str(integer_of(content, "TemporalPositionIndex", None)),
        ),
        {key: text for key, text in variants.items() if text},
        doubt_of(
            header,
            types,
            component,
            units,
            text_of(rescale, "RescaleType"),
        ),
        projection_note(types or header.image_type, technique, header.texts),
    )
