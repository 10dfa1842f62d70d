"""Neighbouring slices of a stack brought over one another: patients move between the slices of a 2-D acquisition."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TraceKeys
from numpy.typing import NDArray

from monai_sasm.transforms.itk import like, pixels_of, rigid_search, spacing_of
from monai_sasm.transforms.slice_meta import told_axis

LEVELS = ((4, 2.0), (2, 1.0), (1, 0.0))  # shrink factor and smoothing in pixels, coarse to fine


class AlignSlicesd(MapTransform, InvertibleTransform):
    """Each slice turned and shifted within its plane onto its neighbour, from the middle of the stack outwards.

    Rigid registration by normalised correlation (SimpleITK). Anatomy itself changes from slice to slice, and a
    registration follows it (a bent tube comes out straight); hence corrections beyond ``max_shift`` or ``max_angle``
    are not believed and left out, and the stack as a whole keeps its mean place. The inverse moves every slice back;
    grid and affine never change.

    Args:
        keys: keys with volumes ``(C, I, J, K)``; the first channel is registered, the others follow.
        slice_axis: which spatial axis counts the slices; by default what the metadata say
            (:mod:`monai_sasm.transforms.slice_meta`), else the last.
        max_shift: mm.
        max_angle: degrees.
        order: interpolation, 1 linear or 3 cubic B-spline.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slice_axis: int | None = None,
        max_shift: float = 6.0,
        max_angle: float = 6.0,
        order: int = 3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if order not in (1, 3):
            raise ValueError(f"order is 1 (linear) or 3 (cubic B-spline), got {order}")
        self.slice_axis, self.max_shift, self.max_angle, self.order = slice_axis, max_shift, max_angle, order

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Align each stack."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            axis = slice_axis_of(image, self.slice_axis)
            stacks = np.moveaxis(pixels_of(image), axis + 1, 1)  # (C, n, H, W)
            spacing = tuple(side for index, side in enumerate(spacing_of(image)) if index != axis)
            moves = self._moves(stacks[0], spacing)
            moved = np.moveaxis(self._moved(stacks, moves, spacing, back=False), 1, axis + 1)
            result[key] = like(moved, image)
            extra = {"moves": torch.from_numpy(moves), "slice_axis": axis}
            self.push_transform(result[key], extra_info=extra)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Move each slice back to where it was acquired."""
        result = dict(data)
        for key in self.key_iterator(result):
            applied = self.pop_transform(result[key])[TraceKeys.EXTRA_INFO]
            image, axis = result[key], int(applied["slice_axis"])
            stacks = np.moveaxis(pixels_of(image), axis + 1, 1)
            spacing = tuple(side for index, side in enumerate(spacing_of(image)) if index != axis)
            moves = np.asarray(applied["moves"], np.float64)
            result[key] = like(np.moveaxis(self._moved(stacks, moves, spacing, back=True), 1, axis + 1), image)
        return result

    def _moves(self, stack: NDArray[np.float32], spacing: tuple[float, ...]) -> NDArray[np.float64]:
        """``(n, 3)``: angle (rad) and shift (mm) from the place in the aligned slice to that in the acquired one."""
        count, middle = len(stack), len(stack) // 2
        moves = np.zeros((count, 3))
        aligned = stack.copy()
        for numbers in (range(middle + 1, count), range(middle - 1, -1, -1)):
            for number in numbers:
                neighbour = aligned[number - 1 if number > middle else number + 1]
                move = self._registered(neighbour, stack[number], spacing)
                small = abs(np.degrees(move[0])) <= self.max_angle and np.hypot(*move[1:]) <= self.max_shift
                moves[number] = move if small else 0
                aligned[number] = self._moved(stack[None, number : number + 1], moves[number : number + 1], spacing)[
                    0, 0
                ]
        return moves - moves.mean(0) if moves.any() else moves

    def _registered(
        self, fixed: NDArray[np.float32], moving: NDArray[np.float32], spacing: tuple[float, ...]
    ) -> NDArray[np.float64]:

        if fixed.std() == 0 or moving.std() == 0:
            return np.zeros(3)  # an empty slice has no place
        levels = [level for level in LEVELS if min(fixed.shape) // level[0] >= 16] or [LEVELS[-1]]
        method = rigid_search(levels)
        method.SetMetricAsCorrelation()
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInitialTransform(_transform(np.zeros(3), fixed.shape, spacing), inPlace=False)
        found = method.Execute(_plane(fixed, spacing), _plane(moving, spacing))
        return np.asarray(found.GetParameters(), np.float64)

    def _moved(
        self,
        stacks: NDArray[np.float32],
        moves: NDArray[np.float64],
        spacing: tuple[float, ...],
        back: bool = False,
    ) -> NDArray[np.float32]:
        """Every slice of ``(C, n, H, W)`` resampled under its move; beyond the border the nearest pixel goes on."""
        import SimpleITK

        result = stacks.copy()
        interpolator = SimpleITK.sitkBSpline if self.order == 3 else SimpleITK.sitkLinear
        for number, move in enumerate(moves):
            if not move.any():
                continue
            transform = _transform(move, stacks.shape[2:], spacing)
            resampler = SimpleITK.ResampleImageFilter()
            resampler.SetTransform(transform.GetInverse() if back else transform)
            resampler.SetInterpolator(interpolator)
            resampler.SetUseNearestNeighborExtrapolator(True)
            for channel in result:
                plane = _plane(channel[number], spacing)
                resampler.SetReferenceImage(plane)
                channel[number] = SimpleITK.GetArrayFromImage(resampler.Execute(plane)).T
        return result


def slice_axis_of(image: torch.Tensor, given: int | None = None) -> int:
    """Spatial axis that counts the slices of ``(C, *spatial)``: as given, as the metadata say, or the last."""
    told = told_axis(image)
    axis = given if given is not None else told if told is not None else image.ndim - 2
    if image.ndim != 4 or not 0 <= axis < 3:
        raise ValueError(
            f"expected a volume (C, I, J, K) and a slice axis from 0 to 2, got {tuple(image.shape)}, {axis}"
        )
    return axis


def _plane(values: NDArray[np.float32], spacing: tuple[float, ...]) -> Any:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing)
    return image


def _transform(move: NDArray[np.float64], shape: tuple[int, ...], spacing: tuple[float, ...]) -> Any:
    import SimpleITK

    transform = SimpleITK.Euler2DTransform()
    transform.SetCenter([(size - 1) / 2 * side for size, side in zip(shape, spacing, strict=True)])
    transform.SetParameters([float(part) for part in move])
    return transform
