"""Which experts must run for these weights, in which tiles, and the mixed result: memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby

import torch

from monai_sasm.functional.mixing import softmix
from monai_sasm.functional.precision import reduced_precision
from monai_sasm.functional.tiling import HALO, TILE, cut, tiled, tiles
from monai_sasm.gate.display import to_display
from monai_sasm.gate.mobilenet import STRIDE
from monai_sasm.gate.pixel_weights import PixelWeights
from monai_sasm.gate.routing import block_weights
from monai_sasm.io.memory import give_back
from monai_sasm.types import ExpertLogits, ExpertWeights, ImageBatch, Modality, NoiseMap

NEGLIGIBLE = 1e-3  # an expert whose weight stays below this in a tile is not run there
GATE_TILE, GATE_HALO = 896, 256  # pixels; a gate looks further than experts


def restore_tiled(
    image: ImageBatch,
    sigma: NoiseMap,
    weights: ExpertWeights | PixelWeights,
    experts: Mapping[int, Callable[[ImageBatch, NoiseMap], ImageBatch]],
    *,
    tile: int = TILE,
    halo: int = HALO,
    progress: Callable[[int], None] | None = None,
    slab: ImageBatch | None = None,
    in_place: bool = False,
) -> ImageBatch:
    """Run the needed experts tile by tile and mix their outputs.

    Args:
        image: ``(B, C, H, W)``, working scale.
        sigma: noise map ``(B, 1, H, W)``, same scale.
        weights: ``(B, E, H, W)``.
        experts: class index -> ``restore(image, sigma)``; classes without an expert count as the identity.
        tile: side of a core in pixels, a multiple of 32.
        halo: pixels read around a core, a multiple of 32.
        progress: called with ``B`` after each tile.
        slab: the image between its neighbours, see :mod:`monai_sasm.functional.neighbours`; given to the experts in its
            place.
        in_place: put the result where the image was; not with a slab.

    Returns:
        The mixed image, same shape.
    """
    mixed, maps = image if in_place else image.clone(), PixelWeights.of(weights)
    height, width = image.shape[-2:]
    several = height > tile + 2 * halo or width > tile + 2 * halo
    above, reached = image, 0  # the rows that the tiles above looked at, as they came, and where they begin
    for rows, parts in groupby(tiles(height, width, tile, halo), lambda part: part.core[0]):
        row = list(parts)
        first, last = row[0].window[0].start, row[0].window[0].stop
        came = image[..., first:last, :] if slab is None else slab[..., first:last, :]
        if in_place:
            came = came.clone()
            came[..., : rows.start - first, :] = above[..., first - reached : rows.start - reached, :]
            reached = max(first, rows.stop - halo)
            above = came[..., reached - first : rows.stop - first, :].clone()
        for part in row:
            core_weights = maps.part(part.core)
            most = core_weights.amax((0, 2, 3)).tolist()
            needed = [index for index in experts if most[index] > NEGLIGIBLE]
            if needed:
                window, window_sigma = came[..., part.window[1]], cut(sigma, part.window)
                outputs = {index: cut(experts[index](window, window_sigma), part.inner) for index in needed}
                here = cut(mixed, part.core)  # still as it came
                here.copy_(softmix(here, outputs, core_weights))
                if several:
                    give_back()  # what networks held for a tile, before the next one adds to it
            if progress is not None:
                progress(len(image))
    return mixed


def gate_logits(
    image: ImageBatch,
    sigma: NoiseMap,
    network: Callable[[ImageBatch, NoiseMap], ExpertLogits],
    *,
    tile: int = GATE_TILE,
    halo: int = GATE_HALO,
) -> ExpertLogits:
    """Scores ``(B, E, ceil(H / 8), ceil(W / 8))`` of a display image of any size, computed tile by tile."""
    return tiled(network, image, sigma, tiling=partial(tiles, tile=tile, halo=halo), stride=STRIDE)


def gate_weights(
    image: ImageBatch,
    sigma: NoiseMap,
    network: Callable[[ImageBatch, NoiseMap], ExpertLogits],
    *,
    modality: Modality,
    allowed: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    floor: float = 0.0,
) -> ExpertWeights:
    """Mixing weights ``(B, E, H, W)`` of an image in working scale by a gate; class 0 is the identity.

    Args:
        image: ``(B, C, H, W)``, ``C`` 1 or 3.
        sigma: noise map ``(B, 1, H, W)``, working scale.
        network: display image and noise map -> scores.
        modality: of the image; decides the display window, and where nothing is, see
            :mod:`monai_sasm.gate.occupied`.
        allowed, temperature, top_k, floor: see :func:`monai_sasm.gate.routing.route`.
    """
    blocks = gate_blocks(
        image, sigma, network, modality=modality, allowed=allowed, temperature=temperature, top_k=top_k
    )
    return PixelWeights.of_blocks(blocks, image, modality, floor).whole()


def gate_blocks(
    image: ImageBatch,
    sigma: NoiseMap,
    network: Callable[[ImageBatch, NoiseMap], ExpertLogits],
    *,
    modality: Modality,
    allowed: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    precision: str = "float32",
) -> ExpertWeights:
    """Weights ``(B, E, ceil(H / 8), ceil(W / 8))`` of blocks of pixels; arguments as for :func:`gate_weights`.

    Args:
        precision: of the gate, see :mod:`monai_sasm.functional.precision`.
    """

    def score(window: ImageBatch, level: NoiseMap) -> ExpertLogits:
        shown, shown_level = to_display(window, level, modality)
        return network(shown.contiguous(memory_format=torch.channels_last), shown_level)

    with torch.inference_mode(), reduced_precision(precision, image.device):
        several = max(image.shape[-2:]) > GATE_TILE + 2 * GATE_HALO
        if several:
            give_back()  # what the noise estimate held, before the gate adds to it
        logits = gate_logits(image, sigma, score)
        if several:
            give_back()
        return block_weights(logits.float(), allowed.to(logits.device), temperature, top_k=top_k)
