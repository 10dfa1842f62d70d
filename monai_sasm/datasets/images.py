"""Training images read into memory: photos as uint8, CT and MR slices in working scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.functional.neighbours import neighbours_of, slabs
from monai_sasm.io.formats import open_images
from monai_sasm.io.photo.eight_bits import read_bytes
from monai_sasm.io.same_grid import check_same_grid
from monai_sasm.io.volume import Volume
from monai_sasm.io.walk import is_hidden
from monai_sasm.types import Modality

PHOTO_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def photos(
    folders: Sequence[str | Path], exclude: Iterable[str] = (), limit: int | None = None, recursive: bool = False
) -> list[NDArray[np.uint8]]:
    """All photos in ``folders`` as RGB uint8 ``(3, H, W)``; arguments and errors as for :func:`photo_files`."""
    return [read_bytes(path) for path in photo_files(folders, exclude, limit, recursive)]


def photo_files(
    folders: Sequence[str | Path], exclude: Iterable[str] = (), limit: int | None = None, recursive: bool = False
) -> list[Path]:
    """Files of all photos in ``folders``, sorted by name.

    Args:
        folders: one or more folders.
        exclude: file stems to leave out, for example a test set's.
        limit: keep only the first so many.
        recursive: look into subfolders, too.

    Raises:
        FileNotFoundError: nothing found.
    """
    excluded = set(exclude)
    paths = [
        path
        for folder in folders
        for path in sorted(Path(folder).rglob("*") if recursive else Path(folder).glob("*"))
        if path.suffix.lower() in PHOTO_SUFFIXES and path.stem not in excluded and not is_hidden(path)
    ][:limit]
    if not paths:
        raise FileNotFoundError(f"no photos ({', '.join(sorted(PHOTO_SUFFIXES))}) in {[str(f) for f in folders]}")
    return paths


ISOTROPIC = 1.3  # longest over shortest voxel side up to which a volume can be cut in any direction


def slices(
    paths: Sequence[str | Path], modality: str, min_std: float = 0.02, all_planes: bool = False, neighbours: int = 0
) -> list[NDArray[np.float32]]:
    """All 2-D slices ``(1, H, W)`` of CT or MR files and folders, in working scale.

    Args:
        paths: NIfTI files or DICOM folders.
        modality: ``"CT"`` or ``"MR"``.
        min_std: leave out slices that vary less (air, end slices), in working scale.
        all_planes: cut volumes with nearly cubic voxels in all three directions, not only along their slices.
        neighbours: on each side, given with the slice where they are close: ``(2 n + 1, H, W)``, see
            :mod:`monai_sasm.functional.neighbours`.
    """
    found = []
    for path in paths:
        for volume in (cut for whole in open_images(path, modality) for cut in _cuts(whole, all_planes)):
            stack = _working_scale(volume, volume)
            around = _between(volume, stack, neighbours)
            found += [slab for slice_, slab in zip(stack, around, strict=True) if float(slice_.std()) >= min_std]
    if not found:
        raise FileNotFoundError(f"no {modality} slices in {[str(path) for path in paths]}")
    return found


def paired(
    folders: Sequence[str | Path],
    modality: str,
    clean_name: str = "clean",
    noisy_name: str = "noisy",
    stems: Sequence[str] = (),
    exclude: Sequence[str] = (),
    min_std: float = 0.0,
    all_planes: bool = False,
    neighbours: int = 0,
) -> list[tuple[NDArray[np.float32], ...]]:
    """Aligned pairs ``(clean, noisy)`` from ``<folder>/{clean,noisy}``, matched by file name; hidden files are ignored.

    Args:
        folders: one or more folders.
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``; both images of a pair share the clean image's scaling, and
            those of each of its time points.
        clean_name: subfolder of the targets, for example ``full`` for full dose.
        noisy_name: subfolder of the degraded images, for example ``quarter``.
        stems: keep only files whose name starts with one of these; all when empty.
        exclude: leave out files whose name starts with one of these.
        min_std: leave out pairs whose clean slice varies less, see :func:`slices`.
        all_planes: likewise.
        neighbours: given with the degraded slice, ``(2 n + 1, H, W)``; the clean one is ``(1, H, W)``.

    Raises:
        FileNotFoundError: a file has no partner, or a folder holds none at all.
        RefusedError: the two images of a pair do not lie pixel on pixel, see :mod:`monai_sasm.io.same_grid`.
    """
    found: list[tuple[NDArray[np.float32], ...]] = []
    for base in map(Path, folders):
        names = [_names(base / kind) for kind in (clean_name, noisy_name)]
        if names[0] != names[1] or not names[0]:
            raise FileNotFoundError(
                f"{base} must hold {clean_name!r} and {noisy_name!r} with the same file names; without a partner: "
                f"{sorted(names[0] ^ names[1])[:5] or 'no files at all'}"
            )
        for name in sorted(names[0]):
            if name.startswith(tuple(stems) or "") and not name.startswith(tuple(exclude)):
                files = (base / clean_name / name, base / noisy_name / name)
                found += _pair(*files, Modality(modality), all_planes, neighbours)
    return [pair for pair in found if float(pair[0].std()) >= min_std] if min_std > 0 else found


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*") if not is_hidden(path)}


def _pair(
    clean_path: Path, noisy_path: Path, modality: Modality, all_planes: bool, neighbours: int
) -> list[tuple[NDArray[np.float32], ...]]:
    clean, noisy = next(open_images(clean_path, modality)), next(open_images(noisy_path, modality))
    try:
        check_same_grid(clean, noisy)
    except RefusedError as error:
        raise RefusedError(f"{clean_path.name}: {error}") from None
    pairs: list[tuple[NDArray[np.float32], ...]] = []
    for target in _cuts(clean, all_planes):
        given = replace(noisy, slice_axis=target.slice_axis)
        around = _between(given, _working_scale(given, target), neighbours)
        pairs += zip(_working_scale(target, target), around, strict=True)
    return [tuple(_colour(part) if modality.profile.channels == 3 else part for part in pair) for pair in pairs]


def _colour(photo: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(photo, 3, axis=0) if len(photo) == 1 else photo


def _cuts(volume: Volume, all_planes: bool) -> list[Volume]:
    if not all_planes or volume.affine is None or volume.array.ndim != 4:
        return [volume]
    sides = np.linalg.norm(volume.affine[:3, :3], axis=0)
    cubic = sides.max() < ISOTROPIC * sides.min()
    return [replace(volume, slice_axis=axis) for axis in range(3)] if cubic else [volume]


def _between(volume: Volume, stack: NDArray[np.float32], neighbours: int) -> list[NDArray[np.float32]]:
    """Each slice of ``stack``, those of ``volume``, with its neighbours where they are close."""
    count = neighbours_of(volume, neighbours)
    if not count:
        return list(stack)
    return [np.concatenate(around) for around in slabs(stack, count, len(stack) // len(volume.array))]


def _working_scale(volume: Volume, clean: Volume) -> NDArray[np.float32]:
    """Its slices ``(N, c, H, W)``, each in the scaling of the time point of ``clean`` that it lies in."""
    from monai_sasm.functional.intensity import scalings_for

    scalings = scalings_for(clean)
    return np.stack([scale.forward(one) for scale, one in zip(scalings, volume.as_slices(), strict=True)])
