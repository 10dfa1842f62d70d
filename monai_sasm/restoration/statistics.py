"""What is noted of each slice: which expert acted where, what a refiner changed, how sure the expert was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.functional.noise import noise_level
from monai_sasm.gate.pixel_weights import PixelWeights
from monai_sasm.types import NoiseMap


class SliceStatistics:
    """Collects weights, noise levels and the like of all slices, in full only when maps are wanted.

    Args:
        names: of the classes, the identity first.
        keep: whether maps are wanted.
        count: number of slices.
    """

    def __init__(self, names: tuple[str, ...], keep: bool, count: int) -> None:
        self.names, self.keep, self.count = names, keep, count
        self.first = 0  # index of the first slice of the batch at hand
        self.means: list[dict[int, NDArray[np.float64]]] = []
        self.kept: dict[str, list[NDArray[np.float32]]] = {}
        self.sigmas: list[float] = []
        self.trusts: list[NDArray[np.float32]] = []
        self.mean_trusts: list[float] = []
        self.spreads: list[NDArray[np.float32]] = []

    def add(self, weights: PixelWeights, sigma: NoiseMap, number: int, active: Sequence[bool] = (True,)) -> None:
        """Weights ``(B, E, H, W)`` and noise map of pass ``number`` over the next slices, or over the same ones.

        ``active`` says in which slices something acts; a later pass is noted of those only.
        """
        if number == 0:
            self.first = len(self.means)
            self.means += [{} for _ in range(weights.shape[0])]
            self.sigmas += noise_level(sigma)
        means, whole = weights.mean().cpu().double().numpy(), weights.whole() if self.keep else None
        for index, acting in enumerate(active):
            if not acting:
                continue
            self.means[self.first + index][number] = means[index]
            for name, weight in zip(self.names, whole[index], strict=True) if whole is not None else ():
                label = name if number == 0 else f"{name}, pass {number + 1}"
                self.kept.setdefault(label, []).append(weight.cpu().numpy())

    def extend(self, later: SliceStatistics) -> None:
        """What was noted of the next slices, elsewhere."""
        for own, other in (
            (self.means, later.means),
            (self.sigmas, later.sigmas),
            (self.trusts, later.trusts),
            (self.mean_trusts, later.mean_trusts),
            (self.spreads, later.spreads),
        ):
            own += other  # type: ignore[operator]
        for label, maps in later.kept.items():
            self.kept.setdefault(label, []).extend(maps)

    def add_trust(self, trust: NoiseMap) -> None:
        """What share of a refiner's change was used in the next slices, ``(B, 1, H, W)``."""
        for one in trust:
            self.mean_trusts.append(float(one.mean()))
            if self.keep:
                self.trusts.append(one[0].cpu().numpy())

    def add_uncertainty(self, spread: NoiseMap) -> None:
        """Standard deviation ``(B, 1, H, W)`` of what the expert might have made of the next slices, working scale."""
        self.spreads += [one[0].float().cpu().numpy() for one in spread]

    def uncertainty(self, scales: NDArray[np.float64]) -> NDArray[np.float32] | None:
        """``(N, H, W)``, times ``scales`` ``(N,)``; ``None`` where no expert draws samples."""
        return scales.astype(np.float32)[:, None, None] * np.stack(self.spreads) if self.spreads else None

    def trust(self) -> NDArray[np.float32] | None:
        """``(N, H, W)``; ``None`` where nothing was refined."""
        return np.stack(self.trusts) if self.trusts else None

    def maps(self) -> dict[str, NDArray[np.float32]]:
        """Maps of every pass that ran for all slices; a skipped later pass is left out."""
        return {name: np.stack(maps) for name, maps in self.kept.items() if len(maps) == self.count}

    def summary(self) -> dict[str, Any]:
        """Mean weight per class, passes, mean trust."""
        first = np.mean([means[0] for means in self.means], axis=0)
        return {
            "weights": {name: round(float(weight), 4) for name, weight in zip(self.names, first, strict=True)},
            "passes": max(len(means) for means in self.means),
        } | ({"trust": round(float(np.mean(self.mean_trusts)), 4)} if self.mean_trusts else {})
