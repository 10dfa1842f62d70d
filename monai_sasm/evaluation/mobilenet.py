"""A feature distance that no training of ours has seen: MobileNetV2 of ImageNet. Nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.losses.features import weights_root

Image = NDArray[np.float32]

FILE = "mobilenet_v2_torchvision_dequant.pth"
TAPS = (1, 3, 6, 13)  # index in MobileNetV2.features: 16, 24, 32 and 96 channels at stride 2, 4, 8 and 16
DEFINITION = "distance of normalised MobileNetV2 features (four depths, ImageNet weights), x 100; smaller is better"


def mobilenet_weights() -> Path | None:
    """The ImageNet weights in the folder of third-party weights (``SASM_WEIGHTS``), or ``None``."""
    path = weights_root() / FILE
    return path if path.is_file() else None


def mobilenet_distance(reference: Image, image: Image, weights: Path) -> float:
    """Squared distance of channel-normalised features (:func:`losses.features.feature_distance`), times 100.

    Args:
        reference: photo ``(3, H, W)`` in [0, 1].
        image: same shape.
        weights: state dict of torchvision's ``mobilenet_v2``.
    """
    import torch

    from monai_sasm.losses.features import feature_distance

    with torch.inference_mode():
        maps = [_taps(torch.from_numpy(np.ascontiguousarray(part))[None], weights) for part in (reference, image)]
        return 100 * float(feature_distance(*maps))


def _taps(photo: Any, weights: Path) -> list[Any]:
    from monai_sasm.gate.mobilenet import IMAGENET_MEAN, IMAGENET_STD

    mean, std = (photo.new_tensor(part).view(1, 3, 1, 1) for part in (IMAGENET_MEAN, IMAGENET_STD))
    x, taps = (photo - mean) / std, []
    for index, layer in enumerate(_trunk(weights)[: TAPS[-1] + 1]):
        x = layer(x)
        if index in TAPS:
            taps.append(x)
    return taps


@lru_cache(maxsize=1)
def _trunk(weights: Path) -> Any:
    from monai_sasm.gate.trunk import load_weights, mobilenet_v2

    trunk = mobilenet_v2()
    load_weights(trunk, weights)
    return trunk.eval()
