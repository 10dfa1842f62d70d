"""What a clean image would look like with the fault that an expert declares to repair: the settings, in one place.

The strengths are those of the protocols that measure the shipped experts. Strength and noise follow from the number of
the image alone, so that the same folder gives the same degraded images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monai_sasm.errors import BundleError
from monai_sasm.functional.intensity import scaling_for, square_spacing
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

PHOTO_SIGMA = 25 / 255
MR_SIGMA = 0.06  # Rician noise, of the 99.5th percentile of the foreground
DOSE = 0.25
COARSE, COARSE_SIGMA = 2, 0.01  # factor of k-space truncation, and noise with it

Model = Callable[[Volume], Any]
"""Clean image -> degradation that suits it, see :mod:`monai_sasm.degradations`."""


def _raindrops(clean: Volume) -> Any:
    from monai_sasm.degradations.raindrop import Raindrop

    if clean.array.shape[0] == 1:
        raise ValueError("raindrops need a colour photo, got a grey one")
    return Raindrop()


def _photo_noise(clean: Volume) -> Any:
    from monai_sasm.degradations.gaussian import GaussianNoise

    return GaussianNoise(sigma=(PHOTO_SIGMA, PHOTO_SIGMA))


def _low_dose(clean: Volume) -> Any:
    from monai_sasm.degradations.low_dose_ct import LowDoseCt

    return LowDoseCt(square_spacing(clean), dose=(DOSE, DOSE), kernel="soft")


def _mr_noise(clean: Volume, sigma: float = MR_SIGMA) -> Any:
    from monai_sasm.degradations.kspace import KspaceNoise

    return KspaceNoise(sigma=(sigma, sigma), scale=scaling_for(clean).scale)


def _coarse(clean: Volume) -> Any:
    from monai_sasm.degradations.kspace import KspaceTruncation, LowQualityMr

    return LowQualityMr(KspaceTruncation(factor=(COARSE, COARSE)), _mr_noise(clean, COARSE_SIGMA))


_LOW_DOSE = (
    f"low-dose-ct: {DOSE:g} of the dose simulated in the sinogram (monai_sasm.degradations.low_dose_ct.LowDoseCt, "
    "soft kernel); the reference keeps its own noise"
)
SIMULATED: dict[tuple[Modality, str], tuple[str, Model]] = {
    (Modality.PHOTO, "noise"): ("white Gaussian noise of 25/255, unclipped (GaussianNoise)", _photo_noise),
    (Modality.PHOTO, "raindrop"): ("drops on a window pane (monai_sasm.degradations.raindrop.Raindrop)", _raindrops),
    (Modality.CT, "low-dose"): (_LOW_DOSE, _low_dose),
    (Modality.CT, "noise"): (_LOW_DOSE, _low_dose),
    (Modality.MR, "noise"): (f"Rician noise of {100 * MR_SIGMA:g} % (monai_sasm.degradations.kspace)", _mr_noise),
    (Modality.MR, "low-resolution"): (
        f"k-space cut to its central 1/{COARSE} along both axes of a slice, complex noise of {100 * COARSE_SIGMA:g} % "
        "(monai_sasm.degradations.kspace.LowQualityMr)",
        _coarse,
    ),
}
"""What can be simulated: (modality, an expert's ``degradation``) -> description and model. Add a line for another."""


@dataclass(frozen=True)
class Simulation:
    """The degradation for one kind of expert.

    Args:
        modality: of the images.
        degradation: what the expert declares to repair, a key of :data:`SIMULATED`.

    Raises:
        BundleError: nothing is known that would make such a fault.
    """

    modality: Modality
    degradation: str

    def __post_init__(self) -> None:
        if (self.modality, self.degradation) not in SIMULATED:
            raise BundleError(
                f"nothing is known that makes {self.modality.value} images {self.degradation!r} on their own grid "
                f"(known: {', '.join(sorted(known for modality, known in SIMULATED if modality is self.modality))}); "
                "give pairs, in DIR/clean and DIR/noisy with the same file names"
            )

    @property
    def description(self) -> str:
        """What is done, for people."""
        return SIMULATED[self.modality, self.degradation][0]

    def __call__(self, clean: Volume, seed: int) -> Volume:
        """The degraded image, slice by slice; strength drawn once per image, noise anew for each slice.

        Raises:
            ValueError: the image is not of the kind the model needs (square pixels, a colour photo).
        """
        import torch

        slices = np.ascontiguousarray(clean.as_slices())
        degraded = np.empty_like(slices)
        for number, stack in enumerate(clean.stacks()):  # each time point has as much of its own white
            model = SIMULATED[self.modality, self.degradation][1](stack)
            params: Any = model.draw((1, *slices.shape[1:]), torch.Generator().manual_seed(seed))
            for index in range(number * clean.stack_length, (number + 1) * clean.stack_length):
                own = replace(params, seed=params.seed + index)
                degraded[index] = model.apply(torch.from_numpy(slices[index])[None], own)[0].numpy()
        return clean.from_slices(degraded)
