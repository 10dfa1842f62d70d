"""The whole pipeline as one network ``image -> image``, for whoever takes networks: bundles, servers, training."""

from __future__ import annotations

from functools import cached_property

import torch

from monai_sasm.functional.neighbours import fit_neighbours
from monai_sasm.io.derivation import Derivation
from monai_sasm.restoration.coherence import CoherentWeights
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.restore import coherent_slices, restore_slices
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import ExpertWeights, ImageBatch, Modality


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

    def forward(self, image: ImageBatch, weights: ExpertWeights | None = None) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``, working scale; slices of CT and MR may come between their neighbours.

        ``weights`` ``(B, E, H, W)`` of the first pass; by default the gate's of each slice alone.
        """
        plan = self.plan
        between_neighbours = not self.modality.profile.is_picture and image.shape[1] > 1
        restored = []
        size = plan.batch(*image.shape[-2:])
        for first, part in enumerate(image.split(size)):
            slab, chosen = part.to(plan.device), None
            if weights is not None:
                chosen = weights[first * size :][: len(part)].to(plan.device)
            middle, around = (fit_neighbours(slab, 0), slab) if between_neighbours else (slab, None)
            restored.append(restore_slices(middle, plan, slab=around, weights=chosen))
        return torch.cat(restored).to(image)

    def coherent_weights(self, stack: ImageBatch, *, count: int, distance: float | None) -> CoherentWeights | None:
        """Weights for :meth:`forward` that go through a volume without a jump, see :class:`CoherentWeights`.

        Args:
            stack: slices ``(N, c, H, W)``, working scale.
            count: slices per stack, where several follow each other.
            distance: mm between slices, see :func:`monai_sasm.restoration.coherence.slice_distance`.
        """
        height, width = stack.shape[-2:]
        return coherent_slices(
            lambda index: stack[index].to(self.plan.device),
            self.plan,
            count=count,
            distance=distance,
            size=(height, width),
        )

    @property
    def neighbours(self) -> int:
        """How many slices on each side some expert looks at."""
        return self.plan.neighbours

    def derivation(self) -> Derivation:
        """What to write into the headers of the results."""
        return self.plan.derivation
