"""The contract of an expert: a function that makes an image better, whatever network is inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from monai_sasm.types import ImageBatch, NoiseMap


class Expert(Protocol):
    """One restoration method.

    Laws (``tests/laws/test_experts.py``): shape, dtype and device are kept, any height and width are accepted, and
    the same input gives the same output.
    """

    name: str

    def restore(self, image: ImageBatch, sigma: NoiseMap | None = None, label: Tensor | None = None) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``, in the working scale of the expert's modality.

        Args:
            image: degraded images; HU / 1000 for CT, about [0, 1] for MR and photos.
            sigma: noise map ``(B, 1, H, W)`` in the same scale; estimated by the expert's bundle when ``None``.
            label: class index per image ``(B,)`` for label-conditioned experts; others ignore it.
        """
