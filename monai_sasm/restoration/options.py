"""What a user may choose for a restoration, or for making thin slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monai_sasm.degradations.slice_profile import PROFILES
from monai_sasm.functional.self_ensemble import check_count

LARGEST_FACTOR = 16.0  # thin slices per acquired one


@dataclass(frozen=True)
class Options:
    """Choices for one restoration; the defaults are right for most images.

    Args:
        expert: name of one expert to apply everywhere, without the gate.
        strength: 0 returns the input, 1 the full restoration; in between, a blend.
        top_k: how many experts may act on one image.
        passes: how often gate and experts look at the image; by default 1 for CT and MR, 2 for photos, where
            raindrops may lie on noise.
        sigma: noise standard deviation in the volume's unit (HU, MR magnitude, sRGB [0, 1]), above 0, as a circle in
            uniform tissue shows it, see :mod:`monai_sasm.restoration.told_noise`; estimated if ``None``.
        refine: strength of the refiner, 0 (off) to 1.
        keep_maps: also return weight, trust and change maps, and the uncertainty of an expert that draws samples.
        refiner: name of the refiner; by default the one meant for the image's modality.
        force_refiner: apply the named refiner although it is made for another modality; the result's metadata say so.
        upscale: keep the larger image of a refiner that enlarges (``upscale_photo_sd4x``: four times); photos only.
        target_noise: standard deviation of the noise that shall remain in uniform tissue, HU for CT, percent of white
            for MR (of each time point its own) and photos, in its unit for another modality that has one. One strength
            for the whole volume is chosen for it, never above ``strength``. Where the gate would leave more, the expert
            for noise acts everywhere in CT and MR; in photos a note says which one to name. See
            :mod:`monai_sasm.restoration.target_noise`.
        gate: name of the gate; by default :func:`monai_sasm.bundles.default_gate`.
        self_ensemble: 2, 4 or 8: the mean of what each expert makes of the image in so many flips and turns, at that
            multiple of its time, see :mod:`monai_sasm.functional.self_ensemble`.
    """

    expert: str | None = None
    strength: float = 1.0
    top_k: int | None = None
    passes: int | None = None
    sigma: float | None = None
    refine: float = 0.0
    keep_maps: bool = False
    refiner: str | None = None
    force_refiner: bool = False
    upscale: bool = False
    gate: str | None = None
    target_noise: float | None = None
    self_ensemble: int = 1

    def __post_init__(self) -> None:
        for name in ("strength", "refine"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.passes is not None and self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")
        _check_sigma(self.sigma)
        if self.target_noise is not None:
            if not (math.isfinite(self.target_noise) and self.target_noise > 0):
                raise ValueError(f"target_noise is a noise standard deviation above 0, got {self.target_noise}")
            if self.refine:
                raise ValueError("target_noise chooses a strength by its noise, and a refiner draws grain of its own")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        check_count(self.self_ensemble)
        if not self.refine and (self.refiner or self.force_refiner or self.upscale):
            raise ValueError("a refiner acts with the strength of refine, which is 0; set it above 0, 1 for all of it")
        if self.refiner is None and (self.force_refiner or self.upscale):
            raise ValueError("force_refiner and upscale need the name of a refiner; set refiner")
        if self.gate is not None and self.expert is not None:
            raise ValueError(f"a named expert acts without a gate; choose the expert {self.expert} or {self.gate}")


@dataclass(frozen=True)
class Thinning:
    """Choices for thin slices made from thick ones.

    Args:
        expert: name of an MR super-resolution expert.
        factor: thin slices for each acquired one, above 1, not necessarily whole; ``None`` for slices as thin as pixels
            are wide (isotropic voxels).
        strength: 0 for the interpolation, 1 for all that the expert adds; ``None`` by the thickness, see
            :func:`monai_sasm.restoration.thin.usual_strength`.
        sigma: noise standard deviation in the unit of the image, above 0; estimated on the acquired slices if
            ``None``.
        profile: ``slab`` for 2-D acquisitions, ``sinc`` for 3-D ones (phase encoding along the slices).
    """

    expert: str
    factor: float | None = None
    strength: float | None = None
    sigma: float | None = None
    profile: str = "slab"

    def __post_init__(self) -> None:
        if self.factor is not None and not 1 < self.factor <= LARGEST_FACTOR:
            raise ValueError(f"factor must be above 1 and at most {LARGEST_FACTOR:g}, got {self.factor}")
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be between 0 and 1, got {self.strength}")
        _check_sigma(self.sigma)
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {PROFILES}, got {self.profile!r}")


def _check_sigma(sigma: float | None) -> None:
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(
            f"sigma is a noise standard deviation, finite and above 0, got {sigma}; leave it out, and it is estimated"
        )
