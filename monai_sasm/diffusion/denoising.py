"""One view of every diffusion network: ``denoise(x, t, label) -> x_0``, whatever the network itself predicts.

The noise schedule is MONAI's: :math:`x_t = \\sqrt{\\bar\\alpha_t} x_0 + \\sqrt{1 - \\bar\\alpha_t} \\epsilon`
(Ho et al. 2020, eq. 4), with :math:`\\bar\\alpha` the scheduler's ``alphas_cumprod``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """A network and its noise schedule as the function ``(x_t, t) -> x_0``.

    Args:
        network: called as MONAI's ``DiffusionModelUNet``: ``network(x, timesteps=t)``, with ``class_labels=label`` when
            a label is given.
        scheduler: a MONAI scheduler; its ``prediction_type`` (``epsilon``, ``sample`` or ``v_prediction``) says what
            the network predicts, its ``alphas_cumprod`` how noisy ``x_t`` is.
    """

    def __init__(self, network: nn.Module, scheduler: Any) -> None:
        super().__init__()
        if scheduler.prediction_type not in TO_CLEAN:
            raise ValueError(f"prediction_type must be one of {sorted(TO_CLEAN)}, got {scheduler.prediction_type!r}")
        self.network = network
        self.prediction = str(scheduler.prediction_type)
        self.schedule: Tensor = scheduler.alphas_cumprod.float()  # not a buffer: half precision would ruin its ends

    def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """The expected clean image.

        Args:
            x: ``x_t`` ``(B, C, H, W)``, in [-1, 1] without its noise.
            t: time index ``(B,)``, 0 (hardly any noise) to the length of the schedule less 1.
            label: class index ``(B,)`` for label-conditioned networks.
            condition: further input channels ``(B, K, H, W)``.

        Returns:
            ``x_0``, shape and dtype of ``x``.
        """
        inputs = x if condition is None else torch.cat([x, condition], 1)
        keywords = {} if label is None else {"class_labels": label}
        predicted = self.network(inputs, timesteps=t, **keywords)
        kept = level(self.schedule, t, x)
        return TO_CLEAN[self.prediction](x, predicted, kept).to(x.dtype)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """:meth:`denoise`, as a module."""
        return self.denoise(x, t, label, condition)


def level(schedule: Tensor, t: Tensor, like: Tensor) -> Tensor:
    r""":math:`\bar\alpha_t` ``(B, 1, 1, 1)`` on the device of ``like``; ``t`` -1 is the clean image.

    At least float32, whatever ``like`` is: near 1, bfloat16 has steps of 0.004, and the first 80 times of the usual
    schedule would collapse into 19.
    """
    t = t.to(like.device)
    kept = schedule.to(like.device)[t.clamp_min(0)].masked_fill(t < 0, 1)
    return kept.view(-1, *[1] * (like.ndim - 1)).to(torch.promote_types(like.dtype, torch.float32))


def noise_to_signal(schedule: Tensor) -> Tensor:
    r"""Noise standard deviation relative to the clean image at each time: :math:`\sqrt{(1-\bar\alpha)/\bar\alpha}`."""
    kept = schedule.double()
    return ((1 - kept) / kept).sqrt()


def start_time(sigma: Tensor, schedule: Tensor) -> Tensor:
    """Where a measured noise level lies on the schedule.

    Args:
        sigma: noise standard deviation ``(B,)`` of images in [-1, 1].
        schedule: ``alphas_cumprod`` of the scheduler.

    Returns:
        The time index ``(B,)`` of the nearest level, -1 for images with less than half the smallest level: an image
        ``y`` is then ``x_t = sqrt(alpha_bar_t) y``, and denoising starts there instead of at pure noise.
    """
    levels = torch.cat([torch.zeros(1, dtype=torch.double), noise_to_signal(schedule.cpu())])
    wanted = sigma.detach().cpu().double()  # devices of Apple have no float64
    return ((levels[None] - wanted[:, None]).abs().argmin(1) - 1).to(sigma.device)


def _from_epsilon(x: Tensor, epsilon: Tensor, kept: Tensor) -> Tensor:
    return (x - (1 - kept).sqrt() * epsilon) / kept.sqrt()


def _from_sample(x: Tensor, sample: Tensor, kept: Tensor) -> Tensor:
    return sample


def _from_velocity(x: Tensor, velocity: Tensor, kept: Tensor) -> Tensor:
    return kept.sqrt() * x - (1 - kept).sqrt() * velocity


TO_CLEAN = {"epsilon": _from_epsilon, "sample": _from_sample, "v_prediction": _from_velocity}
"""What a network predicts -> ``(x_t, prediction, alpha_bar_t) -> x_0`` (Ho et al. 2020 eq. 15; Salimans & Ho 2022)."""
