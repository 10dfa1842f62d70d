"""The vocabulary of this package: closed sets as enums, tensor shapes as annotations.

Importing this file loads neither torch nor MONAI.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    ImageBatch = Float[Tensor, "batch channels height width"]
    NoiseMap = Float[Tensor, "batch 1 height width"]
    ExpertLogits = Float[Tensor, "batch experts height width"]
    ExpertWeights = Float[Tensor, "batch experts height width"]

_TENSORS = {
    "ImageBatch": "batch channels height width",  # in the working scale of the modality
    "NoiseMap": "batch 1 height width",  # noise standard deviation per pixel, in the unit of its image
    "ExpertLogits": "batch experts height width",  # gate scores before normalisation; class 0 is the identity
    "ExpertWeights": "batch experts height width",  # at least 0, sum 1 over experts; class 0 is the identity
}


def __getattr__(name: str) -> Any:
    """Tensor aliases, built on first use so that the enums below can be had without loading torch."""
    if name not in _TENSORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxtyping import Float
    from torch import Tensor

    return Float[Tensor, _TENSORS[name]]


class Modality(str, Enum):
    """What kind of device made the image. Known modality masks experts of other modalities."""

    CT = "CT"
    MR = "MR"
    PHOTO = "PHOTO"


class Unit(str, Enum):
    """Physical meaning of an array's numbers."""

    HU = "HU"  # Hounsfield units
    MR = "MR"  # arbitrary magnitude units of one MR series
    SRGB = "sRGB"  # display values, 0 to 1


UNIT_OF = {Modality.CT: Unit.HU, Modality.MR: Unit.MR, Modality.PHOTO: Unit.SRGB}
"""The unit in which every :class:`~monai_sasm.io.volume.Volume` of a modality is held."""
