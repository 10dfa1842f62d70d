"""The peer of the diffusion classifier: a plain CNN with as many parameters, trained on the same images."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from monai_sasm.datasets.labelled import LabelledImages
from monai_sasm.transforms.augmentation import flip_and_shift
from monai_sasm.types import ImageBatch

WIDTHS = (48, 96, 192, 380)  # 2.6 million parameters
BATCH = 64


class PlainCnn(nn.Sequential):
    """Seven 3 x 3 convolutions with batch normalisation, halving the side three times, mean over the image, linear.

    Args:
        classes: number of outputs.
        widths: channels at full, half, quarter and eighth resolution.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = WIDTHS) -> None:
        layers: list[nn.Module] = [_convolution(3, widths[0])]
        for before, width in itertools.pairwise(widths):
            layers += [_convolution(before, width, stride=2), _convolution(width, width)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def train(
    data: LabelledImages,
    epochs: int,
    noise: float = 0.0,
    shift: int = 3,
    rate: float = 0.003,
    seed: int = 0,
    device: str = "cpu",
) -> PlainCnn:
    """Train a :class:`PlainCnn` with AdamW, one cycle of the learning rate and label smoothing 0.1.

    Args:
        data: training images.
        epochs: passes over them.
        noise: largest standard deviation of the noise added to images in [0, 1], drawn evenly per image; 0 is none.
        shift: largest displacement in pixels; images are mirrored as well.
        rate: largest learning rate.
        seed: of weights, order, augmentation and noise.
        device: where to train.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = PlainCnn(len(data.classes)).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    batches = max(1, len(data) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches + 1, pct_start=0.2)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator).numpy()
        for chosen in np.array_split(order[: batches * BATCH], batches):
            images = flip_and_shift(torch.from_numpy(data.images[chosen]).float() / 255, shift, generator)
            level = noise * torch.rand(len(images), 1, 1, 1, generator=generator)
            images = images + level * torch.randn(images.shape, generator=generator)
            optimizer.zero_grad()
            loss(_scores(network, images.to(device)), torch.from_numpy(data.labels[chosen]).to(device)).backward()
            optimizer.step()
            cycle.step()
    return network.eval()


def predict(network: nn.Module, images: ImageBatch) -> Tensor:
    """Class index ``(B,)`` of each image ``(B, 3, H, W)`` in [0, 1]."""
    place = next(network.parameters()).device
    with torch.inference_mode():
        return torch.cat([_scores(network, part.to(place)).argmax(1).cpu() for part in images.split(250)])


def reduced_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the processor has it, which halves the time of training and measuring."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def _scores(network: nn.Module, images: Tensor) -> Tensor:
    scaled = (4 * images - 2).contiguous(memory_format=torch.channels_last)  # about mean 0 and variance 1
    # entered anew for every batch: autocast keeps the rounded weights until it is left
    with reduced_precision(scaled.device):
        scores: Tensor = network(scaled)
    return scores.float()


def _convolution(before: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )
