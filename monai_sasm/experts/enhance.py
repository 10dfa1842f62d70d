"""One diffusion model for three jobs on photos: denoising, super-resolution and inpainting.

Diffused is not the photo but what the simplest restoration, the base, lacks: :math:`z = 2 (x - base) / scale`. A
network that predicts nothing thus returns the base, and one step from the last time on is plain regression: the mean of
all photos that fit, which is the best PSNR. More steps draw one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_sasm.degradations.downsampling import downsample, upsample
from monai_sasm.diffusion.denoising import Denoiser
from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.diffusion.sampling import ddim, spaced_times
from monai_sasm.experts.filling import fill_holes
from monai_sasm.functional.recorded import Recorded, refuse_recording
from monai_sasm.types import ImageBatch, NoiseMap

JOBS = ("denoise", "superresolve x2", "superresolve x4", "inpaint")
FACTORS = {"superresolve x2": 2, "superresolve x4": 4}
CONDITIONS = 8  # channels: base (3), its detail (3), known pixels, noise level
DETAIL = 2.0  # pixels; detail is what a Gaussian blur this wide removes
PERIOD = 128  # pixels after which the starting noise repeats; borders of tiles lie on multiples of it
BASE_PROJECTIONS = 2  # rounds of back-projection after bicubic upsampling
PROJECTIONS = 10  # rounds at the end: a mean error below 0.1 grey levels of 255


class EnhanceDiffusion(Recorded):
    """Denoises, enlarges and completes photos by conditional residual diffusion.

    Args:
        network: UNet with MONAI's call and as many classes as :data:`JOBS`; 3 channels of ``x_t`` and
            :data:`CONDITIONS` more in, 3 out.
        scheduler: MONAI scheduler whose last level is almost pure noise.
        noise_estimator: image -> noise map, used when no map is given.
        scale: about the root mean square of what the base of each job lacks, in [-1, 1] units; in the order of
            :data:`JOBS`. Scaled so, the jobs weigh the same in a squared error.
        steps: DDIM steps; 1 gives the mean of the possible photos, more draw one.
        eta: share of fresh noise per step, see :func:`monai_sasm.diffusion.sampling.ddim`.
        seed: of all noise.
        zero_init: start with a network that returns the base, by zeroing its last layer.
        channels: of what is diffused; other than 3 in the latent variant.
        patch: side in photo pixels of one pixel of what is diffused.
    """

    def __init__(
        self,
        network: nn.Module,
        scheduler: Any,
        noise_estimator: Callable[[ImageBatch], NoiseMap],
        scale: Sequence[float] = (0.4, 0.15, 0.22, 0.3),
        steps: int = 1,
        eta: float = 0.0,
        seed: int = 0,
        zero_init: bool = False,
        channels: int = 3,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if steps < 1 or not 0 <= eta <= 1:
            raise ValueError(f"steps must be at least 1 and eta in [0, 1], got steps={steps} and eta={eta}")
        if len(scale) != len(JOBS) or not min(scale) > 0:
            raise ValueError(f"scale must be {len(JOBS)} positive numbers, one per job {JOBS}; got {list(scale)}")
        self.channels, self.patch = channels, patch
        self.denoiser = Denoiser(BlankStart(network, channels, scheduler.num_train_timesteps - 1), scheduler)
        # pure noise to the last digit (Lin et al. 2024, WACV): cosine schedules end with 2e-9 of the signal's variance
        self.denoiser.schedule = torch.cat([self.denoiser.schedule[:-1], torch.zeros(1)])
        self.noise_estimator = noise_estimator
        self.scale, self.steps, self.eta, self.seed = tuple(scale), steps, eta, seed
        initialize_output(network, zero_init)

    def forward(self, image: ImageBatch, sigma: NoiseMap | None = None) -> ImageBatch:
        """Denoise photos ``(B, 3, H, W)`` in [0, 1]; ``sigma`` ``(B, 1, H, W)`` is estimated if missing."""
        noise = self.noise_estimator(image) if sigma is None else sigma
        return self._sample("denoise", image, torch.ones_like(image[:, :1]), noise)

    def inpaint(
        self, image: ImageBatch, known: Tensor, steps: int | None = None, eta: float | None = None
    ) -> ImageBatch:
        """Complete photos.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1]; values in holes do not matter.
            known: ``(B, 1, H, W)``, 1 where measured, 0 in holes.
            steps: DDIM steps; the configured number when ``None``.
            eta: share of fresh noise per step; the configured one when ``None``.

        Returns:
            ``(B, 3, H, W)``: holes filled with values in [0, 1], known pixels as they came, to the last bit.
        """
        if known.shape != image[:, :1].shape:
            raise ValueError(
                f"known must be (B, 1, H, W) of the image, {tuple(image[:, :1].shape)}; got {tuple(known.shape)}"
            )
        known = (known > 0.5).to(image.dtype)
        base = fill_holes(image, known)

        def keep_known(estimate: Tensor) -> Tensor:
            return torch.where(known > 0, base, estimate)

        filled = self._sample("inpaint", base, known, torch.zeros_like(known), steps, eta, keep_known)
        return torch.where(known > 0, image, filled.clamp(0, 1))

    def superresolve(
        self, image: ImageBatch, factor: int, steps: int | None = None, eta: float | None = None
    ) -> ImageBatch:
        """Enlarge photos ``(B, 3, h, w)`` in [0, 1] to ``(B, 3, h * factor, w * factor)`` in [0, 1].

        The result comes close to ``image`` when downsampled again
        (:func:`monai_sasm.degradations.downsampling.downsample`), see :func:`back_project`.

        Args:
            image: the small photos.
            factor: 2 or 4.
            steps: DDIM steps; the configured number when ``None``.
            eta: share of fresh noise per step; the configured one when ``None``.
        """
        job = next((job for job, known in FACTORS.items() if known == factor), None)
        if job is None:
            raise ValueError(f"factor must be one of {sorted(FACTORS.values())}, got {factor}")

        def consistent(estimate: Tensor) -> Tensor:
            return back_project(estimate, image, factor)

        base = enlarged(image, factor)
        everywhere = torch.ones_like(base[:, :1])
        result = self._sample(job, base, everywhere, torch.zeros_like(everywhere), steps, eta, consistent)
        for _ in range(PROJECTIONS):
            result = consistent(result).clamp(0, 1)
        return result

    def _sample(
        self,
        job: str,
        base: ImageBatch,
        known: Tensor,
        sigma: NoiseMap,
        steps: int | None = None,
        eta: float | None = None,
        constrain: Callable[[ImageBatch], ImageBatch] | None = None,
    ) -> ImageBatch:
        """Sample photos from pure noise on; ``constrain`` acts on each estimate of the photo, in [0, 1]."""
        label = torch.full((len(base),), JOBS.index(job), device=base.device)
        condition = self.conditions(base, known, sigma, label)
        generator = torch.Generator(base.device).manual_seed(self.seed)

        def denoise(z: Tensor, t: Tensor) -> Tensor:
            return self.denoiser.denoise(z, t, label, condition)

        def constrain_diffused(z: Tensor) -> Tensor:
            return z if constrain is None else self.constrained(z, base, label, constrain)

        schedule = self.denoiser.schedule
        times = spaced_times(label.new_full((len(base),), len(schedule) - 1), self.steps if steps is None else steps)
        z = starting_noise(condition[:, : self.channels], self.seed, PERIOD // self.patch)
        z = ddim(denoise, z, times, schedule, self.eta if eta is None else eta, generator, constrain_diffused)
        return self.completed(z, base, label)

    def lacking(self, image: ImageBatch, base: ImageBatch, job: Tensor) -> Tensor:
        """What is diffused, ``(B, 3, H, W)``: what ``base`` lacks of ``image``, both in [0, 1]; ``job`` ``(B,)``."""
        return 2 * (image - base) / self.scale_of(job, base)  # 2: the step from [0, 1] to [-1, 1]

    def completed(self, z: Tensor, base: ImageBatch, job: Tensor) -> ImageBatch:
        """The photo of which ``base`` lacks ``z``: :meth:`lacking` undone."""
        return base + self.scale_of(job, base) / 2 * z

    def constrained(
        self, z: Tensor, base: ImageBatch, job: Tensor, constrain: Callable[[ImageBatch], ImageBatch]
    ) -> Tensor:
        """``z`` after ``constrain`` has put measured data back into its photo."""
        return self.lacking(constrain(self.completed(z, base, job)), base, job)

    def conditions(self, base: ImageBatch, known: Tensor, sigma: NoiseMap, job: Tensor) -> Tensor:
        """Further input channels ``(B, 8, H, W)``: base, its detail, known pixels, noise level.

        All in the units of [-1, 1] but the detail, which is in the scale of z: faint beside the contrast of the base,
        it says most about what is lacking.
        """
        detail = 2 * (base - lowpass(base, DETAIL)) / self.scale_of(job, base)
        return torch.cat([2 * base - 1, detail, known, 2 * sigma], 1)

    def scale_of(self, job: Tensor, like: Tensor) -> Tensor:
        """:attr:`scale` of each job ``(B,)`` as ``(B, 1, 1, 1)``."""
        return torch.tensor(self.scale).to(like)[job].view(-1, 1, 1, 1)


class BlankStart(nn.Module):
    """Shows a network zeros for ``x_t`` at the last time.

    There ``x_t`` is noise without a trace of the photo, and zero, its mean, says as much. A network that is shown the
    noise has to learn to disregard it; after 40,000 crops what leaked through still cost 0.9 dB in one step.

    Args:
        network: UNet with MONAI's call.
        channels: leading channels that are ``x_t``; the others are conditions.
        last: the time of pure noise.
    """

    def __init__(self, network: nn.Module, channels: int, last: float) -> None:
        super().__init__()
        self.network, self.channels, self.last = network, channels, last

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """Same arguments as the network."""
        blank = (timesteps == self.last).view(-1, 1, 1, 1)
        shown = torch.cat([x[:, : self.channels].masked_fill(blank, 0), x[:, self.channels :]], 1)
        prediction: Tensor = self.network(shown, timesteps=timesteps, context=context, class_labels=class_labels)
        return prediction


def base_of(job: str, clean: ImageBatch, noisy: ImageBatch, known: Tensor) -> ImageBatch:
    """The simplest restoration that a job starts from, for photos of which the truth is known.

    Args:
        job: one of :data:`JOBS`.
        clean: ``(B, 3, H, W)``, sides multiples of 4.
        noisy: the same with noise.
        known: ``(B, 1, H, W)``, 0 in holes.
    """
    if job in FACTORS:
        return enlarged(downsample(clean, FACTORS[job]), FACTORS[job])
    return fill_holes(clean, known) if job == "inpaint" else noisy


def enlarged(small: ImageBatch, factor: int) -> ImageBatch:
    """The base of super-resolution: bicubic upsampling, back-projected."""
    image = upsample(small, factor)
    for _ in range(BASE_PROJECTIONS):
        image = back_project(image, small, factor)
    return image


def back_project(image: ImageBatch, small: ImageBatch, factor: int) -> ImageBatch:
    """One round towards an ``image`` that gives ``small`` when downsampled (Irani & Peleg 1991, CVGIP 53(3))."""
    return image + upsample(small - downsample(image, factor), factor)


def starting_noise(like: Tensor, seed: int, period: int = PERIOD) -> Tensor:
    """Standard normal noise ``(B, C, H, W)`` that repeats every ``period`` pixels, the same for every image.

    So a pixel gets the same noise in whichever tile it lies.
    """
    refuse_recording("a network that begins with noise")
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(1, like.shape[1], period, period, generator=generator)
    rows, columns = (torch.arange(side) % period for side in like.shape[-2:])
    return field[:, :, rows][..., columns].to(like).expand(like.shape)


def initialize_output(network: nn.Module, zero: bool) -> None:
    """Zero the last convolution of ``network``, or draw it: MONAI's UNet comes with zeros."""
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    last.reset_parameters()
    if zero:
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
