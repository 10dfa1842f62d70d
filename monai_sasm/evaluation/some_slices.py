"""Some slices of a volume, restored as the whole volume would be: between its neighbours, in its scale, by its gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_sasm.functional.noise import volume_noise_level
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.shelter import darkest, with_change


@dataclass(frozen=True, eq=False)
class Outcome:
    """What some slices of a volume became.

    Args:
        after: ``(N, c, H, W)`` at full strength, in the unit of the volume.
        weights: class -> ``(N, H, W)`` of those that act somewhere.
        noise: of their tissue, as the networks read it, in working scale.
    """

    after: NDArray[np.float32]
    weights: dict[str, NDArray[np.float32]]
    noise: float


RestoreSome = Callable[[Volume, Sequence[int]], Outcome]
"""A volume and the indices of the slices that are wanted -> what they became."""


def by_plan(plan: Plan) -> RestoreSome:
    """What the networks of a plan make of them; its strength is not looked at."""
    from monai_sasm.restoration.on_demand import OnDemand

    def restore(volume: Volume, indices: Sequence[int]) -> Outcome:
        slices = OnDemand(volume, replace(plan, options=replace(plan.options, keep_maps=True)))
        for index in indices:
            slices.restore(index)
        maps = [slices.weights(index) for index in indices]
        natives = [slices.natives[index] for index in indices]
        none = np.zeros(slices.natives[0].shape[1:], np.uint8)
        return Outcome(
            after=np.stack(
                [
                    with_change(native, slices.change(index), darkest(native, plan.modality.profile))
                    for native, index in zip(natives, indices, strict=True)
                ]
            ),
            weights={
                name: np.stack([one.get(name, none) for one in maps]).astype(np.float32) / np.float32(255)
                for name in plan.classes
                if any(name in one for one in maps)
            },
            noise=volume_noise_level([slices.noise(index) for index in indices]),
        )

    return restore
