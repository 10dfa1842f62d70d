"""The contract of a degradation: draw the randomness once, then apply it as a pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from monai_sasm.types import ImageBatch, NoiseMap


class DegradationParams(Protocol):
    """What :meth:`DegradationModel.draw` returns: a frozen record of every random choice, its seed included."""

    @property
    def sigma(self) -> NoiseMap:
        """Noise standard deviation per pixel ``(B, 1, H, W)`` in the image's unit; zeros where none is added."""

    @property
    def mask(self) -> NoiseMap:
        """How far each pixel is degraded ``(B, 1, H, W)``, in [0, 1]."""


class DegradationModel(Protocol):
    """``y = apply(x, draw(x.shape, generator))``, a model of one fault of an imaging system.

    Laws (``tests/laws/test_degradations.py``): the same parameters give the same result, zero strength is the
    identity, shape and dtype are kept, and a pixel outside ``params.mask`` is unchanged.
    """

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> DegradationParams:
        """Draw the parameters for a batch of shape ``(B, C, H, W)``."""

    def apply(self, clean: ImageBatch, params: Any) -> ImageBatch:
        """Degrade ``clean`` with drawn parameters; deterministic."""


def reference(degradation: DegradationModel, clean: ImageBatch, params: Any) -> ImageBatch:
    """What a perfect restoration of ``degradation.apply(clean, params)`` returns.

    That is the clean image, unless the model says otherwise by a method of this name.
    """
    of_its_own = getattr(degradation, "reference", None)
    return clean if of_its_own is None else of_its_own(clean, params)
