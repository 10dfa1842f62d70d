"""Images in tiles: hard-cut ones with a halo, overlapping ones that fade into each other, and padding to whole blocks.

Deterministic networks look no further than a halo: cores touch without overlap, each is restored with a halo of
surrounding pixels that is thrown away afterwards. With a halo as wide as the networks effectively look, and tile
borders on multiples of their strides, a tiled run equals the whole-image run, so there is no seam to hide. A generative
network draws texture and looks across the whole tile: its tiles overlap and are blended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 768  # pixels; side of a core
HALO = 128  # pixels on each side
BAND = 2**21  # pixels that are worked on at once where it is done pixel by pixel
ALIGN = 32  # tile borders fall on multiples of the coarsest stride


@dataclass(frozen=True)
class Tile:
    """A core to be written and the window (core and halo) to be read, as slices of height and width."""

    core: tuple[slice, slice]
    window: tuple[slice, slice]

    @property
    def inner(self) -> tuple[slice, slice]:
        """The core's place inside the window."""
        rows, columns = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, columns


def tiles(height: int, width: int, tile: int = TILE, halo: int = HALO) -> list[Tile]:
    """Cores that cover ``height`` x ``width`` once, with their windows; a small image is one tile without halo.

    Raises:
        ValueError: ``tile`` or ``halo`` is not a multiple of 32 (networks would see other phases in each tile).
    """
    if tile <= 0 or halo < 0 or tile % ALIGN or halo % ALIGN:
        raise ValueError(f"tile and halo must be multiples of {ALIGN}, tile above 0, got tile={tile}, halo={halo}")
    return [
        Tile(core=(rows[0], columns[0]), window=(rows[1], columns[1]))
        for rows in _spans(height, tile, halo)
        for columns in _spans(width, tile, halo)
    ]


def tiled(
    run: Callable[..., Tensor],
    *images: Tensor,
    tiling: Callable[[int, int], Iterable[Tile]] | None = tiles,
    scale: int = 1,
    stride: int = 1,
) -> Tensor:
    """``run`` on aligned images tile by tile; without seams if it looks no further than the halo.

    Args:
        run: windows ``(B, C, h, w)`` of the images -> ``(B, C', scale * h / stride, scale * w / stride)``.
        images: ``(B, C, H, W)`` each.
        tiling: (height, width) -> tiles; ``None`` runs whole images.
        scale: enlargement by ``run``.
        stride: pixels of the image per pixel of the result, which is rounded up; borders of tiles are multiples of it.

    Returns:
        ``(B, C', ceil(scale * H / stride), ceil(scale * W / stride))``.

    Raises:
        ValueError: ``run`` gives something of another size; a larger result would be cut as if it were right.
    """

    def place(where: tuple[slice, slice]) -> tuple[slice, slice]:
        rows, columns = (slice(s.start * scale // stride, -(-s.stop * scale // stride)) for s in where)
        return rows, columns

    height, width = images[0].shape[-2:]
    if tiling is None:
        return _fitting(run(*images), images[0], scale, stride)
    result: Tensor | None = None
    for part in tiling(height, width):
        shown = [cut(image, part.window) for image in images]
        window = _fitting(run(*shown), shown[0], scale, stride)
        if result is None:
            size = -(-height * scale // stride), -(-width * scale // stride)
            result = window.new_empty(*window.shape[:2], *size)
        cut(result, place(part.core)).copy_(cut(window, place(part.inner)))
    if result is None:
        raise ValueError(f"an image needs at least one pixel, got shape {tuple(images[0].shape)}")
    return result


def _fitting(result: Tensor, image: Tensor, scale: int, stride: int) -> Tensor:
    wanted = (len(image), *(-(-side * scale // stride) for side in image.shape[-2:]))
    if result.ndim != 4 or (len(result), *result.shape[-2:]) != wanted:
        count, height, width = wanted
        raise ValueError(
            f"the network must give ({count}, C, {height}, {width}) for {tuple(image.shape)}, got {tuple(result.shape)}"
        )
    return result


def bands(height: int, width: int) -> Iterator[slice]:
    """Rows of an image, some at a time: what is done to them one after the other takes no copy of a large image."""
    rows = max(ALIGN, BAND // width // ALIGN * ALIGN)
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def cut(image: torch.Tensor, where: tuple[slice, slice]) -> torch.Tensor:
    """A view of rows and columns, all batches and channels."""
    return image[..., where[0], where[1]]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad bottom and right by reflection; images too small to reflect are extended by their border."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    mode = "reflect" if bottom < x.shape[-2] and right < x.shape[-1] else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode) if bottom or right else x


def blended_tiles(image: Tensor, run: Callable[[Tensor], Tensor], tile: int, overlap: int, scale: int = 1) -> Tensor:
    """``run`` on tiles of ``image``, each fading linearly into its neighbours over ``overlap`` pixels.

    Where tiles agree their blend is what they agree on. An image no larger than a tile is handed over as it is.

    Args:
        image: ``(B, C, H, W)``.
        run: tile ``(B, C, h, w)`` -> ``(B, C', scale * h, scale * w)``; ``h`` is ``tile``, or ``H`` if that is smaller.
        tile: side of a tile in pixels.
        overlap: pixels shared by neighbours, less than ``tile``; where the last tile would stand out, more.
        scale: enlargement by ``run``.

    Returns:
        ``(B, C', scale * H, scale * W)``.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be at least 0 and less than the tile, got tile={tile} and overlap={overlap}")
    height, width = image.shape[-2:]
    if height <= tile and width <= tile:
        return run(image)
    total = weights = image.new_zeros(())
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            result = run(image[..., top : top + tile, left : left + tile])
            fade = _fade(result.shape[-2], scale * overlap)[:, None] * _fade(result.shape[-1], scale * overlap)
            if total.ndim == 0:
                total = result.new_zeros(*result.shape[:2], scale * height, scale * width)
                weights = result.new_zeros(scale * height, scale * width)
            rows = slice(scale * top, scale * top + result.shape[-2])
            columns = slice(scale * left, scale * left + result.shape[-1])
            total[..., rows, columns] += result * fade.to(result)
            weights[rows, columns] += fade.to(weights)
    return total / weights


def _spans(length: int, tile: int, halo: int) -> Iterator[tuple[slice, slice]]:
    if length <= tile + 2 * halo:
        yield slice(0, length), slice(0, length)
        return
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield slice(start, stop), slice(max(start - halo, 0), min(stop + halo, length))


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length``; the last one ends with it."""
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _fade(length: int, overlap: int) -> Tensor:
    """Weights that rise from both ends over ``overlap`` pixels and are 1 between."""
    position = torch.arange(length) + 0.5
    return (torch.minimum(position, length - position) / max(overlap, 1)).clamp(max=1)
