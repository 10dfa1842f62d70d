"""fastMRI: one HDF5 file per volume with its k-space and, for training sets, the reference reconstruction.

``kspace`` is complex, ``(slices, coils, rows, columns)`` or, single-coil, ``(slices, rows, columns)``, with the readout
oversampled; ``reconstruction_rss`` (or ``reconstruction_esc`` of emulated single coils) is the cropped magnitude
``(slices, H, W)``; ``ismrmrd_header`` is XML with matrix size and field of view; test sets are undersampled and have a
``mask`` (Knoll et al. 2020, "fastMRI", Radiology: AI 2(1)). Without a reconstruction the magnitude is made here:

    m = sqrt( sum_c | F^-1 k_c |^2 ),   cropped to the matrix of the reconstruction.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.datasets.naming import existing, natural, selected
from monai_sasm.degradations.kspace import to_image
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.volume import Volume
from monai_sasm.optional import require
from monai_sasm.types import Modality

RECONSTRUCTIONS = ("reconstruction_rss", "reconstruction_esc")
INSTALL = "pip install 'monai-sasm[fastmri]'"

_SPACE = "{*}encoding/{*}reconSpace/"


def files(root: str | Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Path]:
    """Volumes below a folder, in natural order.

    Args:
        root: for example ``singlecoil_train``.
        include: names without ``.h5`` to take; all when empty.
        exclude: names to leave out.

    Raises:
        FileNotFoundError: no such folder, nothing in it, or a name that is not there.
    """
    folder = existing(root)
    found = {path.stem: path for path in sorted(folder.rglob("*.h5"), key=lambda path: natural(path.stem))}
    if not found:
        raise FileNotFoundError(f"no fastMRI volume in {folder}; expected files like file1000001.h5")
    return [found[name] for name in selected(list(found), include, exclude)]


def read(path: str | Path, undersampled: bool = False) -> Volume:
    """The magnitude of one file.

    Args:
        path: ``.h5`` file.
        undersampled: also take k-space with a sampling mask and no reconstruction, zero-filled.

    Returns:
        ``array`` ``(1, slices, H, W)`` in the file's unit, ``slice_axis`` 0. The affine has the voxel size in mm, 1 mm
        where the header does not tell; the files hold neither position nor orientation.

    Raises:
        ValueError: no fastMRI file, or an undersampled one.
        MissingExtraError: h5py is not installed.
    """
    h5py = require("h5py", "reading fastMRI files", INSTALL)
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            magnitude, header = _magnitude(file, path.name, undersampled), _header(file)
    except OSError as error:
        raise ValueError(
            f"{path.name} cannot be read as HDF5: it is damaged or of another kind; copy it again"
        ) from error
    spacing, told = _spacing(header)
    notes = ("fastMRI files hold no position and no orientation",)
    return Volume(
        array=np.ascontiguousarray(magnitude[None], np.float32),
        modality=Modality.MR,
        affine=np.diag([*spacing, 1.0]),
        slice_axis=0,
        name=path.stem,
        notes=notes if told else (*notes, "the voxel size is not in the file; 1 mm is assumed"),
    )


def slices(
    root: str | Path,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    min_std: float = 0.02,
) -> list[NDArray[np.float32]]:
    """All slices ``(1, H, W)`` in working scale, as :func:`monai_sasm.datasets.images.slices` gives them.

    Args:
        root, include, exclude: see :func:`files`.
        limit: only the first so many volumes.
        min_std: leave out slices that vary less (ends of the stack), in working scale.

    Raises:
        FileNotFoundError: no slice is left.
    """
    found: list[NDArray[np.float32]] = []
    for path in files(root, include, exclude)[:limit]:
        volume = read(path)
        parts = scaling_for(volume).forward(volume.as_slices())
        found += [np.ascontiguousarray(part) for part in parts if float(part.std()) >= min_std]
    if not found:
        raise FileNotFoundError(f"no slice in {root} varies by {min_std} or more")
    return found


def from_kspace(kspace: NDArray[np.complex64], size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Root-sum-of-squares magnitude ``(slices, H, W)`` of ``(slices[, coils], rows, columns)``.

    Args:
        kspace: centred, complex.
        size: crop to the central ``(H, W)``; the whole image when ``None``.
    """
    coils = kspace[:, None] if kspace.ndim == 3 else kspace
    if coils.ndim != 4:
        raise ValueError(f"k-space is (slices, coils, rows, columns) or (slices, rows, columns), got {kspace.shape}")
    # Slice by slice: fifteen coils of a whole volume in image space would take gigabytes.
    images = [
        to_image(torch.from_numpy(np.ascontiguousarray(one))).abs().square().sum(0).sqrt().numpy() for one in coils
    ]
    magnitude = np.stack(images)
    return _cropped(magnitude, size) if size is not None else magnitude


def _magnitude(file: Any, name: str, undersampled: bool) -> NDArray[np.float32]:
    for key in RECONSTRUCTIONS:
        if key in file:
            return np.asarray(file[key], np.float32)
    if "kspace" not in file:
        raise ValueError(f"{name} holds neither {' nor '.join(RECONSTRUCTIONS)} nor kspace; it is no fastMRI file")
    if "mask" in file and not undersampled:
        raise ValueError(f"{name} is undersampled and has no reconstruction; pass undersampled=True to zero-fill it")
    space = _header(file)
    return from_kspace(np.asarray(file["kspace"], np.complex64), _matrix(space))


def _header(file: Any) -> ElementTree.Element | None:
    if "ismrmrd_header" not in file:
        return None
    try:
        return ElementTree.fromstring(file["ismrmrd_header"][()])
    except ElementTree.ParseError:
        return None


def _matrix(header: ElementTree.Element | None) -> tuple[int, int] | None:
    """Rows and columns of the reconstruction; fastMRI's rows run along x."""
    sizes = [_number(header, f"{{*}}matrixSize/{{*}}{axis}") for axis in "xy"]
    return None if None in sizes else (int(sizes[0] or 0), int(sizes[1] or 0))


def _spacing(header: ElementTree.Element | None) -> tuple[tuple[float, float, float], bool]:
    """Voxel size (slice, row, column) in mm, and whether the header tells it."""
    spacing = []
    for axis in "zxy":
        length, count = (_number(header, f"{{*}}{kind}/{{*}}{axis}") for kind in ("fieldOfView_mm", "matrixSize"))
        if not length or not count:
            return (1.0, 1.0, 1.0), False
        spacing.append(length / count)
    return (spacing[0], spacing[1], spacing[2]), True


def _number(header: ElementTree.Element | None, place: str) -> float | None:
    if header is None:
        return None
    text = header.findtext(_SPACE + place)
    return None if text is None else float(text)


def _cropped(magnitude: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    height, width = (min(wanted, there) for wanted, there in zip(size, magnitude.shape[-2:], strict=True))
    top, left = (magnitude.shape[-2] - height) // 2, (magnitude.shape[-1] - width) // 2
    return magnitude[..., top : top + height, left : left + width]
