r"""The two ways from noise to image that DiT and SiT differ in, behind one face.

Both mix an image :math:`z` and noise :math:`\epsilon` to :math:`z_t = a_t z + b_t \epsilon`, train a network to predict
a velocity at :math:`z_t`, and read the image off its prediction. DiT (Peebles & Xie 2023) walks the arc
:math:`a_t^2 + b_t^2 = 1` of denoising diffusion, SiT (Ma et al. 2024) the straight line :math:`a_t + b_t = 1`. Where
all is noise neither needs to see it: a network blind to :math:`z_t` there does as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from monai_sasm.diffusion.denoising import TO_CLEAN, level
from monai_sasm.diffusion.flow import euler, even_shares, interpolate
from monai_sasm.diffusion.sampling import ddim, spaced_times

Predict = Callable[[Tensor, Tensor], Tensor]
"""``(z_t (B, C, H, W), t (B,)) -> prediction``: a network with its conditions bound."""


class Process(Protocol):
    """What training and sampling ask of a process; times are ``(B,)``, :attr:`last` is pure noise."""

    last: float

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform times ``(count,)``."""

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``z_t``."""

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network is to predict at ``z_t``."""

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean image that a prediction at ``x`` means."""

    def sample(
        self, predict: Predict, noise: Tensor, steps: int, constrain: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """From pure noise to an image; ``constrain`` acts on every estimate of it."""


class Diffusion:
    """Denoising diffusion with DDIM steps; the velocity is that of Salimans & Ho 2022, also fit for a single step.

    Args:
        scheduler: MONAI scheduler with ``prediction_type`` ``v_prediction`` whose last level is almost pure noise.
    """

    def __init__(self, scheduler: Any) -> None:
        if scheduler.prediction_type != "v_prediction":
            raise ValueError(f"the scheduler's prediction_type must be v_prediction, got {scheduler.prediction_type!r}")
        # pure noise to the last digit (Lin et al. 2024, WACV): cosine schedules end with 2e-9 of the signal's variance
        self.schedule = torch.cat([scheduler.alphas_cumprod.float()[:-1], torch.zeros(1)])
        self.last = float(len(self.schedule) - 1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Whole times from 0 to :attr:`last`."""
        return torch.randint(len(self.schedule), (count,), generator=generator)

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        r""":math:`\sqrt{\bar\alpha_t} z + \sqrt{1 - \bar\alpha_t} \epsilon` (Ho et al. 2020, eq. 4)."""
        kept = level(self.schedule, t.long(), clean)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        r""":math:`\sqrt{\bar\alpha_t} \epsilon - \sqrt{1 - \bar\alpha_t} z`."""
        kept = level(self.schedule, t.long(), clean)
        return kept.sqrt() * noise - (1 - kept).sqrt() * clean

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """See :class:`Process`."""
        return TO_CLEAN["v_prediction"](x, prediction, level(self.schedule, t.long(), x)).to(x.dtype)

    def sample(
        self, predict: Predict, noise: Tensor, steps: int, constrain: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """DDIM without fresh noise."""
        start = torch.full((len(noise),), int(self.last), device=noise.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.estimate(x, predict(x, t), t)

        return ddim(denoise, noise, spaced_times(start, steps), self.schedule, constrain=constrain)


class Flow:
    r"""Flow matching on the straight line between image and noise, with Euler steps.

    With :math:`s = t / last` and :math:`D = (1 - s)^2 + s^2`, the line's velocity towards the image is
    :math:`v = z - \epsilon = ((1 - 2 s) z_s + \sqrt{D} f) / D`. Its first part is known; the network predicts
    :math:`f = (s z - (1 - s) \epsilon) / \sqrt{D}`, of unit variance at all times like the preconditioned networks of
    Karras et al. 2022, and a squared error of f is one of v, weighted by D (1/2 to 1). So a network of zeros gives the
    best linear guess, and at the end that is all noise f is the image.

    Args:
        scheduler: MONAI's ``RFlowScheduler``; its ``num_train_timesteps`` is the time of pure noise.
    """

    def __init__(self, scheduler: Any) -> None:
        self.last = float(scheduler.num_train_timesteps)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Times in (0, :attr:`last`]."""
        return self.last * (1 - torch.rand(count, generator=generator))

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """See :func:`monai_sasm.diffusion.flow.interpolate`."""
        return interpolate(clean, noise, t / self.last)

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The unknown part f of the velocity."""
        s, norm = self._share(t, clean)
        return (s * clean - (1 - s) * noise) / norm

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        r""":math:`z_s + s v = ((1 - s) z_s + s \sqrt{D} f) / D`, where the line ends."""
        s, norm = self._share(t, x)
        return (((1 - s) * x / norm + s * prediction) / norm).to(x.dtype)

    def sample(
        self, predict: Predict, noise: Tensor, steps: int, constrain: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Euler steps of equal length."""

        def estimate(x: Tensor, s: Tensor) -> Tensor:
            return self.estimate(x, predict(x, self.last * s), self.last * s)

        return euler(estimate, noise, even_shares(steps), constrain)

    def _share(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """s and the root of D, ``(B, 1, ...)``, in float32 at least."""
        s = (t / self.last).to(torch.promote_types(like.dtype, torch.float32)).view(-1, *[1] * (like.ndim - 1))
        return s, ((1 - s).square() + s.square()).sqrt()
