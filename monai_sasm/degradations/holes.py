"""Holes in a photo: pixels that were not measured, in the shapes of scratches, labels and stains.

Sizes are in pixels and not in shares of the image, so that crops for training meet the holes of whole photos.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.degradations.draws import uniform
from monai_sasm.types import ImageBatch, NoiseMap

SHAPES = ("strokes", "boxes", "blobs")
STROKE_WIDTH = (3.0, 16.0)  # pixels
STROKE_LENGTH = (8.0, 60.0)  # pixels of one straight piece
STROKE_PIECES = 5  # at most, joined end to end
BOX_SIDE = (6.0, 40.0)  # pixels
BLOB_WIDTH = 14.0  # pixels between the knots of the random field whose peaks are blobs
MAX_SHAPES = 1000  # per image; bounds the time of one draw


@dataclass(frozen=True)
class HolesParams:
    """One draw of :class:`Holes`.

    Args:
        known: ``(B, 1, H, W)``, 1 where the pixel was measured, 0 in holes.
    """

    known: Tensor

    @property
    def sigma(self) -> NoiseMap:
        """Zeros ``(B, 1, H, W)``: no noise is added."""
        return torch.zeros_like(self.known)

    @property
    def mask(self) -> NoiseMap:
        """1 in holes, ``(B, 1, H, W)``."""
        return 1 - self.known


class Holes:
    """Random holes, painted in one colour.

    Args:
        area: range of the share of the image that is missing, below 1; boxes and strokes may overshoot by one shape.
        shapes: kinds drawn from with equal chance, of ``strokes``, ``boxes`` and ``blobs``.
        value: what the holes are filled with, image unit.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.holes import Holes
        >>> holes = Holes(area=(0.2, 0.2), shapes=("blobs",))
        >>> params = holes.draw((1, 3, 64, 64), torch.Generator().manual_seed(0))
        >>> round(float(params.mask.mean()), 1)
        0.2
    """

    def __init__(
        self, area: tuple[float, float] = (0.05, 0.45), shapes: Sequence[str] = SHAPES, value: float = 0.0
    ) -> None:
        if not 0 <= area[0] <= area[1] < 1:
            raise ValueError(f"area must be a rising range of shares in [0, 1), got {tuple(area)}")
        if not shapes or not set(shapes) <= set(SHAPES):
            raise ValueError(f"shapes must be some of {SHAPES}, got {list(shapes)}")
        self.area, self.shapes, self.value = tuple(area), tuple(shapes), value

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> HolesParams:
        """Draw the holes for a batch ``(B, C, H, W)``."""
        batch, _, height, width = shape
        holes = torch.zeros(batch, 1, height, width, dtype=torch.bool)
        for image in holes[:, 0]:
            area = float(uniform(self.area, torch.rand(1, generator=generator)))
            kind = self.shapes[int(torch.randint(len(self.shapes), (1,), generator=generator))]
            if not area:
                continue
            if kind == "blobs":
                image |= _blobs(height, width, area, generator)
                continue
            paint = _stroke if kind == "strokes" else _box
            for _ in range(MAX_SHAPES):
                paint(image, generator)
                if float(image.float().mean()) >= area:
                    break
        return HolesParams((~holes).float())

    def apply(self, clean: ImageBatch, params: HolesParams) -> ImageBatch:
        """``clean`` ``(B, C, H, W)`` with its holes painted over."""
        return torch.where(params.known.to(clean.device) > 0, clean, clean.new_tensor(self.value))


def _stroke(holes: Tensor, generator: torch.Generator) -> None:
    """Paint straight pieces joined end to end, with round ends, into ``holes`` ``(H, W)``."""
    height, width = holes.shape
    radius = float(uniform(STROKE_WIDTH, torch.rand(1, generator=generator))) / 2
    pieces = int(torch.randint(1, STROKE_PIECES + 1, (1,), generator=generator))
    lengths = uniform(STROKE_LENGTH, torch.rand(pieces, generator=generator))
    # pieces turn by up to 120 degrees, as a hand that scribbles
    turns = uniform((-2 * math.pi / 3, 2 * math.pi / 3), torch.rand(pieces, generator=generator))
    angles = 2 * math.pi * torch.rand(1, generator=generator) + turns.cumsum(0)
    steps = lengths[:, None] * torch.stack([angles.sin(), angles.cos()], 1)  # (pieces, 2), rows and columns
    start = torch.rand(2, generator=generator) * torch.tensor([float(height), float(width)])
    points = torch.cat([start[None], start + steps.cumsum(0)])
    for first, last in itertools.pairwise(points):
        low = (torch.minimum(first, last) - radius).floor().clamp_min(0).long().tolist()
        high = (torch.maximum(first, last) + radius + 1).ceil().clamp_min(0).long().tolist()
        window = holes[low[0] : high[0], low[1] : high[1]]
        if window.numel():
            window |= _distance(window.shape, first - torch.tensor(low), last - first) <= radius


def _distance(shape: Sequence[int], start: Tensor, along: Tensor) -> Tensor:
    """Distance ``(H, W)`` of each pixel from the straight piece that begins at ``start`` and runs ``along``."""
    rows, columns = torch.arange(shape[0])[:, None] - start[0], torch.arange(shape[1])[None] - start[1]
    share = ((rows * along[0] + columns * along[1]) / along.square().sum()).clamp(0, 1)
    return torch.hypot(rows - share * along[0], columns - share * along[1])


def _box(holes: Tensor, generator: torch.Generator) -> None:
    """Paint an upright rectangle into ``holes`` ``(H, W)``."""
    sides = uniform(BOX_SIDE, torch.rand(2, generator=generator))
    centre = torch.rand(2, generator=generator) * torch.tensor([float(side) for side in holes.shape])
    top, left = (centre - sides / 2).round().clamp_min(0).long().tolist()
    bottom, right = (centre + sides / 2).round().clamp_min(1).long().tolist()
    holes[top : max(bottom, top + 1), left : max(right, left + 1)] = True


def _blobs(height: int, width: int, area: float, generator: torch.Generator) -> Tensor:
    """The highest ``area`` of a smooth random field ``(H, W)``."""
    knots = [math.ceil(side / BLOB_WIDTH) + 3 for side in (height, width)]
    field = torch.randn(1, 1, *knots, generator=generator)
    smooth = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)[0, 0]
    count = max(1, round(area * smooth.numel()))
    return smooth >= smooth.flatten().topk(count).values[-1]
