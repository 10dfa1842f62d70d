"""Lesions in volumes: soft balls of known contrast in tissue, as :mod:`monai_sasm.degradations.lesions` in images.

A ball with centre c, radius R, contrast h and edge blur tau adds ``h Phi(-(|r - c| - R) / tau)``, Phi the normal
distribution function, to the voxels of a stack: neighbouring slices see the same lesion where they cut it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_sasm.degradations.draws import log_uniform, uniform

REACH = 3.0  # blurs beyond the radius at which a ball ends; a thousandth of its contrast is left


class LesionBalls:
    """Balls at random places in the tissue of a stack, brighter or darker than what is around them.

    Args:
        contrast: range of the contrast's magnitude in the unit of the image, drawn log-uniformly; the sign is even.
        diameter: range, voxels, drawn log-uniformly.
        tissue: range of intensities in which centres lie.
        density: balls per voxel of tissue.
        blur: range of the edge's standard deviation, voxels, drawn uniformly.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.lesion_balls import LesionBalls
        >>> stack = torch.full((8, 64, 64), 0.5)
        >>> LesionBalls(contrast=(0.05, 0.3)).draw(stack, torch.Generator().manual_seed(0)).shape
        torch.Size([8, 64, 64])
    """

    def __init__(
        self,
        contrast: tuple[float, float],
        diameter: tuple[float, float] = (1.5, 6.0),
        tissue: tuple[float, float] = (0.25, 1.0),
        density: float = 4e-4,
        blur: tuple[float, float] = (0.2, 0.6),
    ) -> None:
        for name, bounds in (("contrast", contrast), ("diameter", diameter), ("blur", blur)):
            if not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{name} must be an increasing range of positive numbers, got {tuple(bounds)}")
        if not tissue[0] < tissue[1]:
            raise ValueError(f"tissue must be an increasing range, got {tuple(tissue)}")
        if not 0 <= density < 1:
            raise ValueError(f"density counts balls per voxel and lies in [0, 1), got {density}")
        self.contrast, self.diameter, self.tissue = tuple(contrast), tuple(diameter), tuple(tissue)
        self.density, self.blur = density, tuple(blur)

    def draw(self, stack: Tensor, generator: torch.Generator) -> Tensor:
        """What to add to a stack ``(N, H, W)``, same shape; never so dark that the sum falls below 0."""
        places = ((stack > self.tissue[0]) & (stack < self.tissue[1])).nonzero()
        field = torch.zeros_like(stack, dtype=torch.float32)
        count = round(len(places) * self.density)
        if not count:
            return field
        centres = places[torch.randint(len(places), (count,), generator=generator)]
        radii, contrasts = (
            log_uniform(bounds, torch.rand(count, generator=generator)) for bounds in (self.diameter, self.contrast)
        )
        blurs = uniform(self.blur, torch.rand(count, generator=generator))
        signs = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
        for centre, diameter, contrast, blur in zip(
            centres.tolist(), radii.tolist(), (signs * contrasts).tolist(), blurs.tolist(), strict=True
        ):
            box, values = ball(field.shape, centre, diameter / 2, blur, height=contrast)
            field[box] += values
        return torch.maximum(field, -stack.float().clamp_min(0))


def ball(
    shape: Sequence[int],
    centre: Sequence[int],
    radius: float,
    blur: float,
    *,
    height: float = 1.0,
    sides: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: torch.dtype = torch.float32,
) -> tuple[tuple[slice, ...], Tensor]:
    """One ball in a stack: the box that it lies in, and what it adds to the voxels of that box.

    Args:
        shape: of the stack, ``(N, H, W)``.
        centre: voxel.
        radius, blur: in the unit of ``sides``.
        height: contrast of the ball.
        sides: of a voxel.
        dtype: of the values.
    """
    reach = [math.ceil((radius + REACH * blur) / side) for side in sides]
    box = tuple(slice(max(0, at - r), min(n, at + r + 1)) for at, r, n in zip(centre, reach, shape, strict=True))
    along = [
        (torch.arange(part.start, part.stop, dtype=dtype) - at) * side
        for part, at, side in zip(box, centre, sides, strict=True)
    ]
    squared = along[0][:, None, None] ** 2 + along[1][:, None] ** 2 + along[2] ** 2
    return box, height * 0.5 * torch.erfc((squared.sqrt() - radius) / (math.sqrt(2) * blur))
