"""Feature distances of photos: LPIPS where its weights are, and a VGG19-n distance. Nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.losses.features import VGG_N_FILE, weights_root

Image = NDArray[np.float32]

LPIPS_FILES = "alexnet*.pth"


class PerceptualDistances:
    """Distances that exist on this machine.

    Args:
        vgg: path of the VGG19-n weights; searched for when missing.
    """

    def __init__(self, vgg: Path | None = None) -> None:
        path = vgg or weights_root() / VGG_N_FILE
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
            "VGG19-n": vgg if self.vgg is not None else f"not available ({VGG_N_FILE} not found; set SASM_WEIGHTS)",
            "LPIPS": lpips if self.lpips else "not available (AlexNet weights are not in the torch cache)",
        }


def vgg_distance(reference: Image, image: Image, weights: Path) -> float:
    """Mean squared distance of channel-normalised features, summed over three depths, times 100."""
    import torch

    from monai_sasm.losses.features import feature_distance

    features = _vgg(weights)
    with torch.inference_mode():
        x, y = (features(torch.from_numpy(_rgb(part))[None].float()) for part in (reference, image))
        return 100 * float(feature_distance(x, y))


@lru_cache(maxsize=1)
def _vgg(path: Path):  # type: ignore[no-untyped-def]  # Vgg19Features; torch is imported on first use
    from monai_sasm.losses.features import Vgg19Features

    return Vgg19Features(path)


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
