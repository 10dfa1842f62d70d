"""Feature distances of photos: LPIPS where its weights are, and a VGG19-n distance. Nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.data import weights_root

Image = NDArray[np.float32]

VGG_FILE = "vgg_normalised_conv3_1.pth"
VGG_TAPS = (3, 10, 17)  # after the first convolution of each block
LPIPS_FILES = "alexnet*.pth"


class PerceptualDistances:
    """Distances that exist on this machine.

    Args:
        vgg: path of the VGG19-n weights; searched for when missing.
    """

    def __init__(self, vgg: Path | None = None) -> None:
        path = vgg or weights_root() / VGG_FILE
        self.vgg = path if path.is_file() else None
        self.lpips = _lpips_weights_present()

    def __call__(self, reference: Image, image: Image) -> dict[str, float]:
        """``{"VGG19-n": ..., "LPIPS": ...}`` of photos ``(C, H, W)`` in [0, 1]; only those whose weights are there."""
        found = {}
        if self.vgg is not None:
            found["VGG19-n"] = vgg_distance(reference, image, self.vgg)
        if self.lpips:
            found["LPIPS"] = _lpips_distance(reference, image)
        return found

    def definitions(self) -> dict[str, str]:
        """What the numbers are, or that they are not available."""
        vgg = "distance of normalised VGG19 features (relu1_1, 2_1, 3_1), x 100; smaller is better. It is not LPIPS"
        lpips = "AlexNet LPIPS 0.1; smaller is better"
        return {
            "VGG19-n": vgg if self.vgg is not None else f"not available ({VGG_FILE} not found; set SASM_WEIGHTS)",
            "LPIPS": lpips if self.lpips else "not available (AlexNet weights are not in the torch cache)",
        }


def vgg_distance(reference: Image, image: Image, weights: Path) -> float:
    """Mean squared distance of channel-normalised features, summed over three depths, times 100."""
    import torch

    network = _vgg(weights)
    total = 0.0
    with torch.inference_mode():
        x = torch.from_numpy(np.stack([_rgb(reference), _rgb(image)])).float()
        for index, layer in enumerate(network):
            x = layer(x)
            if index in VGG_TAPS:
                unit = x / (x.norm(dim=1, keepdim=True) + 1e-8)
                total += float((unit[0] - unit[1]).pow(2).sum(0).mean())
    return 100 * total


@lru_cache(maxsize=1)
def _vgg(path: Path):  # type: ignore[no-untyped-def]  # torch.nn.Sequential; torch is imported on first use
    import torch
    from torch import nn

    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    for channels_in, channels_out, pool in ((3, 64, 0), (64, 64, 1), (64, 128, 0), (128, 128, 1), (128, 256, 0)):
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels_in, channels_out, 3), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if pool else []
    network = nn.Sequential(*layers)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _lpips_weights_present() -> bool:
    import importlib.util

    import torch

    if importlib.util.find_spec("lpips") is None:
        return False
    return any((Path(torch.hub.get_dir()) / "checkpoints").glob(LPIPS_FILES))


@lru_cache(maxsize=1)
def _lpips():  # type: ignore[no-untyped-def]
    from monai_sasm.optional import require, torchvision

    torchvision()
    return require("lpips", "the LPIPS metric", "pip install lpips").LPIPS(net="alex", verbose=False).eval()


def _lpips_distance(reference: Image, image: Image) -> float:
    import torch

    with torch.inference_mode():
        x, y = (torch.from_numpy(_rgb(part))[None].float() * 2 - 1 for part in (reference, image))
        return float(_lpips()(x, y))


def _rgb(image: Image) -> Image:
    return np.ascontiguousarray(np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image, np.float32)
