"""The whole house as one network, for whoever takes networks: bundles, servers, export tools, training."""

from __future__ import annotations

from functools import partial

import torch

from monai_sasm.functional.neighbours import between
from monai_sasm.io.derivation import Derivation
from monai_sasm.restoration.restore import Options, derivation, restore_slice, statistics_for
from monai_sasm.restoration.restorer import Restorer, load_restorer
from monai_sasm.types import ImageBatch, Modality


class Pipeline(torch.nn.Module):
    """The whole house as one network ``image -> image``, for bundles, servers and export tools.

    It owns no parameters: the weights stay in the expert bundles, and its state dict is empty.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``; fixes working scale and experts.
        device: see :func:`monai_sasm.restoration.restorer.load_restorer`.
        expert: one expert to apply everywhere; by default the gate decides.
        strength: 0 to 1.
        passes, refine, refiner: see :class:`Options`.
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
    ) -> None:
        super().__init__()
        self.modality = Modality(modality)
        self.options = Options(expert=expert, strength=strength, passes=passes, refine=refine, refiner=refiner)
        self.device = device
        self._restorer: list[Restorer] = []  # filled on first use: nothing is read on construction

    def forward(self, image: ImageBatch) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``, working scale; slices of CT and MR may come between their neighbours."""
        restorer = self._loaded()
        statistics = statistics_for(restorer, self.options, len(image))
        run = partial(
            restore_slice,
            modality=self.modality,
            restorer=restorer,
            options=self.options,
            given=None,
            statistics=statistics,
        )
        if self.modality is Modality.PHOTO or image.shape[1] == 1:
            return torch.cat([run(part[None].to(restorer.device)) for part in image]).to(image)
        parts = (part[None].to(restorer.device) for part in image)
        return torch.cat([run(between(part, 0), slab=part) for part in parts]).to(image)

    @property
    def neighbours(self) -> int:
        """How many slices on each side some expert looks at."""
        return self._loaded().neighbours(self.modality, self.options.expert)

    def derivation(self) -> Derivation:
        """What to write into the headers of the results; see :func:`derivation`."""
        return derivation(self._loaded(), self.options, self.modality)

    def _loaded(self) -> Restorer:
        if not self._restorer:
            only = [self.options.expert] if self.options.expert else []
            self._restorer.append(load_restorer(self.device, only=only))
        return self._restorer[0]
