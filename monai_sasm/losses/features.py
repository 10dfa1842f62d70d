"""VGG19 features of photos, for perceptual losses and distances; nothing is downloaded.

torchvision's VGG19 is taken when its weights lie in torch's cache; otherwise VGG19-n, the weight-normalised VGG19 up to
relu3_1 of Li et al. 2017 ("Universal Style Transfer"), from ``$SASM_WEIGHTS``.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

VGG_N_FILE = "vgg_normalised_conv3_1.pth"
VGG_PATTERN = "vgg19-*.pth"  # as torchvision names it in the cache
BLOCKS = ((3, 64, False), (64, 64, True), (64, 128, False), (128, 128, True), (128, 256, False))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's VGG19 was trained
TAPS = (0, 2, 4)  # relu1_1, relu2_1, relu3_1: after the first convolution of each resolution


class FeaturesAbsentError(FileNotFoundError):
    """No VGG19 weights on this machine; the message says where to put them."""


def weights_root() -> Path:
    """Folder of third-party weights: ``$SASM_WEIGHTS``, else ``../shared/weights`` beside the checkout."""
    return Path(os.environ.get("SASM_WEIGHTS") or Path(__file__).resolve().parents[3] / "shared" / "weights")


class Vgg19Features(nn.Module):
    """Feature maps relu1_1, relu2_1 and relu3_1 of photos; frozen.

    Args:
        weights: state dict of VGG19-n or of torchvision's ``vgg19``, told apart by their keys; found when ``None``.

    Raises:
        FeaturesAbsentError: none found.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        path = weights or find_weights()
        if path is None:
            raise FeaturesAbsentError(
                f"no VGG19 weights: put torchvision's {VGG_PATTERN} into {torch.hub.get_dir()}/checkpoints, or "
                f"{VGG_N_FILE} into a folder named by SASM_WEIGHTS"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.normalised = "features.0.weight" not in state
        self.name = "VGG19-n" if self.normalised else "VGG19"
        self.colour = nn.Conv2d(3, 3, 1)  # RGB in [0, 1] -> what the network was trained on
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b, _ in BLOCKS)
        _fill(self, state)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """``image`` ``(B, 3, H, W)`` in [0, 1] -> three maps ``(B, 64 to 256, H / 2**i, W / 2**i)``."""
        x, taps = self.colour(image), []
        for index, (convolution, (_, _, pool)) in enumerate(zip(self.convolutions, BLOCKS, strict=True)):
            padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect" if self.normalised else "constant")
            x = convolution(padded).relu()
            if index in TAPS:
                taps.append(x)
            x = nn.functional.max_pool2d(x, 2, ceil_mode=self.normalised) if pool else x
        return taps


def feature_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Squared distance of channel-normalised features, ``(B,)``: mean over pixels, summed over channels and depths.

    The weighting of Zhang et al. 2018 (LPIPS) without its learned channel weights.
    """
    total = first[0].new_zeros(len(first[0]))
    for x, y in zip(first, second, strict=True):
        unit_x, unit_y = (part / (part.norm(dim=1, keepdim=True) + 1e-8) for part in (x, y))
        total = total + (unit_x - unit_y).square().sum(1).mean((1, 2))
    return total


def find_weights() -> Path | None:
    """torchvision's VGG19 in torch's cache, else VGG19-n in :func:`weights_root`, else ``None``."""
    cached = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(VGG_PATTERN))
    own = weights_root() / VGG_N_FILE
    return cached[0] if cached else own if own.is_file() else None


def _fill(features: Vgg19Features, state: dict[str, Tensor]) -> None:
    """Copy the weights; both layouts number the layers of a ``Sequential``."""
    positions = (2, 5, 9, 12, 16) if features.normalised else (0, 2, 5, 7, 10)
    prefix = "" if features.normalised else "features."
    loaded = {}
    for own, position in enumerate(positions):
        for kind in ("weight", "bias"):
            loaded[f"convolutions.{own}.{kind}"] = state[f"{prefix}{position}.{kind}"]
    if features.normalised:
        loaded["colour.weight"], loaded["colour.bias"] = state["0.weight"], state["0.bias"]
    else:
        loaded["colour.weight"] = torch.diag(1 / torch.tensor(STD))[:, :, None, None]
        loaded["colour.bias"] = -torch.tensor(MEAN) / torch.tensor(STD)
    features.load_state_dict(loaded)
