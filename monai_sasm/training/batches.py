"""From a batch of crops to network input and target: the ``prepare_batch`` functions of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.types import ImageBatch, NoiseMap

Prepared = tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...], dict[str, Any]]
"""Input, target, further positional network arguments, keyword arguments."""


class PrepareDegraded:
    """Degrade clean crops on the fly: input ``apply(x)``, target ``x``, the true noise map as second argument.

    Args:
        degradation: how the input is spoiled.
        pass_sigma: give the drawn noise map to the network; ``False`` for networks without noise input.
        change_weight: extra loss weight where the degradation changed the picture by more than ``threshold``; the
            weights travel as an additional last channel of the target (see
            :class:`monai_sasm.losses.ChangeWeightedL1`). 0 leaves the target as it is.
        threshold: smallest change, in image units, that counts.
        seed: seed of the degradation draws.
    """

    def __init__(
        self,
        degradation: DegradationModel,
        pass_sigma: bool = True,
        change_weight: float = 0.0,
        threshold: float = 0.02,
        seed: int = 0,
    ) -> None:
        self.degradation, self.pass_sigma = degradation, pass_sigma
        self.change_weight, self.threshold = change_weight, threshold
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, batch: Mapping[str, torch.Tensor], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
    ) -> Prepared:
        clean = batch["image"]
        params = self.degradation.draw(tuple(clean.shape), self.generator)
        degraded = self.degradation.apply(clean, params)
        target = clean
        if self.change_weight:
            changed = (degraded - clean).abs().amax(1, keepdim=True) > self.threshold
            target = torch.cat([clean, 1 + self.change_weight * changed], 1)
        arguments = (params.sigma.to(device, non_blocking=non_blocking),) if self.pass_sigma else ()
        return degraded.to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking), arguments, {}


class PreparePaired:
    """Use measured pairs: input ``noisy``, target ``clean``, the *estimated* noise map as second argument.

    With probability ``rescale`` a pair's noise ``noisy - clean`` is multiplied by a factor drawn from
    ``rescale_range``, so that one set of pairs teaches a range of doses.

    Args:
        noise_estimator: image -> noise map, the same one the network uses on images without a given map.
        rescale: probability of rescaling, 0 to 1.
        rescale_range: smallest and largest factor.
        seed: seed of the draws.
    """

    def __init__(
        self,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
        rescale: float = 0.0,
        rescale_range: tuple[float, float] = (0.4, 1.2),
        seed: int = 0,
    ) -> None:
        self.noise_estimator, self.rescale, self.rescale_range = noise_estimator, rescale, tuple(rescale_range)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, batch: Mapping[str, torch.Tensor], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
    ) -> Prepared:
        clean, noisy = batch["clean"], batch["noisy"]
        low, high = self.rescale_range
        factor = low + (high - low) * torch.rand(len(clean), 1, 1, 1, generator=self.generator)
        keep = torch.rand(len(clean), 1, 1, 1, generator=self.generator) >= self.rescale
        noisy = clean + torch.where(keep, torch.ones_like(factor), factor) * (noisy - clean)
        noisy = noisy.to(device, non_blocking=non_blocking)
        arguments = (self.noise_estimator(noisy),) if self.noise_estimator is not None else ()
        return noisy, clean.to(device, non_blocking=non_blocking), arguments, {}
