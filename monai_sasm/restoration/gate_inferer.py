"""A MONAI inferer that turns images into weight maps: what restoring would do with the gate's word, without experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from monai_sasm.gate.display import to_display
from monai_sasm.gate.routing import route
from monai_sasm.types import ExpertLogits, ExpertWeights, ImageBatch, Modality, NoiseMap


class WeightInferer(Inferer):
    """Runs a gate on every slice and gives mixing weights on the image's own grid.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``.
        noise_estimator: image -> noise map ``(B, 1, H, W)``, working scale.
        score: (display image, noise map, gate) -> logits, see :func:`monai_sasm.restoration.dispatch.score_tiled`.
        allowed: one entry per class, see :func:`monai_sasm.bundles.classes_for`.
        temperature: see :func:`monai_sasm.gate.routing.route`.
        floor: likewise.
    """

    def __init__(
        self,
        modality: str,
        noise_estimator: Callable[[ImageBatch], NoiseMap],
        score: Callable[[ImageBatch, NoiseMap, Callable[..., ExpertLogits]], ExpertLogits],
        allowed: Sequence[bool],
        temperature: float = 1.0,
        floor: float = 0.05,
    ) -> None:
        super().__init__()
        self.modality, self.noise_estimator, self.score = Modality(modality), noise_estimator, score
        self.allowed, self.temperature, self.floor = torch.tensor(allowed), temperature, floor

    def __call__(
        self, inputs: Tensor, network: Callable[..., ExpertLogits], *args: Any, **kwargs: Any
    ) -> ExpertWeights:
        """Weights ``(1, E, T, *spatial)`` of one image ``(1, C, *spatial)`` in working scale.

        ``T`` is the number of time points (``C``) of CT and MR, and 1 for photos. The axis that counts the slices is
        ``inputs.meta["slice_axis"]``, the last one without it.
        """
        if len(inputs) != 1 or inputs.ndim not in (4, 5) or (inputs.ndim == 5 and self.modality is Modality.PHOTO):
            raise ValueError(
                "expected one photo (1, C, H, W) or one volume (1, C, *spatial) with two or three spatial axes; "
                f"got {tuple(inputs.shape)} for {self.modality.value}"
            )
        image = inputs.as_tensor()[0] if isinstance(inputs, MetaTensor) else inputs[0]
        if self.modality is Modality.PHOTO:
            return self._weights(image[None], network)[:, :, None]
        if image.ndim == 3:
            return torch.stack([self._weights(part[None, None], network)[0] for part in image], 1)[None]
        axis = _slice_axis(inputs) + 1
        stacks = [
            torch.stack([self._weights(part[None, None], network)[0] for part in time_point], 1)  # (E, N, H, W)
            for time_point in image.movedim(axis, 1)
        ]
        return torch.stack(stacks, 1).movedim(2, axis + 1)[None]

    def _weights(self, image: ImageBatch, network: Callable[..., ExpertLogits]) -> ExpertWeights:
        """``(1, E, H, W)`` of one slice ``(1, C, H, W)``."""
        shown, sigma = to_display(image, self.noise_estimator(image), self.modality)
        logits = self.score(shown, sigma, network)
        height, width = image.shape[-2:]
        allowed = self.allowed.to(logits.device)
        return route(logits, (height, width), allowed=allowed, temperature=self.temperature, floor=self.floor)


def _slice_axis(inputs: Tensor) -> int:
    meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
    axis = meta.get("slice_axis", 2)  # a batch's metadata are collated: one number per volume
    return int(torch.as_tensor(axis).flatten()[0])
