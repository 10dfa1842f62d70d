"""Where the measured data lie, how they are read, and their hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.nifti.names import is_nifti_name
from monai_sasm.io.photo.eight_bits import read_bytes

Image = NDArray[np.float32]
CHECKOUT = Path(__file__).resolve().parents[2]


class DataAbsentError(FileNotFoundError):
    """A protocol's data are not there; the protocol is skipped with this message."""


def data_root(given: Path | None = None) -> Path:
    """``given``, else the folder named by the environment variable SASM_DATA, else ``../shared/data`` beside the
    checkout.
    """
    return Path(given or os.environ.get("SASM_DATA") or CHECKOUT.parent / "shared" / "data")


def files(folder: Path, pattern: str = "*", limit: int | None = None) -> list[Path]:
    """Sorted files of a folder.

    Raises:
        DataAbsentError: there are none.
    """
    found = sorted(path for path in folder.glob(pattern) if path.is_file())[:limit]
    if not found:
        raise DataAbsentError("data not found")
    return found


def data_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the sorted file names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: (path.name, str(path))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def photo(path: Path) -> Image:
    """A photo as RGB ``(3, H, W)`` or grey ``(1, H, W)`` in [0, 1], without colour management or rotation."""
    return read_bytes(path, keep_grey=True).astype(np.float32) / np.float32(255)


def cbsd68(root: Path, limit: int | None = None) -> list[Path]:
    """The 68 colour photos of CBSD68, sorted by name."""
    names = root / "natural" / "cbsd68_ids.txt"
    if not names.is_file():
        raise DataAbsentError("data not found")
    stems = sorted(names.read_text(encoding="utf-8").split())
    return [root / "natural" / "bsds500" / "val" / f"{stem}.jpg" for stem in stems][:limit]


def ct_pairs(folder: Path, limit: int | None = None) -> Iterator[tuple[str, Image, Image, float]]:
    """Full- and quarter-dose slices: (name, full, quarter, spacing in mm), images ``(1, H, W)`` in HU.

    The name holds the reconstruction kernel, as in ``L096_D45f_i021``.
    """
    for full in files(folder / "full", limit=limit):
        hu, spacing = ct_slice(full)
        yield full.name.split(".")[0], hu, ct_slice(folder / "quarter" / full.name)[0], spacing


def ct_slice(path: Path) -> tuple[Image, float]:
    """One CT slice of a DICOM or NIfTI file: ``(1, H, W)`` in HU as displayed, pixel spacing in mm."""
    if is_nifti_name(path):
        stack, spacing = mr_slices(path)
        return stack[0][None], spacing
    import pydicom

    dataset = pydicom.dcmread(path, force=True)
    hu = dataset.pixel_array.astype(np.float32) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    return hu[None].astype(np.float32), float(dataset.PixelSpacing[0])


def mr_slices(path: Path) -> tuple[Image, float]:
    """All slices ``(N, H, W)`` of a NIfTI volume along its last axis, rows first, and the pixel spacing in mm."""
    import nibabel

    image = nibabel.load(path)
    array = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
    return np.ascontiguousarray(array.transpose(2, 1, 0)), float(image.header.get_zooms()[0])  # type: ignore[attr-defined]
