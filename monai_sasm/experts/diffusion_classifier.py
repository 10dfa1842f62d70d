"""A label-conditioned diffusion model as denoiser, generator and classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from monai_sasm.diffusion.denoising import level, noise_to_signal
from monai_sasm.diffusion.guidance import OptionalLabel, guided
from monai_sasm.diffusion.sampling import ddim, spaced_times
from monai_sasm.experts.ddpm import DdpmExpert, schedule_sigma
from monai_sasm.types import ImageBatch, NoiseMap

GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill the unit interval evenly however many are taken


class DiffusionClassifier(DdpmExpert):
    r"""Classifies by the label whose noise prediction fits best (Li et al. 2023, Clark & Jaini 2023).

    Noise :math:`\epsilon` is added to the image until time t and predicted for every label; the label with the smallest
    mean error wins. All labels see the same pairs (t, :math:`\epsilon`), so their errors differ by the labels alone,
    and labels that fall behind are dropped after a few pairs (successive halving), so that most pairs are spent on the
    few that are hard to tell apart.

    An image that already has noise :math:`\sigma` lies on the schedule where that noise is normal. Only the noise that
    is missing is added: :math:`x_t = \sqrt{\bar\alpha_t} y + b \epsilon` with
    :math:`b^2 = 1 - \bar\alpha_t - \bar\alpha_t (2 \sigma)^2`. The network predicts both noises together; of the added
    one, :math:`b / \sqrt{1 - \bar\alpha_t}` times that is to be expected (Tweedie), and compared with
    :math:`\epsilon`.

    Args:
        network: UNet with MONAI's call and ``classes + 1`` labels, the last for 'none': embedded, or the heads of
            :class:`~monai_sasm.diffusion.label_heads.LabelHeads`, which one pass answers all.
        scheduler: MONAI scheduler with ``epsilon`` prediction that the network was trained with.
        noise_estimator: image -> noise map, used when no noise level is given.
        classes: number of classes.
        times: noise added for classification, as first and last time index for an image without noise of its own.
        rounds: (labels still asked, pairs) of each round of the elimination; labels must not rise.
        relative: divide the errors of a pair by their mean over the labels, so that times with much noise, where all
            errors are small, count as much as those with little.
        steps, eta, pin, seed, zero_init: see :class:`~monai_sasm.experts.ddpm.DdpmExpert`.
    """

    def __init__(
        self,
        network: nn.Module,
        scheduler: Any,
        noise_estimator: Callable[[ImageBatch], NoiseMap],
        classes: int = 10,
        times: tuple[int, int] = (20, 300),
        rounds: Sequence[tuple[int, int]] = ((10, 4), (5, 4), (3, 8), (2, 16)),
        relative: bool = False,
        steps: int = 1,
        eta: float = 0.0,
        pin: float = 0.0,
        seed: int = 0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(
            OptionalLabel(network, classes),
            scheduler,
            noise_estimator,
            steps=steps,
            eta=eta,
            pin=pin,
            seed=seed,
            zero_init=zero_init,
        )
        self.classes, self.times, self.relative = classes, tuple(times), relative
        self.rounds = [(labels, pairs) for labels, pairs in rounds]
        if self.denoiser.prediction != "epsilon":
            raise ValueError(
                f"classification compares noise; prediction_type must be 'epsilon', got {self.denoiser.prediction!r}"
            )
        if not 0 <= self.times[0] <= self.times[1] < len(self.denoiser.schedule):
            raise ValueError(f"times must rise within 0 to {len(self.denoiser.schedule) - 1}, got {self.times}")
        asked = [labels for labels, _ in self.rounds]
        if not asked or asked[0] != classes or asked != sorted(asked, reverse=True) or asked[-1] < 1:
            raise ValueError(f"rounds must begin with all {classes} labels and keep fewer and fewer, got {self.rounds}")

    @property
    def passes(self) -> int:
        """Network passes per image that :meth:`classify` takes."""
        shared = cast(OptionalLabel, self.denoiser.network).shared
        return sum(pairs if shared else labels * pairs for labels, pairs in self.rounds)

    def classify(
        self, image: ImageBatch, sigma: NoiseMap | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """How well each label fits.

        Args:
            image: photos ``(B, 3, H, W)`` in [0, 1], about as large as those of the training.
            sigma: their noise level ``(B, 1, H, W)``, estimated if missing; its root mean square is used.
            generator: source of the noise; the same noise for every call if missing.

        Returns:
            ``(B, classes)``: minus the mean excess error over the best label, on the pairs both have seen. The best
            has 0; no label that was dropped is above one that was kept.
        """
        own = schedule_sigma(self.noise_estimator(image) if sigma is None else sigma)
        draw = torch.Generator(image.device).manual_seed(self.seed) if generator is None else generator
        kept = torch.arange(self.classes, device=image.device).expand(len(image), -1)
        errors = torch.full((len(image), self.classes, sum(pairs for _, pairs in self.rounds)), torch.nan)
        errors = errors.to(image.device)
        seen = 0
        for labels, pairs in self.rounds:
            if seen:
                best = errors[..., :seen].mean(2).gather(1, kept).topk(labels, 1, largest=False).indices
                kept = kept.gather(1, best)
            for pair in range(seen, seen + pairs):
                noise = torch.randn(image.shape[1:], generator=draw, device=image.device)
                errors[..., pair].scatter_(1, kept, self._errors(image, own, kept, self._time(pair), noise))
            seen += pairs
        return _scores(errors, kept)

    def generate(
        self,
        labels: Tensor,
        guidance: float = 2.0,
        steps: int = 50,
        seed: int = 0,
        size: int = 32,
        observe: Callable[[Tensor, Tensor], None] | None = None,
    ) -> ImageBatch:
        """New images of the given classes.

        Args:
            labels: class index ``(B,)``; ``classes`` itself stands for 'none'.
            guidance: see :func:`monai_sasm.diffusion.guidance.guided`.
            steps: DDIM steps from pure noise.
            seed: of the noise to begin with.
            size: side in pixels; the model knows that of its training.
            observe: see :func:`monai_sasm.diffusion.sampling.ddim`; in [-1, 1].

        Returns:
            ``(B, 3, size, size)`` in [0, 1].
        """
        schedule = self.denoiser.schedule
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(len(labels), 3, size, size, generator=generator).to(labels.device)
        times = spaced_times(torch.full((len(labels),), len(schedule) - 1, device=labels.device), steps)
        denoise = guided(self.denoiser, labels, self.classes, guidance)
        clean = ddim(denoise, x, times, schedule, constrain=lambda image: image.clamp(-1, 1), observe=observe)
        return (clean + 1) / 2

    def _time(self, pair: int) -> int:
        """Time index of a pair for an image without noise; the first so many are spread evenly, however many."""
        first, last = self.times
        return round(first + (last - first) * ((0.5 + pair * GOLDEN) % 1))

    def _errors(self, image: ImageBatch, own: Tensor, labels: Tensor, time: int, noise: Tensor) -> Tensor:
        """Mean squared error ``(B, L)`` of the added noise for each of ``labels`` ``(B, L)``, relative if asked for.

        Args:
            image: in [0, 1].
            own: noise that the image has, ``(B,)``, for images in [-1, 1].
            labels: those still asked.
            time: at which an image without noise is asked; the same variance is added to a noisy one.
            noise: ``(3, H, W)``, the same for all images and labels.
        """
        schedule = self.denoiser.schedule
        ratio = noise_to_signal(schedule)
        wanted = (ratio[time] ** 2 + own.cpu() ** 2).sqrt()
        t = torch.searchsorted(ratio, wanted).clamp_max(len(ratio) - 1).to(image.device)
        kept = level(schedule, t, image)
        # the part of the noise at t that the image does not have yet
        missing = (1 - kept - kept * own.view(-1, 1, 1, 1).to(image) ** 2).clamp_min(0).sqrt()
        x = kept.sqrt() * (2 * image - 1) + missing * noise
        predicted = self.denoiser.network(x, timesteps=t, class_labels=labels)  # (B, L, 3, H, W)
        share = (missing / (1 - kept).sqrt())[:, None]
        errors = (noise - share * predicted).float().square().mean((2, 3, 4))
        return errors / errors.mean(1, keepdim=True) if self.relative else errors


def _scores(errors: Tensor, kept: Tensor) -> Tensor:
    """Scores ``(B, classes)`` from errors ``(B, classes, pairs)``, NaN where not asked; ``kept`` saw all pairs."""
    final = errors.mean(2).gather(1, kept)
    winner = kept.gather(1, final.argmin(1, keepdim=True))
    best = errors.gather(1, winner[..., None].expand(-1, -1, errors.shape[2]))
    scores = -(errors - best).nanmean(2)
    worst = scores.gather(1, kept).amin(1, keepdim=True)
    dropped = errors[..., -1].isnan()
    return torch.where(dropped, scores.minimum(worst), scores)
