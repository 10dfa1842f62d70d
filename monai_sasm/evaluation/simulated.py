"""What a clean image would look like with the fault that an expert declares to repair: the settings, in one place.

The strengths are those of the protocols that measure the shipped experts. Strength and noise follow from the number of
the image alone, so that the same folder gives the same degraded images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monai_sasm.errors import BundleError
from monai_sasm.functional.intensity import scaling_for, square_spacing
from monai_sasm.io.volume import Volume
from monai_sasm.types import Degradation, Modality

PHOTO_SIGMA = 25 / 255
MR_SIGMA = 0.06  # Rician noise, of the 99.5th percentile of the foreground
DOSE = 0.25
COARSE, COARSE_SIGMA = 2, 0.01  # factor of k-space truncation, and noise with it

_LOW_DOSE = (
    f"low-dose-ct: {DOSE:g} of the dose simulated in the sinogram (monai_sasm.degradations.low_dose_ct.LowDoseCt, "
    "soft kernel); the reference keeps its own noise"
)
_KINDS = {
    (Modality.PHOTO, Degradation.NOISE): "white Gaussian noise of 25/255, unclipped (GaussianNoise)",
    (Modality.PHOTO, Degradation.RAINDROP): "drops on a window pane (monai_sasm.degradations.raindrop.Raindrop)",
    (Modality.CT, Degradation.LOW_DOSE): _LOW_DOSE,
    (Modality.CT, Degradation.NOISE): _LOW_DOSE,
    (Modality.MR, Degradation.NOISE): f"Rician noise of {100 * MR_SIGMA:g} % (monai_sasm.degradations.kspace)",
    (Modality.MR, Degradation.LOW_RESOLUTION): f"k-space cut to its central 1/{COARSE} along both axes of a slice, "
    f"complex noise of {100 * COARSE_SIGMA:g} % (monai_sasm.degradations.kspace.LowQualityMr)",
}


@dataclass(frozen=True)
class Simulation:
    """The degradation for one kind of expert.

    Args:
        modality: of the images.
        degradation: what the expert declares to repair.

    Raises:
        BundleError: nothing is known that would make such a fault.
    """

    modality: Modality
    degradation: Degradation

    def __post_init__(self) -> None:
        if (self.modality, self.degradation) not in _KINDS:
            raise BundleError(
                f"no degradation is known that makes {self.modality.value} images {self.degradation.value!r} on their "
                "own grid; give pairs, in DIR/clean and DIR/noisy with the same file names"
            )

    @property
    def description(self) -> str:
        """What is done, for people."""
        return _KINDS[self.modality, self.degradation]

    def __call__(self, clean: Volume, seed: int) -> Volume:
        """The degraded image, slice by slice; strength drawn once per image, noise anew for each slice.

        Raises:
            ValueError: the image is not of the kind the model needs (square pixels, a colour photo).
        """
        import torch

        model = self._model(clean)
        generator = torch.Generator().manual_seed(seed)
        slices = np.ascontiguousarray(clean.as_slices())
        params: Any = None
        degraded = np.empty_like(slices)
        for index, one in enumerate(torch.from_numpy(slices)):
            shape = (1, *one.shape)
            params = model.draw(shape, generator) if params is None else replace(params, seed=params.seed + 1)
            degraded[index] = model.apply(one[None], params)[0].numpy()
        return clean.from_slices(degraded)

    def _model(self, clean: Volume) -> Any:
        from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr

        if self.degradation is Degradation.RAINDROP:
            from monai_sasm.degradations.raindrop import Raindrop

            if clean.array.shape[0] == 1:
                raise ValueError("raindrops need a colour photo, got a grey one")
            return Raindrop()
        if self.modality is Modality.PHOTO:
            from monai_sasm.degradations.gaussian import GaussianNoise

            return GaussianNoise(sigma=(PHOTO_SIGMA, PHOTO_SIGMA))
        if self.modality is Modality.CT:
            from monai_sasm.degradations.low_dose_ct import LowDoseCt

            return LowDoseCt(square_spacing(clean), dose=(DOSE, DOSE), kernel="soft")
        scale = scaling_for(clean).scale
        if self.degradation is Degradation.NOISE:
            return KspaceNoise(sigma=(MR_SIGMA, MR_SIGMA), scale=scale)
        noise = KspaceNoise(sigma=(COARSE_SIGMA, COARSE_SIGMA), scale=scale)
        return LowQualityMr(KspaceTruncation(factor=(COARSE, COARSE)), noise)
