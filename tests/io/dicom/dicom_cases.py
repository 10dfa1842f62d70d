"""Synthetic CT and MR series: 16 slices of 64 x 64, and the ways in which real folders go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monai_sasm.io.dicom import index as series
from monai_sasm.io.entry import Entry
from monai_sasm.io.walk import files_below

SLICES, SIZE, STEP, SPACING = 16, 64, 2.5, (0.8, 0.7)
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
PADDING = -2000
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def uid(*parts: object) -> str:
    """A UID that is the same in every run."""
    return str(generate_uid(entropy_srcs=["dicom_cases", *map(str, parts)]))


def stored_values(number: int) -> NDArray[np.int16]:
    """Pixels that tell slices and axes apart: 20 per slice, a ramp along rows, half a ramp along columns, noise."""
    row, column = np.mgrid[:SIZE, :SIZE]
    noise = np.random.default_rng(number).integers(-5, 6, (SIZE, SIZE))
    return (1000 + 20 * number + 2 * row + column // 2 + noise).astype(np.int16)


def ct_slice(
    number: int, *, series: str = "plain", position: Sequence[float] | None = None, **changes: object
) -> Dataset:
    """One CT slice; ``changes`` set (or, with ``None``, delete) attributes by keyword."""
    dataset = _patient_and_study("CT", CT, series, number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP, dataset.ConvolutionKernel = "120", "B30f"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
    dataset.PixelPaddingValue = PADDING
    pixels = stored_values(number)
    pixels[:4, :4] = PADDING
    _place_and_fill(dataset, pixels, position or (-20.0, -30.0, STEP * number), signed=True, bits=16)
    return changed(dataset, changes)


def mr_slice(number: int, *, series: str = "mr", position: Sequence[float] | None = None, **changes: object) -> Dataset:
    """One MR slice, 12 bits unsigned, without rescale."""
    dataset = _patient_and_study("MR", MR, series, number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
    dataset.MRAcquisitionType, dataset.RepetitionTime, dataset.EchoTime = "2D", "500", "10"
    dataset.EchoTrainLength, dataset.EchoNumbers = "1", "1"
    _place_and_fill(dataset, stored_values(number), position or (-20.0, -30.0, STEP * number), signed=False, bits=12)
    return changed(dataset, changes)


def changed(dataset: Dataset, changes: dict[str, object]) -> Dataset:
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def file_meta_of(dataset: Dataset) -> FileMetaDataset:
    """File meta information of a data set in Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def save(dataset: Dataset, path: Path) -> Path:
    """Write as Explicit VR Little Endian (or the syntax the data set was compressed to)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = file_meta_of(dataset)
    meta.TransferSyntaxUID = getattr(dataset, "file_meta", meta).TransferSyntaxUID
    whole = FileDataset(str(path), dataset, preamble=b"\0" * 128, file_meta=meta)
    if hasattr(whole, "original_encoding"):
        whole.save_as(path, enforce_file_format=True)
    else:  # pydicom 2.4
        whole.is_little_endian, whole.is_implicit_VR = True, False
        whole.save_as(path, write_like_original=False)
    return path


def save_all(slices: Sequence[Dataset], folder: Path) -> Path:
    """One file a slice; the names are not in slice order and have no extension."""
    for number, dataset in enumerate(slices):
        save(dataset, folder / f"f{(number * 7) % 101:03d}")
    return folder


def tilted(number: int, degrees: float = 15.0) -> Dataset:
    """Gantry tilt about the left-right axis: slices step along the table, not along their normal."""
    angle = np.radians(degrees)
    orientation = [1.0, 0.0, 0.0, 0.0, round(float(np.cos(angle)), 9), round(float(-np.sin(angle)), 9)]
    return ct_slice(number, series="tilt", ImageOrientationPatient=orientation)


def other_object(sop_class: str, modality: str) -> Dataset:
    """A data set of another kind without pixels (structured report, structure set, ...)."""
    return _patient_and_study(modality, sop_class, f"other-{modality}", 0)


def enhanced_ct(positions: Sequence[float], *, time_points: int = 1, **changes: object) -> Dataset:
    """Enhanced CT with one frame per position (z, mm) and time point; frames in the given order."""
    dataset = _patient_and_study("CT", ENHANCED_CT, "enhanced", 0)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    frames, pixels = [], []
    for time in range(time_points):
        for z in positions:
            frames.append(_frame(z, time))
            pixels.append(stored_values(round(z / STEP)) + 500 * time)
    _place_and_fill(dataset, np.stack(pixels), (0.0, 0.0, 0.0), signed=True, bits=16)
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    orientation, measures, rescale, shared = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), STEP
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Items([orientation]), Items([measures])
    shared.PixelValueTransformationSequence = Items([rescale])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    return changed(dataset, changes)


def _frame(z: float, time: int) -> Dataset:
    frame, place, content = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [-20.0, -30.0, z]
    content.StackID, content.TemporalPositionIndex = "1", time + 1
    frame.PlanePositionSequence, frame.FrameContentSequence = Items([place]), Items([content])
    return frame


def _patient_and_study(modality: str, sop_class: str, series: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid(series, number)
    dataset.PatientName, dataset.PatientID = "Müller^Jane", "SECRET-17"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid(series)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid("frame"), ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240102", "101500", "1"
    dataset.SeriesDate, dataset.SeriesTime = "20240102", "102000"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20240102", "102000"
    dataset.ContentDate, dataset.ContentTime = "20240102", "102100"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.Modality, dataset.Manufacturer = modality, "Synthetic"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 3, number + 1, 1
    dataset.SeriesDescription, dataset.PatientPosition, dataset.BodyPartExamined = "Abdomen 2.5", "HFS", "ABDOMEN"
    return dataset


def _place_and_fill(
    dataset: Dataset, pixels: NDArray[np.int16], position: Sequence[float], *, signed: bool, bits: int
) -> None:
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), list(AXIAL)
    dataset.PixelSpacing, dataset.SliceThickness = list(SPACING), STEP
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = pixels.astype("<i2" if signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def index(path: Path) -> list[Entry]:
    """DICOM series in a file or below a folder."""
    return series.index(file for file, reason in files_below(path) if not reason)
