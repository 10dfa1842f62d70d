"""SpatialGate: MobileNetV2 kept spatial, saying per pixel what is wrong with an image.

The trunk is MobileNetV2 (Sandler et al. 2018) without its classifier. A raindrop is 10 to 120 pixels
wide and noise has no size at all, so a light head in the manner of LR-ASPP (Howard et al. 2019, section 6.3) joins
the features of stride 8, 16 and 32; unlike LR-ASPP it has no global pooling, so that a tile sees what the whole image
sees. The estimated noise level enters the head directly: an ImageNet trunk has learnt to ignore it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from monai_sasm.functional.recorded import Recorded
from monai_sasm.functional.tiling import pad_to_multiple
from monai_sasm.gate.trunk import load_weights, mobilenet_v2
from monai_sasm.types import ExpertLogits, ImageBatch, NoiseMap

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TAPS = {6: 32, 13: 96, 18: 1280}  # index in MobileNetV2.features -> channels; strides 8, 16, 32
STRIDE = 8  # of the logits
COARSEST = 32  # stride of the trunk's last layers
HEAD_TAP = 13  # joined to the head as it is, so that a re-fitted head can tell faults the merge was not trained on
NOISE_CHANNELS = 2


class SpatialGate(Recorded):
    """Logits per class and per 8x8 block of pixels.

    Args:
        classes: names of the classes in order; the first is the identity, the others are expert bundles.
        width: channels of the head.
        noise_estimator: image -> noise map ``(B, 1, H, W)``, called when none is given.

    Example:
        >>> import torch
        >>> from monai_sasm.functional.noise import NoiseEstimator
        >>> from monai_sasm.gate.mobilenet import SpatialGate
        >>> gate = SpatialGate(classes=["clean", "noise_photo_unet"], noise_estimator=NoiseEstimator())
        >>> gate(torch.rand(1, 3, 64, 80)).shape
        torch.Size([1, 2, 8, 10])
    """

    def __init__(
        self,
        classes: Sequence[str],
        width: int = 64,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
    ) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise ValueError(f"a gate needs the identity and at least one expert, all different, got {list(classes)}")
        self.classes = tuple(classes)
        self.noise_estimator = noise_estimator
        self.trunk = mobilenet_v2()
        self.reduce = nn.ModuleDict({str(tap): nn.Conv2d(channels, width, 1) for tap, channels in TAPS.items()})
        self.local = nn.Sequential(  # stride 8 straight from the pixels: noise grain that the trunk pools away
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, width, 3, stride=2, padding=1),
        )
        self.merge = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width * (len(TAPS) + 1) + NOISE_CHANNELS, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(width + TAPS[HEAD_TAP], len(classes), 1)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: ImageBatch, sigma: NoiseMap | None = None) -> ExpertLogits:
        """Score ``image`` ``(B, 3, H, W)`` in display range [0, 1] -> logits ``(B, E, ceil(H/8), ceil(W/8))``.

        Args:
            image: see :func:`monai_sasm.gate.display.to_display`; at least 1x1 pixel.
            sigma: noise map ``(B, 1, H, W)`` in the same range; estimated when missing.
        """
        return self.head(self.features(image, sigma))

    def features(self, image: ImageBatch, sigma: NoiseMap | None = None) -> torch.Tensor:
        """What the head sees: ``(B, width + 96, ceil(H/8), ceil(W/8))``. Fixed when only the head is re-fitted."""
        if sigma is None:
            if self.noise_estimator is None:
                raise ValueError("this gate has no noise estimator; pass sigma (B, 1, H, W)")
            sigma = self.noise_estimator(image)
        size = tuple(-(-side // STRIDE) for side in image.shape[-2:])
        # whole blocks only: a sliver of pixels in the last one is no ground to judge it by
        image, sigma = pad_to_multiple(image, COARSEST), pad_to_multiple(sigma, COARSEST)
        padded = tuple(side // STRIDE for side in image.shape[-2:])
        x = (image - self.mean) / self.std  # (B, 3, H, W)
        joined = [self.local(x)]  # (B, width, H/8, W/8)
        for index, layer in enumerate(self.trunk):
            x = layer(x)  # (B, c, H/s, W/s), s doubling to 32
            if str(index) in self.reduce:
                joined.append(_resize(self.reduce[str(index)](x), padded))
            if index == HEAD_TAP:
                direct = _resize(x, padded)  # (B, 96, H/8, W/8)
        joined.append(_resize(_noise_features(sigma), padded))  # (B, 2, H/8, W/8)
        return torch.cat([self.merge(torch.cat(joined, 1)), direct], 1)[..., : size[0], : size[1]]

    def train(self, mode: bool = True) -> SpatialGate:
        """Training mode, except for batch normalisation: its statistics stay those of the pretrained trunk."""
        super().train(mode)
        for module in self.trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def load_trunk(gate: SpatialGate, path: str) -> SpatialGate:
    """Fill the trunk from a state dict of ``torchvision.models.mobilenet_v2`` (for example its ImageNet weights)."""
    load_weights(gate.trunk, path)
    return gate


def _noise_features(sigma: NoiseMap) -> torch.Tensor:
    """Noise level twice: linear, for strong noise, and logarithmic, for the step from none to a little."""
    return torch.cat([10 * sigma, torch.log10(sigma.clamp_min(1e-4)) + 2], 1)


def _resize(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
