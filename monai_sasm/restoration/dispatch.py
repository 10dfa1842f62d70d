"""Which experts must run for these weights, in which tiles, and the mixed result: memory stays bounded.

An image larger than a tile is cut into cores that touch without overlap; each is restored with a halo of surrounding
pixels that is thrown away afterwards. With a halo as wide as the networks effectively look, and tile borders on
multiples of their strides, a tiled run equals the whole-image run, so there is no seam to hide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from monai_sasm.functional.mixing import softmix
from monai_sasm.functional.tiling import HALO, TILE, cut, tiles
from monai_sasm.types import ExpertLogits, ExpertWeights, ImageBatch, NoiseMap

NEGLIGIBLE = 1e-3  # an expert whose weight stays below this in a tile is not run there


def restore_tiled(
    image: ImageBatch,
    sigma: NoiseMap,
    weights: ExpertWeights,
    experts: Mapping[int, Callable[[ImageBatch, NoiseMap], ImageBatch]],
    tile: int = TILE,
    halo: int = HALO,
    progress: Callable[[int], None] | None = None,
    slab: ImageBatch | None = None,
) -> ImageBatch:
    """Run the needed experts tile by tile and mix their outputs.

    Args:
        image: ``(B, C, H, W)``, working scale.
        sigma: noise map ``(B, 1, H, W)``, same scale.
        weights: ``(B, E, H, W)``.
        experts: class index -> ``restore(image, sigma)``; classes without an expert count as the identity.
        tile: side of a core in pixels, a multiple of 32.
        halo: pixels read around a core, a multiple of 32.
        progress: called with 1 after each tile.
        slab: the image between its neighbours, see :mod:`monai_sasm.functional.neighbours`; given to the experts in
            its place.

    Returns:
        The mixed image, same shape.
    """
    mixed = image.clone()
    height, width = image.shape[-2:]
    for part in tiles(height, width, tile, halo):
        core_weights = cut(weights, part.core)
        needed = [index for index in experts if float(core_weights[:, index].max()) > NEGLIGIBLE]
        if needed:
            window, window_sigma = cut(image if slab is None else slab, part.window), cut(sigma, part.window)
            outputs = {index: cut(experts[index](window, window_sigma), part.inner) for index in needed}
            cut(mixed, part.core).copy_(softmix(cut(image, part.core), outputs, core_weights))
        if progress is not None:
            progress(1)
    return mixed


def spread_tiled(
    image: ImageBatch,
    sigma: NoiseMap,
    uncertainty: Callable[[ImageBatch, NoiseMap], NoiseMap],
    tile: int = TILE,
    halo: int = HALO,
) -> NoiseMap:
    """How unsure an expert is, ``(B, 1, H, W)`` in working scale; arguments as for :func:`restore_tiled`."""
    spread = torch.zeros_like(image[:, :1])
    for part in tiles(image.shape[-2], image.shape[-1], tile, halo):
        window = uncertainty(cut(image, part.window), cut(sigma, part.window))
        cut(spread, part.core).copy_(cut(window, part.inner))
    return spread


def score_tiled(
    image: ImageBatch,
    sigma: NoiseMap,
    gate: Callable[[ImageBatch, NoiseMap], ExpertLogits],
    stride: int = 8,
    tile: int = 1024,
    halo: int = 256,
) -> ExpertLogits:
    """Gate logits ``(B, E, ceil(H/stride), ceil(W/stride))`` of an image of any size, computed tile by tile."""
    height, width = image.shape[-2:]
    scores: torch.Tensor | None = None
    for part in tiles(height, width, tile, halo):
        window = gate(cut(image, part.window), cut(sigma, part.window))
        if scores is None:
            scores = window.new_zeros(*window.shape[:2], -(-height // stride), -(-width // stride))
        cut(scores, _blocks(part.core, stride)).copy_(cut(window, _blocks(part.inner, stride)))
    if scores is None:
        raise ValueError(f"an image needs at least one pixel, got shape {tuple(image.shape)}")
    return scores


def _blocks(where: tuple[slice, slice], stride: int) -> tuple[slice, slice]:
    """The blocks of ``stride`` pixels that rows and columns touch."""
    rows, columns = (slice(part.start // stride, -(-part.stop // stride)) for part in where)
    return rows, columns
