"""Mixed precision on any device: MONAI's engines autocast on CUDA only, CPUs with AMX gain as much."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from monai_sasm.errors import RefusedError
from monai_sasm.functional.precision import fast_bfloat16


class Autocast(nn.Module):
    """Run ``network`` under autocast in channels-last layout and give float32 back.

    bfloat16 trains a convolutional U-Net about three times faster on a CPU with AMX instructions, and 1.5 to 2 times
    with AVX-512 BF16; without either it is emulated and an order of magnitude slower, so ``"auto"`` looks before it
    chooses.

    Args:
        network: the module to run; save *its* state dict, not this wrapper's.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"auto"`` (bfloat16 where the hardware has it).
        channels_last: use that layout; 2-D networks only.

    Raises:
        RefusedError: another ``dtype``; float16 loses gradients below 6e-8, which the mean over an image's pixels often
            has, unless the loss is scaled, which nothing here does.
    """

    def __init__(self, network: nn.Module, dtype: str = "auto", channels_last: bool = True) -> None:
        super().__init__()
        allowed = {"float32": None, "bfloat16": torch.bfloat16}
        if dtype != "auto" and dtype not in allowed:
            why = ", which loses small gradients" if dtype == "float16" else ""
            raise RefusedError(f"precision of training must be 'auto' or one of {sorted(allowed)}, got {dtype!r}{why}")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.dtype = (torch.bfloat16 if _fast() else None) if dtype == "auto" else allowed[dtype]

    def forward(self, image: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Same arguments as the wrapped network; a tensor, or the tuple of tensors that it returns."""
        image = image.contiguous(memory_format=self.layout)
        with torch.autocast(image.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            output = self.network(image, *args, **kwargs)
        return output.float() if isinstance(output, torch.Tensor) else tuple(part.float() for part in output)


def reduced(dtype: str) -> bool:
    """Whether :class:`Autocast` runs in 16 bits when asked for ``dtype``, here."""
    return dtype == "bfloat16" or (dtype == "auto" and _fast())


def _fast() -> bool:
    return fast_bfloat16("cuda" if torch.cuda.is_available() else "cpu")
