"""Per-pixel blending of expert outputs, of passes, and of mixed and refined images."""

from __future__ import annotations

from collections.abc import Mapping

from monai_sasm.types import ExpertWeights, ImageBatch


def softmix(image: ImageBatch, outputs: Mapping[int, ImageBatch], weights: ExpertWeights) -> ImageBatch:
    r"""Soft mixing :math:`x + \sum_k w_k (E_k(x) - x)`.

    Only corrections are weighed, so a pixel of identity weight 1 keeps its value to the last bit, and an expert of
    weight 0 need not have been run.

    Args:
        image: ``(B, C, H, W)``, float32.
        outputs: class index -> that expert's output, same shape; classes left out count as the identity.
        weights: ``(B, E, H, W)``.

    Raises:
        ValueError: a shape does not fit, or an output belongs to no class.
    """
    mixed = image
    for index, output in outputs.items():
        if output.shape != image.shape:
            raise ValueError(
                f"expert {index} must return the image's shape {tuple(image.shape)}, got {tuple(output.shape)}"
            )
        if not 0 < index < weights.shape[1]:
            raise ValueError(f"outputs are keyed by class 1 to {weights.shape[1] - 1} (0 is the identity), got {index}")
        mixed = mixed + weights[:, index : index + 1] * (output - image)
    return mixed


def blend(image: ImageBatch, changed: ImageBatch, amount: ImageBatch | float) -> ImageBatch:
    """``image + amount * (changed - image)``: amount 0 is ``image`` exactly, 1 is ``changed``.

    Args:
        image: ``(B, C, H, W)``.
        changed: same shape.
        amount: one number or a map ``(B, 1, H, W)``, in [0, 1].
    """
    return image + amount * (changed - image)
