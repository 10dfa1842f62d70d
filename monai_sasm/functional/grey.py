"""Grey photos go through networks that know three channels, and come back."""

from __future__ import annotations

from torch import Tensor


def to_grey(image: Tensor) -> Tensor:
    """``(B, 3, H, W)`` -> ``(B, 1, H, W)``, the mean of the channels.

    Three equal channels come back as they were, to the last bit, which a plain mean of floats does not promise.

    Example:
        >>> import torch
        >>> from monai_sasm.functional.grey import to_grey
        >>> grey = torch.tensor([0.1, 0.3]).reshape(1, 1, 1, 2)
        >>> bool((to_grey(grey.expand(-1, 3, -1, -1)) == grey).all())
        True
    """
    first = image[:, :1]
    return first + (image - first).mean(1, keepdim=True)
