"""Digital CT phantoms: a body of water-like tissue with many ellipses in it, free of noise."""

from __future__ import annotations

import math

import torch

from monai_sasm.degradations.draws import uniform
from monai_sasm.degradations.lesions import LesionParams
from monai_sasm.types import ImageBatch

AIR, TISSUE = -1000.0, (0.0, 80.0)  # HU
INSERTS = 60  # ellipses per phantom
CONTRAST = (3.0, 1000.0)  # HU, magnitude, log-uniform
DIAMETER = (2.0, 60.0)  # mm, log-uniform
BLUR = (0.3, 0.7)  # mm, standard deviation of the scanner's point spread function
SMALL = (0.3, 0.5)  # half axes of the body, share of the field of view


def ellipse_phantoms(count: int, size: int, spacing: float, generator: torch.Generator) -> ImageBatch:
    """``(count, 1, size, size)`` in HU, at least -1024: known edges of every contrast from 3 to 1000 HU.

    Args:
        count: number of phantoms.
        size: side in pixels.
        spacing: pixel size, mm.
        generator: of the draws.
    """
    axes = size * uniform(SMALL, torch.rand(count, 1, 2, generator=generator)) * 0.95
    blur = uniform(BLUR, torch.rand(count, 1, generator=generator)) / spacing
    middle = torch.full((count, 1, 2), (size - 1) / 2)
    tissue = uniform(TISSUE, torch.rand(count, 1, generator=generator))
    body = LesionParams(middle, axes, torch.zeros(count, 1), blur, tissue - AIR, (size, size)).field
    radius = uniform(tuple(map(math.log, DIAMETER)), torch.rand(count, INSERTS, generator=generator)).exp() / 2
    stretch = torch.exp(0.4 * torch.rand(count, INSERTS, generator=generator))
    sign = torch.where(torch.rand(count, INSERTS, generator=generator) < 0.5, -1.0, 1.0)
    contrast = sign * uniform(tuple(map(math.log, CONTRAST)), torch.rand(count, INSERTS, generator=generator)).exp()
    # Even over the body: the square root makes the density of a disc uniform.
    turn = 2 * math.pi * torch.rand(count, INSERTS, generator=generator)
    out = 0.9 * torch.rand(count, INSERTS, generator=generator).sqrt()
    inserts = LesionParams(
        centre=middle + axes * torch.stack([out * turn.cos(), out * turn.sin()], dim=-1),
        axes=torch.stack([radius * stretch, radius / stretch], dim=-1) / spacing,
        angle=math.pi * torch.rand(count, INSERTS, generator=generator),
        blur=blur.expand(count, INSERTS),
        contrast=contrast,
        size=(size, size),
    )
    # one phantom after the other: all ellipses of one are in memory at a time, 0.14 GB for 384 pixels
    fields = [_only(inserts, number).field for number in range(count)]
    return (AIR + body + torch.cat(fields)).clamp(-1024.0, 3071.0)


def _only(lesions: LesionParams, number: int) -> LesionParams:
    """Those of one image."""
    one = slice(number, number + 1)
    return LesionParams(
        lesions.centre[one],
        lesions.axes[one],
        lesions.angle[one],
        lesions.blur[one],
        lesions.contrast[one],
        lesions.size,
    )
