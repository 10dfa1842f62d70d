"""How a refiner is applied: its tiles, how much of its change is used, and what the result's header says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F

from monai_sasm.bundles import Bundle
from monai_sasm.errors import BundleError
from monai_sasm.functional.mixing import blend
from monai_sasm.functional.tiling import blended_tiles
from monai_sasm.io.derivation import Derivation
from monai_sasm.types import ImageBatch, Modality, NoiseMap

TILE = 1024  # pixels; side of the tiles in which a refiner runs that does not cut the image itself
OVERLAP = 128  # pixels over which neighbouring tiles fade into each other
FORCED_LABEL = "SASM generative"  # in the series description, where a reader of images looks first


def refine(
    anchor: ImageBatch, refiner: Bundle, modality: Modality, strength: float, source: ImageBatch | None = None
) -> tuple[ImageBatch, NoiseMap]:
    """``anchor`` plus ``strength`` times the refiner's change, and its trust.

    A refiner of photos that is forced on CT or MR sees the slice stretched to [0, 1] in three equal channels; the mean
    of their changes is squeezed back.

    Args:
        anchor: ``(B, C, H, W)``, working scale of ``modality``.
        refiner: its own ``modality`` decides whether it is forced.
        modality: of the anchor.
        strength: 0 to 1.
        source: what the anchor was restored from, same shape, for refiners that look at it.

    Returns:
        Same shape as ``anchor``, and trust ``(B, 1, H, W)`` in [0, 1].
    """
    foreign = refiner.modality is not None and refiner.modality.profile.is_picture and not modality.profile.is_picture
    low, high = anchor.amin((1, 2, 3), keepdim=True), anchor.amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp_min(torch.finfo(anchor.dtype).tiny)
    images = [anchor] if source is None else [anchor, source]
    seen = torch.cat([((image - low) / span).expand(-1, 3, -1, -1) if foreign else image for image in images], 1)

    def run(part: ImageBatch) -> ImageBatch:
        start, *rest = part.chunk(len(images), 1)
        result = refiner.refine(start, *rest)
        return torch.cat([result.change(start), result.trust], 1).float()

    # a refiner that enlarges cuts tiles of its own
    both = run(seen) if refiner.scale > 1 else blended_tiles(seen, run, TILE, OVERLAP)
    change, trust = both[:, :-1], both[:, -1:]
    return anchor + strength * (span * change.mean(1, keepdim=True) if foreign else change), trust


def enlarge_and_refine(anchor: ImageBatch, refiner: Bundle, strength: float) -> ImageBatch:
    """The refiner's larger image, blended with the anchor enlarged by interpolation, ``(B, C, s * H, s * W)``."""
    return blend(enlarge(anchor, refiner.scale), refiner.enlarge(anchor), strength)


def enlarge(image: ImageBatch, factor: int) -> ImageBatch:
    """``image`` ``(B, C, H, W)`` interpolated to ``factor`` times its height and width; 1 gives ``image`` itself."""
    return image if factor == 1 else F.interpolate(image, scale_factor=factor, mode="bicubic")


def check_upscale(refiner: Bundle, modality: Modality) -> None:
    """Raise a :class:`BundleError` where the larger image of a refiner cannot be kept."""
    if not modality.profile.is_picture:
        raise BundleError(
            f"only photos may be enlarged, this image is {modality.value}: its pixels lie on the scanner's grid, and "
            "sizes would no longer be true; leave upscale out"
        )
    if refiner.scale == 1:
        raise BundleError(f"{refiner.name} does not enlarge; leave upscale out, or choose another refiner")


def refined_derivation(plain: Derivation, refiner: Bundle, modality: Modality, upscale: bool) -> Derivation:
    """The derivation of an image that was also refined; a forced refiner is named in every place a reader may look."""
    forced = refiner.modality is not modality
    chosen: dict[str, object] = {"refiner": refiner.name}
    if "hub" in refiner.metadata["sasm"]:  # model.pt is empty, its hash says nothing
        chosen["refiner_weights"] = cast(Any, refiner.network).source()
    if upscale:
        chosen["enlarged"] = refiner.scale
    summary = f"{plain.summary}, generative refinement by {refiner.name}"
    done = replace(
        plain,
        models={**plain.models, refiner.name: refiner.sha256},
        parameters={**plain.parameters, **chosen, **({"force_refiner": True} if forced else {})},
        summary=summary,
        repairs=(*plain.repairs, "detail"),
    )
    if not forced:
        return done
    made_for = refiner.modality.value if refiner.modality else "nothing"
    warning = f"{refiner.name} is made for {made_for} and was forced on {modality.value}: detail may be invented"
    return replace(done, summary=f"{summary}. {warning}", label=FORCED_LABEL, warning=warning)
