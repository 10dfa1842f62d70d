"""From gate scores to mixing weights: pure functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monai_sasm.gate.mobilenet import STRIDE
from monai_sasm.types import ExpertLogits, ExpertWeights

SEEN = 0.01  # share of an image in which a class outweighs the others: its fault is there
CONVINCING = 0.5  # mean weight over an image of a fault that only shows after another one was repaired


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


def present(weights: ExpertWeights) -> torch.Tensor:
    """Which classes outweigh all others somewhere in an image, ``(B, E)`` bool."""
    return (weights > 0.5).float().mean((2, 3)) > SEEN


def confirmed(weights: ExpertWeights, known: torch.Tensor) -> ExpertWeights:
    """Weights of a later pass, in which a fault that no earlier pass saw has to show on much of the image.

    A restored image is smoother than most, and a gate takes smooth parts for wet ones now and then. A fault that lies
    under another one everywhere, drops under noise, shows on a large part of the image as soon as the other is gone.

    Args:
        weights: ``(B, E, H, W)``.
        known: ``(B, E)`` bool, classes that earlier passes have :func:`present`.

    Returns:
        Same shape; an expert that does not act in an image leaves its weight to the identity, class 0.
    """
    act = known | (weights.mean((2, 3)) >= CONVINCING)
    acting = weights[:, 1:] * act[:, 1:, None, None]
    return torch.cat([1 - acting.sum(1, keepdim=True), acting], 1)


def _keep_strongest(weights: ExpertWeights, top_k: int) -> ExpertWeights:
    strength = weights[:, 1:].mean(dim=(2, 3))  # (B, E-1)
    keep = torch.zeros_like(strength, dtype=torch.bool)
    keep.scatter_(1, strength.topk(top_k, dim=1).indices, True)
    acting = weights[:, 1:] * keep[..., None, None]
    return torch.cat([1 - acting.sum(1, keepdim=True), acting], 1)
