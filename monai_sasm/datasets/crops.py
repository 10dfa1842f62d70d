"""Random square crops of images held in memory, flipped and turned: the training sets of the pixel experts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from monai_sasm.datasets.draws import Draws, share
from monai_sasm.io.photo.eight_bits import read_bytes

Array = TypeVar("Array", bound="NDArray[Any]")
log = logging.getLogger(__name__)
_WAY = "give larger images, or a smaller side of the crop (crop_size, val_crop_size)"
_NAMED = 5  # images that are named


class CropDataset(Dataset[dict[str, torch.Tensor]]):
    """``length`` random crops per epoch from ``images``.

    An image is ``(C, H, W)``, float in working scale or uint8 (then divided by 255). Several aligned images (clean
    and degraded, say) are cropped together when each element of ``images`` is a tuple; ``keys`` names them.

    Args:
        images: arrays, or tuples of arrays of equal height and width; those less than ``size`` wide or high are left
            out, with a warning in the log that tells how many, and which by their number.
        size: side of the crop in pixels.
        length: crops per epoch, over all processes of a distributed run.
        keys: names of the aligned arrays in the returned dictionary.
        min_std: reject crops whose first array varies less than this (mostly air), at most ten times per crop.
        min_mean: reject crops whose first array has a smaller mean (air around the patient), as often.
        seed: seed of the crop positions; other crops in every epoch, process and loader worker, see
            :class:`~monai_sasm.datasets.draws.Draws`.
        fixed: the same crops every epoch, for validation.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.generic] | tuple[NDArray[np.generic], ...]],
        size: int,
        length: int,
        keys: Sequence[str] = ("image",),
        min_std: float = 0.0,
        min_mean: float = -float("inf"),
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        self.images = aligned(images)
        if not self.images:
            raise ValueError("CropDataset needs at least one image; check the training folder or file list")
        for entry in self.images:
            shapes = {array.shape[-2:] for array in entry}
            if len(entry) != len(keys) or len(shapes) != 1:
                raise ValueError(f"expected {len(keys)} aligned arrays {tuple(keys)}, got shapes {sorted(shapes)}")
        self.images = _large_enough(self.images, size)
        self.size, self.length, self.keys = size, length if fixed else share(length), tuple(keys)
        self.min_std, self.min_mean = min_std, min_mean
        self.fixed = fixed
        self.draws = Draws(seed)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One crop per key, ``(C, size, size)`` float32; ``index`` only ends the epoch, unless ``fixed``."""
        if index >= self.length:
            raise IndexError(index)
        if self.fixed:
            self.draws.restart(index)
        for _ in range(10):
            crops = self._crop()
            if crops[0].std() >= self.min_std and crops[0].mean() >= self.min_mean:
                break
        turns, flip = int(self.draws.random.integers(4)), bool(self.draws.random.integers(2))
        return {key: _to_tensor(crop, turns, flip) for key, crop in zip(self.keys, crops, strict=True)}

    def _crop(self) -> list[NDArray[np.generic]]:
        entry = self.images[self.draws.random.integers(len(self.images))]
        height, width = entry[0].shape[-2:]
        top = int(self.draws.random.integers(height - self.size + 1))
        left = int(self.draws.random.integers(width - self.size + 1))
        return [array[..., top : top + self.size, left : left + self.size] for array in entry]


class FileCropDataset(CropDataset):
    """Crops of more photos than memory holds: each crop reads its file.

    Args:
        files: photos; those less than ``size`` wide or high are passed over.
        size: side of the crop in pixels.
        length: crops per epoch.
        seed: seed of the choice of photos and crops.
        fixed: the same crops every epoch.
    """

    def __init__(self, files: Sequence[Path], size: int, length: int, seed: int = 0, fixed: bool = False) -> None:
        placeholder = np.zeros((3, size, size), np.uint8)
        super().__init__([placeholder], size, length, seed=seed, fixed=fixed)
        self.files = list(files)

    def _crop(self) -> list[NDArray[np.generic]]:
        for _ in range(100):
            photo = read_bytes(self.files[self.draws.random.integers(len(self.files))])
            if min(photo.shape[-2:]) >= self.size:
                self.images = [(photo,)]
                return super()._crop()
        raise ValueError(
            f"of 100 photos none was at least {self.size} pixels wide and high, the last {photo.shape}; {_WAY}"
        )


class WholeDataset(Dataset[dict[str, Any]]):
    """Whole images in order, for evaluation.

    Args:
        images: as for :class:`CropDataset`.
        keys: likewise.
        limit: take only so many, evenly spaced.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.generic] | tuple[NDArray[np.generic], ...]],
        keys: Sequence[str] = ("image",),
        limit: int | None = None,
    ) -> None:
        entries = aligned(images)
        count = len(entries) if limit is None else min(limit, len(entries))
        self.images = [entries[index] for index in np.linspace(0, len(entries) - 1, count).round().astype(int)]
        self.keys = tuple(keys)
        if any(len(entry) != len(self.keys) for entry in self.images):
            raise ValueError(f"expected {len(self.keys)} aligned arrays {self.keys} per image")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image per key, ``(C, H, W)`` float32, and ``name``, its number."""
        images = {key: _to_tensor(array, 0, False) for key, array in zip(self.keys, self.images[index], strict=True)}
        return {**images, "name": f"{index:04d}"}


def _large_enough(images: list[tuple[Array, ...]], size: int) -> list[tuple[Array, ...]]:
    """Images that a crop of ``size`` pixels fits into; the others are told by number, in the order they were read in.

    Raises:
        ValueError: there are none.
    """
    small = [number for number, entry in enumerate(images) if min(entry[0].shape[-2:]) < size]
    if not small:
        return images
    shown = ", ".join("{} ({} x {})".format(one + 1, *images[one][0].shape[-2:]) for one in small[:_NAMED])
    told = f"{len(small)} of {len(images)} images are less than {size} pixels high or wide: number {shown}"
    told += " and others" if len(small) > _NAMED else ""
    if len(small) == len(images):
        raise ValueError(f"{told}; {_WAY}")
    log.warning("left out: %s; %s", told, _WAY)
    return [entry for entry in images if min(entry[0].shape[-2:]) >= size]


def aligned(images: Sequence[Array | tuple[Array, ...]]) -> list[tuple[Array, ...]]:
    """Each image as a tuple of arrays, those that come alone as tuples of one."""
    return [entry if isinstance(entry, tuple) else (entry,) for entry in images]


def _to_tensor(crop: NDArray[np.generic], turns: int, flip: bool) -> torch.Tensor:
    turned = np.rot90(crop, turns, axes=(-2, -1))
    turned = np.ascontiguousarray(turned[..., ::-1] if flip else turned)
    tensor = torch.from_numpy(turned).float()
    return tensor / 255 if crop.dtype == np.uint8 else tensor
