"""Derived Enhanced CT and MR objects: the source copied as a template, with new pixels and where each frame came from.

What a derived multi-frame object must carry: PS3.3 C.7.6.16.2.6 (Derivation Image macro of each frame), C.8.13.2.1.4
(Source Image Evidence Sequence), C.8.15.2.1 and C.8.13.3 (Frame Type, whose first value is that of Image Type).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.charset import put_back, source_texts
from monai_sasm.io.dicom.conform import conform_enhanced
from monai_sasm.io.dicom.pixels import encode, read_stored
from monai_sasm.io.dicom.read import DicomSource, content_of, instance_uid
from monai_sasm.io.dicom.saving import mark_lossy, save, set_pixels
from monai_sasm.io.dicom.values import text_of
from monai_sasm.io.dicom.write import (
    SOURCE_IMAGE,
    SeriesFacts,
    append,
    code_item,
    derived_type,
    describe,
    drop_stale,
    equipment_item,
    facts_of,
    instance_item,
    readable,
    tell,
)
from monai_sasm.io.silence import quiet
from monai_sasm.io.volume import Volume

_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence")
_OF_ANOTHER = (  # the concatenation that the source is a part of, and a frame that may get another number (C.7.6.16)
    *("ConcatenationUID", "SOPInstanceUIDOfConcatenationSource", "ConcatenationFrameOffsetNumber"),
    *("InConcatenationNumber", "InConcatenationTotalNumber", "RepresentativeFrameNumber"),
)


@dataclass(frozen=True)
class _Object:
    """A source object with the frames that its new pixels are stored as, in the order of its file."""

    dataset: Dataset
    frames: tuple[int, ...]
    stored: NDArray[np.int32]
    changed: bool
    clipped: int


def write_objects(
    volume: Volume, source: DicomSource, building: Path, *, derivation: Derivation, keep_private: bool
) -> list[str]:
    """Write the frames of a volume, one object for each that they came from; see :func:`.write.write_series`.

    Args:
        volume: restored, ``(1, frames, rows, columns)``.
        source: where its frames came from.
        building: an empty folder.
        derivation: what was done.
        keep_private: copy private attributes.

    Returns:
        Names of the files.

    Raises:
        RefusedError: the frames were moved, for which functional groups would have to be invented; or the source has
            changed or is damaged.
    """
    if source.thickness is not None:
        raise RefusedError("thin slices of an Enhanced multi-frame object are not written as DICOM; write .nii.gz")
    changed = any(one.changed for one in _encoded(volume, source))
    names: list[str] = []
    mended: set[str] = set()
    clipped, series = 0, None
    for one in _encoded(volume, source):
        dataset = one.dataset
        with readable(), quiet():
            texts = source_texts(dataset)
            if series is None:
                series = facts_of(dataset, source, derivation if changed else derivation.unchanged, volume.modality)
                series = replace(series, codes=series.codes if changed else (), keep_private=keep_private)
            contents = [
                source.contents[number]
                for number, instance in enumerate(source.instances)
                if instance == instance_uid(dataset)
            ]
            contents += [source.owner] if source.owner else []
            mark_lossy(dataset, len(dataset.PixelData))
            _derive(dataset, one.frames, series, contents)
            mended.update(conform_enhanced(dataset, series.modality))
            put_back(texts)
            set_pixels(dataset, one.stored)
            names.append(f"IM{len(names) + 1:04d}.dcm")
            save(dataset, building / names[-1], source.files)
        clipped += one.clipped
    tell(volume.name, mended, clipped)
    return names


def _encoded(volume: Volume, source: DicomSource) -> Iterator[_Object]:
    for path in dict.fromkeys(source.paths):
        dataset, pixels = read_stored(path)
        numbers = [number for number, one in enumerate(source.paths) if one == path]
        numbers.sort(key=lambda number: source.frames[number])
        with quiet():
            same = instance_uid(dataset) == source.instances[numbers[0]]
        stored, changed, clipped = [], False, 0
        for number in numbers:
            frame = source.frames[number]
            if not same or content_of(pixels, frame) != source.contents[number]:
                raise RefusedError("a source file changed since it was read; restore the series again")
            scale = source.slopes[number], source.intercepts[number]
            new, lost = encode(volume.array[0, number], pixels, frame, *scale)
            stored.append(new)
            changed |= not np.array_equal(new, pixels.values[frame])
            clipped += lost
        yield _Object(dataset, tuple(source.frames[n] for n in numbers), np.stack(stored), changed, clipped)


def _derive(dataset: Dataset, frames: Items[int], series: SeriesFacts, contents: Items[str]) -> None:
    sop_class, instance = str(dataset.SOPClassUID), instance_uid(dataset)
    study, old_series = text_of(dataset, "StudyInstanceUID"), text_of(dataset, "SeriesInstanceUID")
    drop_stale(dataset, series.keep_private)
    for keyword in _OF_ANOTHER:
        dataset.pop(keyword, None)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = Sequence([groups[frame] for frame in frames])
    dataset.NumberOfFrames = len(frames)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[instance, series.derivation.digest, *map(str, contents)])
    dataset.SeriesInstanceUID = series.uid
    describe(dataset, series)
    said = [dataset[keyword] for keyword in ("DerivationDescription", "DerivationCodeSequence") if keyword in dataset]
    for element in said:
        del dataset[element.tag]
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    holders = [*shared, *dataset.PerFrameFunctionalGroupsSequence]
    for holder in holders:
        for keyword in _FRAME_TYPES:
            for item in holder.get(keyword) or []:
                item.FrameType = derived_type(text_of(item, "FrameType"))
    dataset.pop("MRAcquisitionType", None)  # of original images only, PS3.3 C.8.13.4
    if series.codes:  # of a copy nothing is said, for the macro needs a code of what was done
        _tell_sources(dataset, frames, said, instance_item(sop_class, instance))
        if study and old_series:
            _tell_evidence(dataset, study, old_series, instance_item(sop_class, instance))
    append(dataset, "ContributingEquipmentSequence", [equipment_item(series)])


def _tell_sources(dataset: Dataset, frames: Items[int], said: Items[DataElement], reference: Dataset) -> None:
    """Each frame says what was done to it, and of which frame it was made, after what it said before.

    What all frames share says it no longer: no macro may be in both (PS3.3 C.7.6.16).
    """
    shared: list[Dataset] = []
    for holder in dataset.get("SharedFunctionalGroupsSequence") or []:
        shared += holder.pop("DerivationImageSequence").value if "DerivationImageSequence" in holder else []
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        image = deepcopy(reference)
        image.ReferencedFrameNumber = frame + 1
        image.PurposeOfReferenceCodeSequence = Sequence([code_item(*SOURCE_IMAGE)])
        image.SpatialLocationsPreserved = "YES"
        step = Dataset()
        for element in said:  # of each frame, not of the object
            step.add(deepcopy(element))
        step.SourceImageSequence = Sequence([image])
        before = group.get("DerivationImageSequence") or shared
        group.DerivationImageSequence = Sequence([*deepcopy(list(before)), step])


def _tell_evidence(dataset: Dataset, study: str, series: str, reference: Dataset) -> None:
    within = Dataset()
    within.SeriesInstanceUID = series
    within.ReferencedSOPSequence = Sequence([reference])
    evidence = Dataset()
    evidence.StudyInstanceUID = study
    evidence.ReferencedSeriesSequence = Sequence([within])
    dataset.SourceImageEvidenceSequence = Sequence([evidence])
