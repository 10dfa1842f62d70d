"""Derived Enhanced CT and MR objects: the source copied as a template, with new pixels and where each frame came from.

What a derived multi-frame object must carry: PS3.3 C.7.6.16.2.6 (Derivation Image macro of each frame), C.8.13.2.1.4
(Source Image Evidence Sequence), C.8.15.2.1 and C.8.13.3 (Frame Type, whose first value is that of Image Type).
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.conform import conform_enhanced
from monai_sasm.io.dicom.pixels import StoredPixels, encode
from monai_sasm.io.dicom.read import DicomSource, instance_uid
from monai_sasm.io.dicom.values import quiet, text_of
from monai_sasm.io.dicom.write import (
    SMOOTHING,
    SOURCE_IMAGE,
    SeriesFacts,
    append,
    code_item,
    describe,
    drop_stale,
    equipment_item,
    instance_item,
    mark_lossy,
    save,
    set_pixels,
)
from monai_sasm.io.volume import Volume

_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence")


def write_object(
    volume: Volume, source: DicomSource, path: Path, *, of: tuple[Dataset, StoredPixels], series: SeriesFacts
) -> tuple[int, tuple[str, ...]]:
    """Write the frames of a volume that came from one file, in the order of that file.

    Args:
        volume: restored, ``(1, frames, rows, columns)``.
        source: where its frames came from.
        path: new file.
        of: the file that they came from, which is used up, and its pixels.
        series: what all objects of the derived series share.

    Returns:
        How many pixels had to be clipped, and keywords of attributes that were mended.

    Raises:
        RefusedError: the frames were moved, for which a functional group would have to be invented.
    """
    if source.thickness is not None:
        raise RefusedError("thin slices of an Enhanced multi-frame object are not written as DICOM; write .nii.gz")
    dataset, pixels = of
    with quiet():
        instance = instance_uid(dataset)
        numbers = [number for number, one in enumerate(source.instances) if one == instance]
        numbers.sort(key=lambda number: source.frames[number])
        stored, clipped = [], 0
        for number in numbers:
            scale = source.slopes[number], source.intercepts[number]
            frame, lost = encode(volume.array[0, number], pixels, source.frames[number], *scale)
            stored.append(frame)
            clipped += lost
        mark_lossy(dataset, len(dataset.PixelData))
        _derive(dataset, [source.frames[number] for number in numbers], series)
        mended = conform_enhanced(dataset, series.modality)
        set_pixels(dataset, np.stack(stored))
        save(dataset, path)
    return clipped, mended


def _derive(dataset: Dataset, frames: Items[int], series: SeriesFacts) -> None:
    sop_class, instance = str(dataset.SOPClassUID), instance_uid(dataset)
    study, old_series = text_of(dataset, "StudyInstanceUID"), text_of(dataset, "SeriesInstanceUID")
    drop_stale(dataset, series.keep_private)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = Sequence([groups[frame] for frame in frames])
    dataset.NumberOfFrames = len(frames)
    chosen = ["frames", *map(str, frames)]
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[instance, series.derivation.digest, *chosen])
    dataset.SeriesInstanceUID = series.uid
    describe(dataset, series, SMOOTHING)
    description = dataset.DerivationDescription
    del dataset.DerivationDescription, dataset.DerivationCodeSequence  # said of each frame
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    holders = [*shared, *dataset.PerFrameFunctionalGroupsSequence]
    for holder in holders:
        for keyword in _FRAME_TYPES:
            for item in holder.get(keyword) or []:
                item.FrameType = ["DERIVED", *list(item.FrameType)[1:]]
    dataset.pop("MRAcquisitionType", None)  # of original images only, PS3.3 C.8.13.4
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        image = instance_item(sop_class, instance)
        image.ReferencedFrameNumber = frame + 1
        image.PurposeOfReferenceCodeSequence = Sequence([code_item(*SOURCE_IMAGE)])
        image.SpatialLocationsPreserved = "YES"
        step = Dataset()
        step.DerivationDescription = description
        step.DerivationCodeSequence = Sequence([code_item(*SMOOTHING)])
        step.SourceImageSequence = Sequence([image])
        group.DerivationImageSequence = Sequence([step])
    if study and old_series:
        within = Dataset()
        within.SeriesInstanceUID = old_series
        within.ReferencedSOPSequence = Sequence([instance_item(sop_class, instance)])
        evidence = Dataset()
        evidence.StudyInstanceUID = study
        evidence.ReferencedSeriesSequence = Sequence([within])
        dataset.SourceImageEvidenceSequence = Sequence([evidence])
    append(dataset, "ContributingEquipmentSequence", [equipment_item(series)])
