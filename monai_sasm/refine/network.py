"""An expert's network as the network of a flow: the time takes the place of the noise map."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

TIMES = 1000  # s = 1 as told to the network; MONAI's num_train_timesteps


class TimeMapped(nn.Module):
    """Gives a network that is told its noise level per pixel the call of MONAI's ``DiffusionModelUNet``.

    A plain residual U-Net keeps contrast and absolute level, which group normalisation takes away, and learns a small
    correction many times faster: see the bundle's docs for both.

    Args:
        network: called as ``network(x, sigma)``: the leading channels of x, as many as it gives back, plus correction.
        channels: how many of the last channels that it gives back are the prediction.
    """

    def __init__(self, network: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, class_labels: Any = None) -> Tensor:
        """``x`` ``(B, C, H, W)``, ``timesteps`` ``(B,)`` in 0 to 1000 -> the correction ``(B, channels, H, W)``."""
        share = (timesteps / TIMES).to(x).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[-2:])
        corrected: Tensor = self.network(x, share)
        return (corrected - x[:, : corrected.shape[1]])[:, -self.channels :]
