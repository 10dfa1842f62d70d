"""The networks that are set side by side: one restoration task, one training budget, one contender per network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.restoring import restoring, with_settings
from monai_sasm.evaluation.scoring import Method
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.bundles import Bundle
    from monai_sasm.restoration.restorer import Restorer

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


@dataclass(frozen=True)
class Contender:
    """One network, in one number of sampling steps.

    Args:
        name: as printed, ``"SiT, 4 steps"``.
        bundle: its expert.
        steps: of sampling; 0 for a network that needs none.
    """

    name: str
    bundle: Bundle
    steps: int = 0

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(weight.numel() for weight in self.bundle.network.parameters())

    @property
    def sampled(self) -> bool:
        """Whether it is a diffusion model, whose samples may show what was never measured."""
        return self.steps > 0


def contenders(
    context: Context, family: str, networks: Sequence[str] = tuple(NAMES), *, steps: Sequence[int] = STEPS
) -> tuple[list[Contender], tuple[str, ...]]:
    """Those whose bundles and weights are there, and a flag that names the others.

    Args:
        context: hands over the bundles.
        family: the bundles are ``<family>_<network>``.
        networks: keys of :data:`NAMES`, in print order.
        steps: of the networks in :data:`SAMPLED`.
    """
    from monai_sasm.errors import BundleError

    found: list[Contender] = []
    missing = []
    for kind in networks:
        try:
            bundle = context.bundle(f"{family}_{OVERLAYS.get(kind, kind)}", kind if kind in OVERLAYS else None)
        except BundleError:
            missing.append(NAMES[kind])
            continue
        if kind not in SAMPLED:
            found.append(Contender(NAMES[kind], bundle))
            continue
        for step in steps:
            name = f"{NAMES[kind]}, {step} step{'s' * (step > 1)}"
            found.append(Contender(name, with_settings(bundle, steps=step), step))
    flag = f"{', '.join(missing)} left out: no bundle {family}_* with trained weights"
    return found, (flag,) if missing else ()


def contender_methods(restorer: Restorer, modality: Modality, found: Sequence[Contender]) -> list[Method]:
    """Each contender as the named expert of a restorer."""
    including = restorer.including({one.name: one.bundle for one in found})
    return [Method(one.name, restoring(including, modality, expert=one.name)) for one in found]
