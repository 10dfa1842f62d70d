"""Low-dose CT pairs with a known clean image, simulated once and kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.low_dose_ct import KERNELS, LowDoseCt
from monai_sasm.functional.intensity import HU_PER_UNIT, square_spacing
from monai_sasm.io.commit import replacing
from monai_sasm.io.formats import open_images
from monai_sasm.io.volume import Volume
from monai_sasm.io.walk import files_below
from monai_sasm.training.made_with import digests, warn_of_others
from monai_sasm.types import Modality


def simulated_pairs(
    paths: Sequence[str | Path],
    cache: str | Path,
    count: int = 100,
    dose: tuple[float, float] = (0.1, 0.5),
    exposure: tuple[float, float] = (0.5, 2.0),
    kernels: Sequence[str] = ("soft", "sharp"),
    min_size: int = 128,
    seed: int = 0,
) -> list[tuple[NDArray[np.float32], ...]]:
    """Pairs ``(clean, low dose)`` of slices ``(1, H, W)`` in HU / 1000, from clean CT images.

    A simulated slice takes about a second, hence the cache: when the file exists it is read and the other arguments
    do not matter, of which a warning tells where they have changed; delete it to simulate anew.

    Args:
        paths: NIfTI files, DICOM folders, or folders of them; none gives no pairs.
        cache: ``.npz`` file.
        count: number of pairs, spread evenly over all slices.
        dose: range of the dose fraction.
        exposure: range of the full dose's photons relative to the calibrated scanner.
        kernels: names of :data:`~monai_sasm.degradations.low_dose_ct.KERNELS`, taken in turn.
        min_size: leave out slices narrower than this, in pixels.
        seed: seed of dose, exposure and noise.

    Raises:
        ValueError: unknown kernel, or no slice that is large enough.
    """
    if not paths:
        return []
    unknown = set(kernels) - set(KERNELS)
    if unknown or not kernels:
        raise ValueError(f"kernels must be some of {sorted(KERNELS)}, got {list(kernels)}")
    settings = {"paths": paths, "count": count, "dose": dose, "exposure": exposure, "kernels": kernels}
    return kept_pairs(
        Path(cache),
        paths,
        lambda: _simulate(paths, count, dose, exposure, kernels, min_size, seed),
        digests(**settings, min_size=min_size, seed=seed),
    )


def kept_pairs(
    cache: Path,
    paths: Sequence[str | Path],
    simulate: Callable[[], Sequence[tuple[NDArray[np.int16], ...]]],
    settings: str,
) -> list[tuple[NDArray[np.float32], ...]]:
    """Pairs ``(clean, low dose)`` in HU / 1000 from a file; where it is missing it is made of what ``simulate`` gives.

    Args:
        cache: ``.npz`` file.
        paths: images, or folders of them, that the pairs are made of.
        simulate: makes pairs of slices ``(1, H, W)`` in HU.
        settings: what they are made with, see :func:`~monai_sasm.training.made_with.digests`.
    """
    if not cache.is_file():
        arrays: dict[str, Any] = {"settings": settings}
        for number, (clean, noisy) in enumerate(simulate()):
            arrays |= {f"clean_{number}": clean, f"noisy_{number}": noisy}
        with replacing(cache, sources=[file for path in paths for file, _ in files_below(Path(path))]) as file:
            np.savez(file, **arrays)
    with np.load(cache) as stored:
        if "settings" in stored:
            warn_of_others(cache, str(stored["settings"]), settings)
        names = [(f"clean_{i}", f"noisy_{i}") for i in range(len(stored) // 2)]
        return [(working_scale(stored[clean]), working_scale(stored[noisy])) for clean, noisy in names]


def _simulate(
    paths: Sequence[str | Path],
    count: int,
    dose: tuple[float, float],
    exposure: tuple[float, float],
    kernels: Sequence[str],
    min_size: int,
    seed: int,
) -> list[tuple[NDArray[np.int16], NDArray[np.int16]]]:
    candidates = [
        (image, in_plane_spacing(volume))
        for path in paths
        for volume in open_images(path, Modality.CT)
        for image in volume.as_slices()
        if min(image.shape[-2:]) >= min_size
    ]
    if not candidates:
        raise ValueError(f"no CT slice of at least {min_size} pixels in {[str(path) for path in paths]}")
    chosen = np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int)
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for number, index in enumerate(chosen):
        image, spacing = candidates[index]
        model = LowDoseCt(spacing, dose, kernels[number % len(kernels)], exposure=exposure)
        clean = torch.from_numpy(np.ascontiguousarray(image))[None]
        params = model.draw((1, 1, *image.shape[-2:]), generator)
        noisy = model.apply(clean, params)[0]
        pairs.append((as_int16(image), as_int16(noisy.numpy())))
    return pairs


def in_plane_spacing(volume: Volume) -> float:
    """Spacing of the square pixels, mm.

    Raises:
        ValueError: it is not known, or the pixels are not square; the volume is named.
    """
    try:
        return square_spacing(volume)
    except ValueError as error:
        raise ValueError(f"{volume.name}: {error}") from None


def as_int16(image: NDArray[np.float32]) -> NDArray[np.int16]:
    """HU as CT files store them."""
    return np.clip(np.round(image), -32768, 32767).astype(np.int16)


def working_scale(image: NDArray[np.int16]) -> NDArray[np.float32]:
    """HU / 1000."""
    return image.astype(np.float32) / np.float32(HU_PER_UNIT)
