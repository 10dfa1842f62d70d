"""Any image-to-image network as an expert: it predicts the correction, on an image padded to the sizes it takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.experts.consistency import Guard, apply_guard
from monai_sasm.experts.enhance import initialize_output
from monai_sasm.functional.recorded import Recorded
from monai_sasm.types import ImageBatch, NoiseMap


class Residual(Recorded):
    r""":math:`\hat x = y + f(y)` for a network f such as MONAI's ``Restormer``, whose own output is the whole image.

    Args:
        network: ``(B, C, H, W)`` -> the same shape, for sides that are multiples of ``multiple``.
        multiple: images are padded at the right and at the bottom by replication, and the padding is cut off again.
        zero_init: start as the identity, by zeroing the network's last convolution.
        guard: puts measured data back into the result, see :mod:`monai_sasm.experts.consistency`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from monai_sasm.experts.residual import Residual
        >>> Residual(nn.Conv2d(1, 1, 3, padding=1), multiple=8)(torch.rand(1, 1, 33, 47)).shape
        torch.Size([1, 1, 33, 47])
    """

    def __init__(
        self, network: nn.Module, multiple: int = 1, zero_init: bool = False, guard: Guard | None = None
    ) -> None:
        super().__init__()
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {multiple}")
        self.network, self.multiple, self.guard = network, multiple, guard
        if zero_init:
            initialize_output(network, zero=True)

    def forward(self, image: ImageBatch, _sigma: NoiseMap | None = None) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``; the network is not told the noise."""
        height, width = image.shape[-2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        correction: Tensor = self.network(F.pad(image, padding, mode="replicate"))
        return apply_guard(image + correction[..., :height, :width].to(image.dtype), image, self.guard)
