"""From a batch of crops to network input and target: the ``prepare_batch`` functions of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from monai_sasm.datasets.draws import Draws
from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.types import ImageBatch, NoiseMap

Prepared = tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...], dict[str, Any]]
"""Input, target, further positional network arguments, keyword arguments."""


class PrepareDegraded:
    """Degrade clean crops on the fly: input ``apply(x)``, target ``x``, the noise map as second argument.

    A batch with a key ``noisy`` has measured pairs among its images: where ``noisy`` differs from ``image`` it is the
    input, and its noise map is always estimated.

    Args:
        degradation: how the input is spoiled.
        pass_sigma: give a noise map to the network, the true one; ``False`` for networks without noise input.
        noise_estimator: image -> noise map; replaces the true map in a share ``estimated`` of the images, so that the
            network copes with both a given and an estimated map.
        estimated: that share, 0 to 1.
        change_weight: extra loss weight where the degradation changed the picture by more than ``threshold``; the
            weights travel as an additional last channel of the target (see
            :class:`monai_sasm.losses.restoration.ChangeWeightedL1`). 0 leaves the target as it is.
        threshold: smallest change, in image units, that counts.
        grey: share of the images that are made grey, with the same noise in every channel: what a grey photo looks like
            to a colour network.
        margin: pixels cut from each side after degrading, for degradations that act beyond a crop's border.
        seed: seed of the degradation draws.
        repeat: start over from ``seed`` after so many batches: the same degradations in every validation round.
    """

    def __init__(
        self,
        degradation: DegradationModel,
        pass_sigma: bool = True,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
        estimated: float = 0.0,
        change_weight: float = 0.0,
        threshold: float = 0.02,
        grey: float = 0.0,
        margin: int = 0,
        seed: int = 0,
        repeat: int | None = None,
    ) -> None:
        if estimated and noise_estimator is None:
            raise ValueError(f"estimated={estimated} needs a noise_estimator")
        self.degradation, self.pass_sigma, self.margin = degradation, pass_sigma, margin
        self.noise_estimator, self.estimated = noise_estimator, estimated
        self.change_weight, self.threshold, self.grey = change_weight, threshold, grey
        self.seed, self.repeat, self.calls = seed, repeat, 0
        self.draws = Draws(seed)

    def __call__(
        self,
        batch: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> Prepared:
        if self.repeat and self.calls % self.repeat == 0:
            self.draws.generator.manual_seed(self.seed)
        self.calls += 1
        clean = batch["image"]
        measured = (batch["noisy"] != clean).flatten(1).any(1).view(-1, 1, 1, 1) if "noisy" in batch else None
        if measured is not None and self.noise_estimator is None:
            raise ValueError("measured pairs among the clean images need a noise_estimator")
        batch_size, channels, height, width = clean.shape
        params = self.degradation.draw((batch_size, channels, height, width), self.draws.generator)
        degraded, wanted = self.degradation.apply(clean, params), reference(self.degradation, clean, params)
        if measured is not None:
            degraded, wanted = torch.where(measured, batch["noisy"], degraded), torch.where(measured, clean, wanted)
        clean = wanted
        if self.grey:
            chosen = torch.rand(batch_size, 1, 1, 1, generator=self.draws.generator) < self.grey
            error = (degraded - clean)[:, :1]
            clean = torch.where(chosen, clean.mean(1, keepdim=True), clean)
            degraded = torch.where(chosen, clean + error, degraded)
        degraded, clean = self._inner(degraded), self._inner(clean)
        target = _weighted(clean, degraded, self.change_weight, self.threshold)
        arguments = (self._map(degraded, self._inner(params.sigma), measured),) if self.pass_sigma else ()
        return _to(degraded, target, arguments, device, non_blocking)

    def _inner(self, image: torch.Tensor) -> torch.Tensor:
        height, width = (side - self.margin for side in image.shape[-2:])
        return image[..., self.margin : height, self.margin : width]

    def _map(self, degraded: torch.Tensor, sigma: torch.Tensor, measured: torch.Tensor | None) -> torch.Tensor:
        if self.noise_estimator is None or not (self.estimated or measured is not None):
            return sigma
        chosen = torch.rand(len(sigma), 1, 1, 1, generator=self.draws.generator) < self.estimated
        if measured is not None:
            chosen = chosen | measured
        return torch.where(chosen, self.noise_estimator(degraded), sigma)


class OneOf:
    """A degradation drawn from several for each batch.

    Args:
        degradations: the choices.
        weights: their relative frequencies; equal when ``None``.
    """

    def __init__(self, degradations: Sequence[DegradationModel], weights: Sequence[float] | None = None) -> None:
        self.degradations = list(degradations)
        self.weights = torch.tensor([1.0] * len(self.degradations) if weights is None else list(weights))
        if len(self.weights) != len(self.degradations) or not self.degradations:
            raise ValueError(
                f"one weight per degradation is needed, got {len(self.weights)} for {len(self.degradations)}"
            )
        if float(self.weights.min()) < 0 or not float(self.weights.sum()) > 0:
            raise ValueError(f"weights must not be negative nor all 0, got {self.weights.tolist()}")

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> OneOfParams:
        """Choose a degradation and draw its parameters for a batch ``(B, C, H, W)``."""
        choice = int(torch.multinomial(self.weights, 1, generator=generator))
        return OneOfParams(choice, self.degradations[choice].draw(shape, generator))

    def apply(self, clean: ImageBatch, params: OneOfParams) -> ImageBatch:
        """Apply the chosen degradation."""
        return self.degradations[params.choice].apply(clean, params.chosen)

    def reference(self, clean: ImageBatch, params: OneOfParams) -> ImageBatch:
        """What a perfect restoration returns, see :func:`monai_sasm.degradations.degradation.reference`."""
        return reference(self.degradations[params.choice], clean, params.chosen)


@dataclass(frozen=True)
class OneOfParams:
    """One draw of :class:`OneOf`: which degradation, and its parameters."""

    choice: int
    chosen: Any

    @property
    def sigma(self) -> NoiseMap:
        """Noise map ``(B, 1, H, W)`` of the chosen degradation."""
        return self.chosen.sigma

    @property
    def mask(self) -> NoiseMap:
        """Where the chosen degradation acted, ``(B, 1, H, W)``."""
        return self.chosen.mask


class PreparePaired:
    """Use measured pairs: input ``noisy``, target ``clean``, the *estimated* noise map as second argument.

    With probability ``rescale`` a pair's noise ``noisy - clean`` is multiplied by a factor drawn from
    ``rescale_range``, so that one set of pairs teaches a range of doses. Where the clean image is NaN it is not known,
    and the noise stays.

    Args:
        noise_estimator: image -> noise map, the same one the network uses on images without a given map.
        rescale: probability of rescaling, 0 to 1.
        rescale_range: smallest and largest factor.
        change_weight: extra loss weight of changed pixels, as in :class:`PrepareDegraded`.
        threshold: smallest change, in image units, that counts.
        seed: seed of the draws.
    """

    def __init__(
        self,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
        rescale: float = 0.0,
        rescale_range: tuple[float, float] = (0.4, 1.2),
        change_weight: float = 0.0,
        threshold: float = 0.02,
        seed: int = 0,
    ) -> None:
        self.change_weight, self.threshold = change_weight, threshold
        self.noise_estimator, self.rescale, self.rescale_range = noise_estimator, rescale, tuple(rescale_range)
        self.draws = Draws(seed)

    def __call__(
        self,
        batch: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> Prepared:
        clean, noisy = batch["clean"], batch["noisy"]
        if self.rescale and clean.shape != noisy.shape:
            raise ValueError(
                "noise is rescaled where the clean image is known, that of neighbours is not; leave rescale at 0, or "
                f"neighbours out; got {tuple(clean.shape)} and {tuple(noisy.shape)}"
            )
        low, high = self.rescale_range
        factor = low + (high - low) * torch.rand(len(clean), 1, 1, 1, generator=self.draws.generator)
        keep = torch.rand(len(clean), 1, 1, 1, generator=self.draws.generator) >= self.rescale
        unknown = clean.isnan()  # where its noise cannot be told
        noisy = torch.where(keep | unknown, noisy, clean + factor * (noisy - clean))
        target = _weighted(clean, noisy, self.change_weight, self.threshold)
        arguments = (self.noise_estimator(noisy),) if self.noise_estimator is not None else ()
        return _to(noisy, target, arguments, device, non_blocking)


def _weighted(clean: torch.Tensor, degraded: torch.Tensor, change_weight: float, threshold: float) -> torch.Tensor:
    """``clean`` with the loss weights as last channel; without it when nothing is to be weighted."""
    if not change_weight:
        return clean
    changed = (degraded - clean).abs().amax(1, keepdim=True) > threshold
    return torch.cat([clean, 1 + change_weight * changed], 1)


def _to(
    degraded: torch.Tensor,
    target: torch.Tensor,
    arguments: tuple[torch.Tensor, ...],
    device: str | torch.device | None,
    non_blocking: bool,
) -> Prepared:
    moved = [tensor.to(device, non_blocking=non_blocking) for tensor in (degraded, target, *arguments)]
    return moved[0], moved[1], tuple(moved[2:]), {}
