"""From gate scores to mixing weights: pure functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monai_sasm.gate.mobilenet import STRIDE
from monai_sasm.types import ExpertLogits, ExpertWeights


def route(
    logits: ExpertLogits,
    size: tuple[int, int],
    allowed: torch.Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    floor: float = 0.0,
) -> ExpertWeights:
    r"""Weights :math:`w_k = \mathrm{softmax}_k(z_k / T)`, masked, thinned out and smoothly enlarged.

    Args:
        logits: ``(B, E, h, w)`` of blocks of 8 x 8 pixels, the last ones cut off by ``size``; any other number of
            blocks is stretched over ``size``. Class 0 is the identity.
        size: height and width of the result; enlargement is bilinear on the weights, so it keeps their sum.
        allowed: ``(E,)`` bool; classes that may act at all. The identity always may. A forbidden class gets exactly 0.
        temperature: above 0; larger is softer, towards 0 the winner takes all.
        top_k: how many experts (identity not counted) may act on one image: those with the largest mean weight
            over the image, so that maps stay smooth; the others' weight goes to the identity.
        floor: experts below this weight at a pixel leave it alone; the identity takes over their weight.

    Returns:
        ``(B, E, *size)``, at least 0, sum 1 over ``E``.

    Raises:
        ValueError: an option is out of range or shapes do not fit.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be in [0, 1), got {floor}")
    return enlarge(block_weights(logits, allowed, temperature, top_k=top_k), size, floor)


def block_weights(
    logits: ExpertLogits, allowed: torch.Tensor | None = None, temperature: float = 1.0, *, top_k: int | None = None
) -> ExpertWeights:
    """The weights of :func:`route` per block of pixels, ``(B, E, h, w)``; see there."""
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; use top_k=1 to let one expert act")
    if top_k is not None and top_k < 0:
        raise ValueError(f"top_k counts experts and cannot be negative, got {top_k}")
    if allowed is not None:
        if allowed.shape != (logits.shape[1],):
            raise ValueError(f"allowed must have one entry per class ({logits.shape[1]}), got {tuple(allowed.shape)}")
        allowed = allowed.clone()
        allowed[0] = True
        logits = logits.masked_fill(~allowed.view(1, -1, 1, 1), float("-inf"))
    weights = torch.softmax(logits.float() / temperature, dim=1)
    return _keep_strongest(weights, top_k) if top_k is not None and top_k < logits.shape[1] - 1 else weights


def enlarge(blocks: ExpertWeights, size: tuple[int, int], floor: float = 0.0) -> ExpertWeights:
    """Weights ``(B, E, *size)`` of pixels from those of blocks ``(B, E, h, w)``; see :func:`route`."""
    acting = blocks[:, 1:]
    if blocks.device.type != "cpu":  # which classes act would have to be waited for
        return with_identity(_soft(_enlarged(acting, size), floor))
    enlarged = acting.new_zeros(*acting.shape[:2], *size)
    for index in acting.flatten(2).any(2).any(0).nonzero()[:, 0].tolist():  # of other modalities none does
        enlarged[:, index : index + 1] = _soft(_enlarged(acting[:, index : index + 1], size), floor)
    return with_identity(enlarged)


def with_identity(acting: ExpertWeights) -> ExpertWeights:
    """Weights ``(B, E, H, W)`` of all classes from those of the experts; the identity has what they leave."""
    identity = (1 - acting.sum(1, keepdim=True)).clamp_min(0)  # rounding
    return torch.cat([identity, acting], 1)


def _soft(weights: torch.Tensor, floor: float) -> torch.Tensor:
    """Soft threshold: continuous, so no edge appears in the picture where a weight crosses the floor."""
    return (weights - floor).clamp_min_(0).div_(1 - floor) if floor else weights


def _enlarged(weights: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``(B, K, h, w)`` -> ``(B, K, *size)``, each weight in the middle of its block of pixels."""
    if weights.shape[2:] != tuple(-(-side // STRIDE) for side in size):
        return F.interpolate(weights, size=size, mode="bilinear", align_corners=False)
    blocks = F.interpolate(weights, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return blocks[..., : size[0], : size[1]]


def _keep_strongest(weights: ExpertWeights, top_k: int) -> ExpertWeights:
    strength = weights[:, 1:].mean(dim=(2, 3))  # (B, E-1)
    keep = torch.zeros_like(strength, dtype=torch.bool)
    keep.scatter_(1, strength.topk(top_k, dim=1).indices, True)
    acting = weights[:, 1:] * keep[..., None, None]
    return torch.cat([1 - acting.sum(1, keepdim=True), acting], 1)
