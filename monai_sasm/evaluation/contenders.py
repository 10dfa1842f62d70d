"""The networks that are set side by side: one restoration task, one training budget, one contender per network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.context import Context, torch_device
from monai_sasm.functional.neighbours import slab_batch

Image = NDArray[np.float32]
STEPS = (1, 2, 4, 10)
NAMES = {
    "unet": "U-Net",
    "single_slice": "U-Net, single slice",
    "esrgan": "ESRGAN",
    "restormer": "Restormer",
    "dit": "DiT",
    "sit": "SiT",
}
SAMPLED = ("dit", "sit")  # restore in a chosen number of steps
OVERLAYS = {"restormer": "unet", "single_slice": "unet"}  # a variant of another network's bundle
BATCH = 16  # slices at a time


@dataclass(frozen=True)
class Contender:
    """One network, in one number of sampling steps.

    Args:
        name: as printed, ``"SiT, 4 steps"``.
        restore: stack of slices ``(N, H, W)`` in working scale -> the restored stack.
        parameters: number of trained weights.
        steps: of sampling; 0 for a network that needs none.
        neighbours: slices on each side that it sees.
    """

    name: str
    restore: Callable[[Image], Image]
    parameters: int
    steps: int = 0
    neighbours: int = 0

    @property
    def sampled(self) -> bool:
        """Whether it is a diffusion model, whose samples may show what was never measured."""
        return self.steps > 0


def contenders(
    context: Context, family: str, networks: Sequence[str] = tuple(NAMES), steps: Sequence[int] = STEPS
) -> tuple[list[Contender], tuple[str, ...]]:
    """Those whose bundles and weights are there, and a flag that names the others.

    Args:
        context: hands over the networks.
        family: the bundles are ``<family>_<network>``.
        networks: keys of :data:`NAMES`, in print order.
        steps: of the networks in :data:`SAMPLED`.
    """
    from monai_sasm.errors import BundleError

    if context.restorers and not context.networks:  # a trial of the restorers handed over
        return [], ()
    found: list[Contender] = []
    missing = []
    for kind in networks:
        try:
            network = context.network(f"{family}_{OVERLAYS.get(kind, kind)}", kind if kind in OVERLAYS else None)
        except BundleError:
            missing.append(NAMES[kind])
            continue
        count = sum(weight.numel() for weight in network.parameters())
        for step in steps if kind in SAMPLED else (0,):
            name = NAMES[kind] + (f", {step} step{'s' * (step > 1)}" if step else "")
            restore = _restorer(network, step, torch_device(context.device))
            found.append(Contender(name, restore, count, step, getattr(network, "neighbours", 0)))
    flag = f"{', '.join(missing)} left out: no bundle {family}_* with trained weights"
    return found, (flag,) if missing else ()


def _restorer(network: Any, steps: int, device: str) -> Callable[[Image], Image]:
    import torch

    def restore(stack: Image) -> Image:
        batch = torch.from_numpy(np.ascontiguousarray(stack, np.float32))[:, None]
        batch = slab_batch(batch, getattr(network, "neighbours", 0))
        with torch.inference_mode():
            parts = [
                network.restore(part.to(device), steps=steps) if steps else network(part.to(device))
                for part in batch.split(BATCH)
            ]
        restored: Image = torch.cat(parts)[:, 0].float().cpu().numpy()
        return restored

    return restore
