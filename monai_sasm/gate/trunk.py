"""MobileNetV2 without its classifier (Sandler et al. 2018), with the names of torchvision's, whose weights it takes.

It is written out here because importing torchvision's models takes a second of processor time, most of it for
operators of detectors, before the first image is restored.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

# Sandler et al. 2018, table 2: expansion, channels, blocks, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST = 32, 1280  # channels before and after them


class InvertedResidual(nn.Module):
    """Widen each pixel, filter each channel, narrow: the input is added where the shape stays.

    Args:
        inputs, outputs: channels.
        stride: of the filter.
        expansion: factor by which pixels are widened; 1 leaves that out.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.added = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_activated(inputs, width, 1)] if expansion > 1 else []),
            _activated(width, width, 3, stride=stride, groups=width),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, inputs, H, W)`` -> ``(B, outputs, H / stride, W / stride)``."""
        return x + self.conv(x) if self.added else self.conv(x)


def mobilenet_v2() -> nn.Sequential:
    """The 19 layers of ``torchvision.models.mobilenet_v2().features``, untrained: RGB ``(B, 3, H, W)`` -> stride 32."""
    layers: list[nn.Module] = [_activated(3, FIRST, 3, stride=2)]
    channels = FIRST
    for expansion, outputs, blocks, stride in STAGES:
        for block in range(blocks):
            layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
            channels = outputs
    layers.append(_activated(channels, LAST, 1))
    trunk = nn.Sequential(*layers)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return trunk


def load_weights(trunk: nn.Sequential, path: str | Path) -> None:
    """Fill the layers from a state dict of ``torchvision.models.mobilenet_v2``, whose classifier is left out."""
    state, prefix = torch.load(path, map_location="cpu", weights_only=True), "features."
    trunk.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})


def _activated(inputs: int, outputs: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, stride, (side - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))
