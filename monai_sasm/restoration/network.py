"""The whole house as one network, for whoever takes networks: bundles, servers, export tools, training."""

from __future__ import annotations

from functools import partial

import torch

from monai_sasm.restoration.restorer import House, load_house
from monai_sasm.io.derivation import Derivation
from monai_sasm.functional.neighbours import between
from monai_sasm.restoration.restore import Options, derivation, keeper_for, restore_slice
from monai_sasm.types import ImageBatch, Modality


class Pipeline(torch.nn.Module):
    """The whole house as one network ``image -> image``, for bundles, servers and export tools.

    It owns no parameters: the weights stay in the expert bundles, and its state dict is empty.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``; fixes working scale and experts.
        device: see :func:`monai_sasm.restoration.restorer.load_house`.
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
        self._house: list[House] = []  # filled on first use: nothing is read on construction

    def forward(self, image: ImageBatch) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``, working scale; slices of CT and MR may come between their neighbours."""
        house = self._loaded()
        keeper = keeper_for(house, self.options, len(image))
        run = partial(
            restore_slice, modality=self.modality, house=house, options=self.options, given=None, keeper=keeper
        )
        if self.modality is Modality.PHOTO or image.shape[1] == 1:
            return torch.cat([run(part[None].to(house.device)) for part in image]).to(image)
        parts = (part[None].to(house.device) for part in image)
        return torch.cat([run(between(part, 0), slab=part) for part in parts]).to(image)

    @property
    def neighbours(self) -> int:
        """How many slices on each side some expert looks at."""
        return self._loaded().neighbours(self.modality, self.options.expert)

    def derivation(self) -> Derivation:
        """What to write into the headers of the results; see :func:`derivation`."""
        return derivation(self._loaded(), self.options, self.modality)

    def _loaded(self) -> House:
        if not self._house:
            only = [self.options.expert] if self.options.expert else []
            self._house.append(load_house(self.device, only=only))
        return self._house[0]
