"""Heads that were scanned twice, for training without a clean image (Noise2Noise, Lehtinen et al. 2018).

Both scans show one anatomy under noise of their own. What a network expects of the second, given the first, is the
anatomy alone: so it learns to take the noise of a scanner as that scanner makes it, which no simulation does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from monai_sasm.datasets.registration import registered
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.formats import open_images
from monai_sasm.types import Modality

SMOOTHED = 2.0  # pixels, standard deviation; what is left of a slice shows where its edges are
Slice = NDArray[np.float32]


def repeated_slices(
    pairs: Sequence[Sequence[str | Path]], calm: float = 0.5, least: float = 0.05
) -> list[tuple[Slice, Slice]]:
    """Pairs ``(repeat, scan)`` of MR slices ``(1, H, W)`` in the scan's working scale, each scan of a pair in turn.

    The repeat is NaN where it cannot be compared: outside tissue, and near edges, where the error of the registration
    and the interpolation between thick slices would be learnt as blur. Edges are looked for in the repeat alone, so
    that the choice of pixels tells nothing of the scan's noise.

    Args:
        pairs: NIfTI files of one head and one contrast, two each.
        calm: share of the tissue of a slice that is compared, that with the least gradient.
        least: leave out slices of which less than this share is compared.

    Raises:
        ValueError: an entry does not hold two files, or ``calm`` is not a share.
        FileNotFoundError: no slices.
    """
    if not 0 < calm <= 1:
        raise ValueError(f"the share of tissue that is compared lies in (0, 1], got {calm}")
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"two scans of each head are needed, got {[len(pair) for pair in pairs]}")
    found = []
    for one, other in pairs:
        for scan, repeat in ((Path(one), Path(other)), (Path(other), Path(one))):
            found += _slices(scan, repeat, calm, least)
    if not found:
        raise FileNotFoundError(f"no slices that can be compared in {[[str(path) for path in pair] for pair in pairs]}")
    return found


def _slices(scan: Path, repeat: Path, calm: float, least: float) -> list[tuple[Slice, Slice]]:
    first, second, tissue = registered(scan, repeat)
    white = scaling_for(next(open_images(scan, Modality.MR))).scale
    found = []
    for given, other, inside in zip(first / white, second / white, tissue, strict=True):
        slope = np.hypot(*np.gradient(gaussian_filter(other, SMOOTHED)))
        if inside.any():
            inside = inside & (slope <= np.quantile(slope[inside], calm))
        if inside.mean() >= least:
            wanted = np.where(inside, other, np.nan)
            found.append((wanted[None].astype(np.float32), given[None].astype(np.float32)))
    return found
