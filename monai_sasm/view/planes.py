"""A whole study as NIfTI, for the three planes that the page shows by NiiVue."""

from __future__ import annotations

import numpy as np

from monai_sasm.errors import RefusedError
from monai_sasm.view.studies import Study


def as_nifti(study: Study, strength: float) -> bytes:
    """The first time point of a study as an uncompressed NIfTI file; CT in whole HU.

    Raises:
        RefusedError: it is no volume in space, or strength is above 0 and not all slices are restored.
    """
    import nibabel

    volume, axis = study.volume, study.volume.slice_axis
    if volume.affine is None or volume.array.ndim != 4 or axis is None:
        raise RefusedError("three planes need a volume with more than one slice")
    count = volume.array.shape[axis + 1]
    whole = np.moveaxis(volume.array[0], axis, 0).copy()
    if strength > 0:
        if study.one is None or len(study.one.done) < len(study.natives):
            raise RefusedError("wait until all slices are restored")
        for index in range(count):
            whole[index] += study.one.change(index, strength)[0]
    whole = np.moveaxis(whole, 0, axis)
    if volume.unit == "HU":
        whole = np.rint(whole).clip(-32768, 32767).astype(np.int16)
    image = nibabel.Nifti1Image(whole, volume.affine)
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())
