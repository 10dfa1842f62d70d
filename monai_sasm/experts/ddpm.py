"""A denoising diffusion model as a denoiser: sampling begins at the noise level of the input, not at pure noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from monai_sasm.diffusion.denoising import Denoiser, level, start_time
from monai_sasm.diffusion.pinning import pin_low_frequencies
from monai_sasm.diffusion.sampling import ddim, spaced_times
from monai_sasm.functional.precision import widest
from monai_sasm.functional.recorded import Recorded, refuse_recording
from monai_sasm.types import ImageBatch, NoiseMap


class DdpmExpert(Recorded):
    r"""Removes Gaussian noise from photos by DDIM from time t to 0, where t has the noise of the photo.

    A photo y = x + n with noise level :math:`\sigma` is, scaled to [-1, 1] and by :math:`\sqrt{\bar\alpha_t}`, just
    what the model saw in training at the t with :math:`\sqrt{(1-\bar\alpha_t)/\bar\alpha_t} = 2\sigma`. One step gives
    the mean of the possible clean photos (best PSNR); more steps move towards one of them (more texture).

    Args:
        network: UNet with MONAI's call, see :mod:`monai_sasm.diffusion.networks`.
        scheduler: MONAI scheduler the network was trained with.
        noise_estimator: image -> noise map, used when no map is given.
        steps: DDIM steps.
        eta: share of fresh noise per step, see :func:`monai_sasm.diffusion.sampling.ddim`.
        pin: standard deviation in pixels of the low-pass pinned to the input, which keeps colours where they were; 0 is
            off.
        mean: known mean of the noise, subtracted first; no method can tell it from the photo's own brightness.
        seed: of the noise when ``eta`` is positive.
        zero_init: start as the identity, by zeroing the network's last layer (the noise prediction is then 0).
    """

    def __init__(
        self,
        network: nn.Module,
        scheduler: Any,
        noise_estimator: Callable[[ImageBatch], NoiseMap],
        steps: int = 1,
        eta: float = 0.0,
        pin: float = 24.0,
        mean: float = 0.0,
        seed: int = 0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        _check(steps, eta, pin)
        self.denoiser = Denoiser(network, scheduler)
        self.noise_estimator = noise_estimator
        self.steps, self.eta, self.pin, self.mean, self.seed = steps, eta, pin, mean, seed
        if zero_init:
            for parameter in list(network.parameters())[-2:]:  # weight and bias of the last convolution
                nn.init.zeros_(parameter)

    def forward(
        self,
        image: ImageBatch,
        sigma: NoiseMap | None = None,
        *,
        steps: int | None = None,
        eta: float | None = None,
        pin: float | None = None,
    ) -> ImageBatch:
        """Restore photos ``(B, 3, H, W)`` in [0, 1]; ``sigma`` ``(B, 1, H, W)`` is estimated if missing.

        The model knows one noise level per image: the root mean square of the map. ``steps``, ``eta`` and ``pin`` take
        the place of the configured ones.
        """
        steps = self.steps if steps is None else steps
        eta = self.eta if eta is None else eta
        pin = self.pin if pin is None else pin
        _check(steps, eta, pin)
        image = image - self.mean
        noise = self.noise_estimator(image) if sigma is None else sigma
        t = start_time(schedule_sigma(noise), self.denoiser.schedule)
        x = (level(self.denoiser.schedule, t, image).sqrt() * (2 * image - 1)).to(image.dtype)
        if eta:
            refuse_recording("a network that draws noise")
        generator = torch.Generator(image.device).manual_seed(self.seed) if eta else None
        times = spaced_times(t, steps)
        clean = (ddim(self.denoiser, x, times, self.denoiser.schedule, eta, generator) + 1) / 2
        pinned = pin_low_frequencies(clean, image, pin) if pin else clean
        noisy: Tensor = (t >= 0).view(-1, 1, 1, 1).to(image.device)
        return torch.where(noisy, pinned, image)


def schedule_sigma(noise: NoiseMap) -> Tensor:
    """RMS of noise maps of images in [0, 1], in [-1, 1] where the schedule is at home, ``(B,)``."""
    return 2 * noise.to(widest(noise.device)).square().mean((1, 2, 3)).sqrt()


def _check(steps: int, eta: float, pin: float) -> None:
    if steps < 1 or pin < 0 or not 0 <= eta <= 1:
        raise ValueError(f"steps must be at least 1, pin at least 0, eta in [0, 1]; got {steps}, {pin}, {eta}")
