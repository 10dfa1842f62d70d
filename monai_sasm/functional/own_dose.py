"""The dose of CT images as a share of their own: the noise that they have says how many photons they were made of.

A share ``a`` of the photons gives ``1 / a`` times the variance, so that ``1 / a - 1`` times the measured one is to be
added. The simulation adds what fits its scanner's usual dose; its photons are scaled until it adds that.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.uniform_tissue import middle, spread_evenly, uniform_noise
from monai_sasm.io.volume import Volume

SLICES = 3  # in which noise is measured and simulated
_SHARE = 0.25  # of the dose, at which the noise is compared
_STEPS = 12  # of the bisection, to a thousandth of its range
_MOST = 30.0  # times more or less noise than at the usual dose


def own_exposure(volume: Volume, spacing: float, kernel: str) -> float | None:
    """Photons of a CT volume over those of the simulated scanner, for ``exposure`` of :class:`LowDoseCt`.

    Args:
        volume: in HU.
        spacing: of its pixels, mm.
        kernel: see :class:`LowDoseCt`.

    Returns:
        ``None`` where there is too little uniform tissue to measure noise in.
    """
    chosen = spread_evenly(volume.slices_shape[0], SLICES)
    clean = np.stack([np.array(volume.slice_at(index), np.float32) for index in chosen])
    own = _deviation(clean, volume)
    if own is None:
        return None
    model = LowDoseCt(spacing, (_SHARE, _SHARE), kernel)
    generator = torch.Generator().manual_seed(0)
    added = []
    for image in torch.from_numpy(clean)[:, None].unbind():
        params = model.draw((1, *image.shape[1:]), generator)
        added.append((model.apply(image, params) - image)[0].numpy())
    noise = np.stack(added)
    low, high = -np.log(_MOST), np.log(_MOST)
    for _ in range(_STEPS):  # the more noise is added, the more is seen
        half = (low + high) / 2
        seen = _deviation(clean + np.exp(half) * noise, volume)
        enough = seen is None or seen > own / _SHARE**0.5
        low, high = (low, half) if enough else (half, high)
    return float(np.exp(-(low + high)))  # photons go by the variance


def _deviation(images: NDArray[np.float32], volume: Volume) -> float | None:
    """Standard deviation in uniform tissue, working scale."""
    scaled = np.stack([scaling_for(volume).forward(middle(image)) for image in images])
    found = uniform_noise(scaled, volume.modality.profile, NoiseEstimator())
    return None if found is None else found.deviation
