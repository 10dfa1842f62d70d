"""A synthetic CT series on disk, for timing and memory measurements; its pixels are a noisy phantom, its header holds
no person.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZE = 512  # pixels
SPACING, THICKNESS = 0.7, 2.0  # mm
ROOT_UID = "1.2.826.0.1.3680043.8.498.1"  # pydicom's own root, free for examples


def body_slices(slices: int, size: int = SIZE) -> Iterator[NDArray[np.float64]]:
    """Slices ``(size, size)`` in HU: an ellipse of 40 HU in air, with white noise of 60 HU that is another in each."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size] / size - 0.5
    body = np.where((row / 0.35) ** 2 + (column / 0.45) ** 2 < 1, 40.0, -1000.0)
    noise = 60 * random.standard_normal((size, size))
    for index in range(slices):
        yield body + np.roll(noise, 7 * index, axis=1)


def write_ct_series(folder: Path, slices: int, size: int = SIZE, study: int = 1) -> None:
    """Write ``slices`` CT images of ``size`` x ``size`` pixels, uncompressed, one file each.

    Args:
        folder: created; receives ``0000.dcm`` and so on.
        slices: number of files.
        size: rows and columns.
        study: number of the study, which all UIDs follow from.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    for index, image in enumerate(body_slices(slices, size)):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{ROOT_UID}.{study}.3.{index + 1}")
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = UID(f"{ROOT_UID}.{study}.3.{index + 1}")
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT_UID}.{study}.1", f"{ROOT_UID}.{study}.2"
        dataset.FrameOfReferenceUID, dataset.PatientID, dataset.PatientName = (
            f"{ROOT_UID}.{study}.4",
            "PHANTOM",
            "PHANTOM",
        )
        dataset.PatientBirthDate, dataset.PatientSex, dataset.PositionReferenceIndicator = "", "O", ""
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20000101", "000000", "1", ""
        dataset.ReferringPhysicianName, dataset.Manufacturer, dataset.KVP = "", "PHANTOM", "120"
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, index + 1
        dataset.AcquisitionNumber, dataset.ImageType = 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient = [-size * SPACING / 2, -size * SPACING / 2, index * THICKNESS]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [SPACING, SPACING], THICKNESS
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        stored = np.clip(image + 1024, 0, 4095).astype("<u2")
        dataset.PixelData = stored.tobytes()
        dataset.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)
