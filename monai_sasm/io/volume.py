"""Volume: an image with its geometry, unit and source, as one immutable value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.acquisition import Acquisition
from monai_sasm.io.paged import paging
from monai_sasm.types import Modality

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the axes of DICOM and ITK (left, posterior, superior) to those of NIfTI and MONAI, and back: its own inverse."""
_THICK = 1.2  # a voxel axis this much longer than the next one is taken for the slice axis


@dataclass(frozen=True, eq=False)
class FinerSlices:
    """A grid with more and thinner slices over the same extent; see :mod:`monai_sasm.io.finer_slices`.

    Args:
        axis: spatial axis that counts the slices.
        thick: slices before.
        thin: slices after.
        affine: ``(4, 4)`` voxel index on the new grid -> RAS mm.
        old_index: ``(4, 4)`` voxel index on the new grid -> on the old one.
    """

    axis: int
    thick: int
    thin: int
    affine: NDArray[np.float64]
    old_index: NDArray[np.float64]


class Source:
    """What the writer of a format needs to give an image back; each format has its own subclass."""

    format: str
    """Name of the :class:`~monai_sasm.io.file_format.FileFormat` that writes it; empty where none read it."""
    keeps_axes: bool = False
    """Whether the axes are those of a NIfTI file; others are (slice, row, column), which NIfTI counts backwards."""

    states_meaning: bool = False
    """Whether headers say what the pixels are (magnitude, phase, a map, ...), so that their values need not."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What it was read from; nothing for what came from no file."""
        return ()

    @property
    def states_unit(self) -> bool:
        """Whether the file says itself in which unit its numbers are."""
        return False

    @property
    def at_equal_steps(self) -> bool:
        """Whether the affine places every slice; slices at uneven steps are written in their own format only."""
        return True

    @property
    def exif_orientation(self) -> int:
        """How viewers turn a photo: 1, as it is stored, to 8 (EXIF 2.3, tag 274)."""
        return 1

    def result_name(self, name: str) -> str:
        """Name of the file or folder that a result of the image called ``name`` is written to."""
        return f"{name}.nii.gz"

    def acquisition(self) -> Acquisition:
        """How the image was acquired, as far as its file says it."""
        return Acquisition()

    def on_finer_slices(self, grid: FinerSlices) -> Source:
        """The same for the image on a finer grid.

        Raises:
            RefusedError: the format cannot hold it.
        """
        raise RefusedError("thin slices cannot be written in the format of this image; convert it to NIfTI first")


def check_volume(image: object) -> None:
    """Refuse what is no :class:`Volume`, such as a bare array or a path.

    Raises:
        TypeError: the message says how to make one.
    """
    if not isinstance(image, Volume):
        raise TypeError(
            "an image is a Volume, one of open_images(PATH) or Volume.from_array(ARRAY, AFFINE, modality=...), "
            f"got {type(image).__name__}"
        )


@dataclass(frozen=True, eq=False)
class Volume:
    """One image or series; all of the package works on these, never on bare arrays and affines.

    Args:
        array: float32 ``(C, *spatial)`` with one to three spatial axes, in ``unit``. ``C`` is 3 for RGB, 1 for grey,
            CT and MR; a 4-D NIfTI holds its time points in ``C``.
        modality: what made it.
        affine: ``(4, 4)`` float64, voxel index (in the order of the spatial axes, zero-based, voxel centre) to
            RAS mm; for 2-D images the third index is 0. ``None`` for photos.
        slice_axis: which *spatial* axis (0, 1, 2) counts the acquired slices; ``None`` for a 2-D image.
        name: short label, after which results are named. Of a DICOM series a hash; else the name of the file, which may
            be a patient's.
        source: a :class:`Source`, which its format needs to give back header, dtype, bit depth, alpha and so on.
        geometry: how the slices lie (``regular``, ``tilted``, ``gap``, ``irregular``, ``single``, ``multiframe``).
        notes: what the reader had to decide (duplicates dropped, ...), for the manifest.
    """

    array: NDArray[np.float32]
    modality: Modality
    affine: NDArray[np.float64] | None = None
    slice_axis: int | None = None
    name: str = "image"
    source: Any = None
    geometry: str = "regular"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "modality", Modality(self.modality))
        if self.array.dtype != np.float32:
            raise TypeError(f"Volume.array must be float32, got {self.array.dtype}; convert with .astype(np.float32)")
        if not 2 <= self.array.ndim <= 4:
            raise ValueError(f"Volume.array must be (C, *spatial) with 1 to 3 spatial axes, got {self.array.shape}")
        if self.affine is not None and self.affine.shape != (4, 4):
            raise ValueError(f"Volume.affine must be 4x4, got {self.affine.shape}")
        if self.slice_axis is not None and not 0 <= self.slice_axis < self.array.ndim - 1:
            raise ValueError(
                f"slice_axis must name one of the {self.array.ndim - 1} spatial axes, got {self.slice_axis}"
            )

    @classmethod
    def from_array(
        cls,
        array: NDArray[Any],
        affine: NDArray[Any] | None = None,
        modality: Modality | str | None = None,
        *,
        name: str = "image",
        slice_axis: int | None = None,
        force_modality: bool = False,
    ) -> Volume:
        """An array of one's own as an image that can be restored and saved.

        Args:
            array: CT in HU or MR magnitude ``(H, W)``, ``(i, j, k)`` or, with time points, ``(T, i, j, k)``; a photo
                ``(H, W)`` or ``(3, H, W)``: unsigned integers over their full range, or floats in [0, 1]. Finite and
                real.
            affine: ``(4, 4)`` voxel index (in the order of the spatial axes) to RAS mm, as nibabel gives it; needed for
                all but photos, which have none.
            modality: what made it; never guessed.
            name: names the result, and stands in messages.
            slice_axis: spatial axis that counts the slices of a volume; by default a clearly thicker one, else the
                last, as in a NIfTI file.
            force_modality: take it although its values look like something else (labels, phase, CT that is not in HU).

        Raises:
            RefusedError: something of this is missing or contradicts itself; the message says what to pass instead.
        """
        from monai_sasm.io.from_array import volume_from_array

        return volume_from_array(
            array, affine, modality, name=name, slice_axis=slice_axis, force_modality=force_modality
        )

    def __repr__(self) -> str:
        """What it is and how large, on one line."""
        parts = [repr(self.name), f"{self.modality.value} in {self.unit}", str(self.array.shape)]
        if self.affine is not None:
            spacing = np.linalg.norm(self.affine[:3, : self.array.ndim - 1], axis=0)
            parts.append(" x ".join(f"{one:.3g}" for one in spacing) + " mm")
        return f"Volume({', '.join([*parts, self.geometry])})"

    @property
    def unit(self) -> str:
        """What the numbers mean: ``HU`` for CT, ``MR`` for magnitude of MR, ``sRGB`` in [0, 1] for photos."""
        return self.modality.profile.unit

    @property
    def exif_orientation(self) -> int:
        """How viewers turn a photo: 1, as it is stored, to 8; see :class:`monai_sasm.io.orientation.Orientation`."""
        return self.source.exif_orientation if isinstance(self.source, Source) else 1

    @property
    def is_finite(self) -> bool:
        """Whether no pixel is NaN or infinite."""
        parts = self.array if self.array.ndim < 3 else self.each_slice()
        return all(bool(np.isfinite(one).all()) for one in paging(parts))

    def with_array(self, array: NDArray[np.float32]) -> Volume:
        """The same geometry and header with new pixels of the same shape."""
        if array.shape != self.array.shape:
            raise ValueError(
                f"with_array keeps the geometry, so the shape must stay {self.array.shape}, got {array.shape}"
            )
        return replace(self, array=np.asarray(array, dtype=np.float32))

    def enlarged(self, array: NDArray[np.float32]) -> Volume:
        """The same photo with pixels ``(C, k * H, k * W)``; refused for images whose pixels lie on a grid in space."""
        if not self.modality.profile.is_picture or self.affine is not None:
            raise ValueError(f"only photos may be enlarged; a {self.modality.value} image must keep its geometry")
        channels, height, width = self.array.shape
        factor = array.shape[1] // height
        if array.shape != (channels, factor * height, factor * width):
            raise ValueError(f"an enlarged photo is a whole multiple of {self.array.shape}, got {array.shape}")
        return replace(self, array=np.asarray(array, dtype=np.float32))

    def as_slices(self) -> NDArray[np.float32]:
        """The image as a stack of 2-D slices ``(N, c, H, W)``: a view where possible.

        Photos give ``(1, C, H, W)``. Medical volumes give one single-channel slice per acquired slice (and time
        point): ``N = C * slices``, ``c = 1``; a 1-D profile is refused.
        """
        if self.array.ndim < 3:
            raise ValueError(f"a slice needs two spatial axes, got array of shape {self.array.shape}")
        if self.modality.profile.is_picture:
            return self.array[None]
        if self.slice_axis is None:
            return self.array[:, None]
        stack = np.moveaxis(self.array, self.slice_axis + 1, 1)  # (C, slices, H, W)
        return stack.reshape(-1, 1, *stack.shape[2:])

    @property
    def slices_shape(self) -> tuple[int, ...]:
        """``(N, c, H, W)`` of :meth:`as_slices`."""
        one = next(self.each_slice())
        return (self.array.size // one.size, *one.shape)

    @property
    def stack_length(self) -> int:
        """Slices of one time point, of the N of :meth:`as_slices`; 1 of a photo."""
        return self.slices_shape[0] // (1 if self.modality.profile.is_picture else len(self.array))

    def stacks(self) -> list[Volume]:
        """The time points as volumes of their own, views, in the order of :meth:`each_slice`; the image itself where
        there is but one, and of a photo.
        """
        if self.modality.profile.is_picture or len(self.array) == 1:
            return [self]
        return [replace(self, array=self.array[index : index + 1]) for index in range(len(self.array))]

    def each_slice(self) -> Iterator[NDArray[np.float32]]:
        """The slices of :meth:`as_slices` one after the other, ``(c, H, W)``, each a view: nothing is ever copied."""
        if self.array.ndim < 3:
            raise ValueError(f"a slice needs two spatial axes, got array of shape {self.array.shape}")
        if self.modality.profile.is_picture:
            yield self.array
            return
        stack = self.array[:, None] if self.slice_axis is None else np.moveaxis(self.array, self.slice_axis + 1, 1)
        for channel in stack:
            for one in channel:
                yield one[None]

    def slice_at(self, index: int) -> NDArray[np.float32]:
        """One slice of :meth:`each_slice` ``(c, H, W)``, a view; ``index`` counts through all time points."""
        if self.modality.profile.is_picture:
            return self.array
        if self.slice_axis is None:
            return self.array[index : index + 1]
        channel, place = divmod(index, self.array.shape[self.slice_axis + 1])
        return np.moveaxis(self.array[channel], self.slice_axis, 0)[place][None]

    def from_slices(self, slices: NDArray[np.float32]) -> Volume:
        """Inverse of :meth:`as_slices`: put a processed stack ``(N, c, H, W)`` back on this geometry."""
        if self.modality.profile.is_picture:
            return self.with_array(slices[0])
        if self.slice_axis is None:
            return self.with_array(slices[:, 0])
        moved = np.moveaxis(self.array, self.slice_axis + 1, 1)
        return self.with_array(np.moveaxis(slices.reshape(moved.shape), 1, self.slice_axis + 1))


def files_of(volume: Volume) -> tuple[Path, ...]:
    """The files that an image was read from, whose permissions hold for what is made of it."""
    return volume.source.files if isinstance(volume.source, Source) else ()


def thickest_axis(affine: NDArray[np.float64]) -> int:
    """The axis whose voxels are clearly thicker than along the others, else the last; ``affine`` ``(4, 4)``."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    thickest = int(np.argmax(spacing))
    return thickest if spacing[thickest] > _THICK * np.sort(spacing)[1] else 2
