"""Watching a diffusion model: noise added step by step, taken away step by step, and samples per class, as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from monai_sasm.diffusion.denoising import level


def tiled(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images ``(N, C, H, W)`` in rows of ``columns`` with white lines of ``gap`` pixels between, ``(C, *, *)``."""
    if columns < 1 or not len(images):
        raise ValueError(f"tiling needs images and at least one column, got {len(images)} images, {columns} columns")
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = images.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def forward_strip(images: Tensor, schedule: Tensor, times: Sequence[int], seed: int = 0) -> Tensor:
    """Images at rising noise: ``x_t`` of each at every time, with one draw of the noise each.

    Args:
        images: ``(N, C, H, W)`` in [-1, 1].
        schedule: ``alphas_cumprod``.
        times: time indices; -1 is the clean image.
        seed: of the noise.

    Returns:
        ``(N, len(times), C, H, W)`` in [0, 1], clipped for display.
    """
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    steps = []
    for time in times:
        kept = level(schedule, torch.full((len(images),), time), images)
        steps.append(kept.sqrt() * images + (1 - kept).sqrt() * noise)
    return _shown(torch.stack(steps, 1))


class Recorder:
    """Keeps ``x_t`` and the estimate of ``x_0`` of some sampling steps; hand it to a sampler as ``observe``.

    Args:
        steps: number of steps the sampler takes.
        frames: how many of them are kept, evenly spaced, the last always.
    """

    def __init__(self, steps: int, frames: int = 8) -> None:
        frames = min(frames, steps)
        self.wanted = {round((index + 1) * steps / frames) for index in range(frames)}
        self.count = 0
        self.noisy: list[Tensor] = []
        self.clean: list[Tensor] = []

    def __call__(self, noisy: Tensor, clean: Tensor) -> None:
        """Take note of one step, both ``(N, C, H, W)`` in [-1, 1]."""
        self.count += 1
        if self.count in self.wanted:
            self.noisy.append(noisy)
            self.clean.append(clean)

    def strip(self) -> Tensor:
        """``x_t`` after each kept step, ``(N, frames, C, H, W)`` in [0, 1]; the last frame is the result."""
        return _shown(torch.stack([*self.noisy[:-1], self.clean[-1]], 1))


def save_png(picture: Tensor, path: str | Path, scale: int = 2) -> None:
    """Write a picture ``(3, H, W)`` in [0, 1] with every pixel drawn ``scale`` times as wide and high."""
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


def noise_histograms(path: str | Path, noise: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    """Histograms of true and predicted noise side by side, one plot per time index, as a PNG file.

    Predicted noise is narrower wherever the noise cannot be told from the image: the network predicts its mean.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plot = Figure(figsize=(3.2 * len(noise), 2.6), dpi=80, layout="constrained")
    FigureCanvasAgg(plot)
    edges = torch.linspace(-4, 4, 65).tolist()
    for axis, (time, parts) in zip(plot.subplots(1, len(noise), squeeze=False)[0], noise.items(), strict=True):
        for name, values in zip(("true", "predicted"), parts, strict=True):
            axis.hist(values.flatten().numpy(), edges, density=True, histtype="step", label=name)
        axis.set_title(f"noise at t = {time}", fontsize=8)
        axis.legend(fontsize=7)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(path)


def _shown(images: Tensor) -> Tensor:
    return ((images + 1) / 2).clamp(0, 1)
