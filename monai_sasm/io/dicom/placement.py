"""Header of a derived DICOM slice that lies where no slice was acquired: its place, its thickness, and its sources.

PS3.3 C.7.6.2 (Image Plane: position of the first pixel's centre, slice thickness), C.8.3.1 (Spacing Between Slices) and
C.7.6.1.1.4 (Source Image Sequence).
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from monai_sasm.io.dicom.geometry import normal_of
from monai_sasm.io.dicom.read import DicomSource

_OF_THE_ACQUIRED_SLICE = ["InStackPositionNumber", "StackID", "SliceProgressionDirection"]


def place(dataset: Dataset, source: DicomSource, number: int) -> None:
    """Give the header of an acquired slice the place of thin slice ``number`` (zero-based, in array order)."""
    position, thickness = np.asarray(source.positions[number]), source.thickness
    if thickness is None:
        raise ValueError("only slices on a new grid are placed; those of the source keep their own positions")
    dataset.ImagePositionPatient = [format_number_as_ds(float(part)) for part in position]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = format_number_as_ds(thickness)
    if "SliceLocation" in dataset:
        dataset.SliceLocation = format_number_as_ds(float(position @ normal_of(source.orientation)))
    if "ImagesInAcquisition" in dataset:
        dataset.ImagesInAcquisition = len(source.paths)
    dataset.InstanceNumber = number + 1
    for keyword in _OF_THE_ACQUIRED_SLICE:
        if keyword in dataset:
            delattr(dataset, keyword)
