"""The whole pipeline as one network ``image -> image``, for whoever takes networks: bundles, servers, training."""

from __future__ import annotations

from functools import cached_property

import torch

from monai_sasm.functional.neighbours import fit_neighbours
from monai_sasm.io.derivation import Derivation
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.restore import restore_slices
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import ImageBatch, Modality


class Pipeline(torch.nn.Module):
    """Gate, experts and mixing as one network ``image -> image``, for bundles, servers and export tools.

    It owns no parameters: the weights stay in the expert bundles, and its state dict is empty.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``; fixes working scale and experts.
        device: see :class:`monai_sasm.restoration.restorer.Restorer`.
        expert: one expert to apply everywhere; by default the gate decides.
        strength: 0 to 1.
        passes, refine, refiner, gate: see :class:`monai_sasm.restoration.options.Options`.
    """

    def __init__(
        self,
        modality: str,
        device: str = "cpu",
        expert: str | None = None,
        strength: float = 1.0,
        passes: int | None = None,
        refine: float = 0.0,
        refiner: str | None = None,
        gate: str | None = None,
    ) -> None:
        super().__init__()
        self.modality = Modality(modality)
        self.options = Options(
            expert=expert, strength=strength, passes=passes, refine=refine, refiner=refiner, gate=gate
        )
        self.device = device

    @cached_property
    def plan(self) -> Plan:
        """Resolved on first use: nothing is read on construction."""
        return Restorer(self.device).plan(self.modality, self.options)

    def forward(self, image: ImageBatch) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``, working scale; slices of CT and MR may come between their neighbours."""
        plan = self.plan
        between_neighbours = not self.modality.profile.is_picture and image.shape[1] > 1
        restored = []
        for part in image.split(plan.batch(*image.shape[-2:])):
            slab = part.to(plan.device)
            if between_neighbours:
                restored.append(restore_slices(fit_neighbours(slab, 0), plan, slab=slab))
            else:
                restored.append(restore_slices(slab, plan))
        return torch.cat(restored).to(image)

    @property
    def neighbours(self) -> int:
        """How many slices on each side some expert looks at."""
        return self.plan.neighbours

    def derivation(self) -> Derivation:
        """What to write into the headers of the results."""
        return self.plan.derivation
