"""Low-dose CT pairs over a wide range of doses, kernels and pixel sizes, simulated once and kept in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.low_dose_ct import KERNELS, LowDoseCt, ReconstructionKernel
from monai_sasm.functional.intensity import HU_PER_UNIT
from monai_sasm.io.commit import replacing
from monai_sasm.io.formats import open_images
from monai_sasm.training.ellipse_phantoms import ellipse_phantoms
from monai_sasm.training.simulated import as_int16, in_plane_spacing, working_scale
from monai_sasm.types import Modality

Pair = tuple[NDArray[np.float32], ...]
LOWEST, HIGHEST = -1024.0, 3071.0  # HU of 12 bits; beyond it lie padding and overshoot
PHANTOM_SIZE, PHANTOM_SPACING = 384, 0.75  # pixels, mm


@dataclass(frozen=True)
class DoseSource:
    """Slices from which low dose is simulated.

    Args:
        paths: NIfTI files, DICOM folders, or folders of them; none for ``phantoms``.
        count: number of pairs, spread evenly over all slices; more than there are slices take them again, with other
            noise.
        kernels: the noise's kernel is drawn between the first and the last of these names of
            :data:`~monai_sasm.degradations.low_dose_ct.KERNELS`.
        named: only files with this in their name.
        exclude: leave out files whose name starts with one of these.
        noise_free: the slices' own noise is far below that to be simulated, which then is all of the noise; else only
            that which is missing at the lower dose.
        dose: range of the dose fraction, log-uniform.
        exposure: range of the full dose's photons relative to the calibrated scanner.
        scale: range of the factor on the pixel size that the simulation is told, log-uniform: smaller and larger
            patients, and noise of another grain.
        phantoms: digital phantoms instead of images.
    """

    paths: Sequence[str | Path] = ()
    count: int = 100
    kernels: Sequence[str] = ("soft", "sharp")
    named: str = ""
    exclude: Sequence[str] = field(default_factory=tuple)
    noise_free: bool = False
    dose: tuple[float, float] = (0.05, 1.0)
    exposure: tuple[float, float] = (0.5, 2.0)
    scale: tuple[float, float] = (1.0, 1.0)
    phantoms: bool = False


@dataclass(frozen=True, eq=False)
class DosedPair:
    """One slice at two doses.

    Args:
        clean: ``(1, H, W)``, HU / 1000: at full dose, or without noise.
        noisy: the same at the lower dose.
        dose: fraction of the full dose, in (0, 1].
        noise_free: ``clean`` has no noise.
    """

    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    dose: float
    noise_free: bool = False


def simulated_doses(sources: Sequence[DoseSource], cache: str | Path, seed: int = 0) -> list[Pair]:
    """Pairs ``(clean, low dose)`` of slices ``(1, H, W)`` in HU / 1000, as :func:`dosed_pairs` makes them."""
    return [(pair.clean, pair.noisy) for pair in dosed_pairs(sources, cache, seed)]


def dosed_pairs(sources: Sequence[DoseSource], cache: str | Path, seed: int = 0) -> list[DosedPair]:
    """Simulated pairs with their doses.

    A slice takes about a second, hence the cache: when the file exists it is read and the other arguments do not
    matter; delete it to simulate anew.

    Args:
        sources: in order; one without paths that makes no phantoms gives nothing.
        cache: ``.npz`` file.
        seed: of all draws.

    Raises:
        ValueError: the cache tells no doses.
    """
    cache = Path(cache)
    if not cache.is_file():
        generator = torch.Generator().manual_seed(seed)
        made = [pair for source in sources for pair in _simulate(source, generator)]
        arrays: dict[str, NDArray[np.generic]] = {
            f"{kind}_{i}": as_int16(array * HU_PER_UNIT)
            for i, pair in enumerate(made)
            for kind, array in (("clean", pair.clean), ("noisy", pair.noisy))
        }
        arrays["dose"] = np.array([pair.dose for pair in made])
        arrays["noise_free"] = np.array([pair.noise_free for pair in made], bool)
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    with np.load(cache) as stored:
        if "dose" not in stored:
            raise ValueError(f"{cache} tells no doses: another version made it; delete it to simulate anew")
        facts = enumerate(zip(stored["dose"].tolist(), stored["noise_free"].tolist(), strict=True))
        return [
            DosedPair(working_scale(stored[f"clean_{i}"]), working_scale(stored[f"noisy_{i}"]), dose, noise_free)
            for i, (dose, noise_free) in facts
        ]


def measured_pairs(pairs: Sequence[Pair], dose: float = 0.25) -> list[DosedPair]:
    """Measured pairs ``(full dose, lower dose)``, all at the same dose."""
    return [DosedPair(clean, noisy, dose) for clean, noisy in pairs]


def _simulate(source: DoseSource, generator: torch.Generator) -> list[DosedPair]:
    slices = _slices(source, generator)
    if not slices:
        return []
    pairs = []
    for index in np.linspace(0, len(slices), source.count, endpoint=False).astype(int):
        image, spacing = slices[index]
        kernel = _kernel(source.kernels, float(torch.rand((), generator=generator)))
        low, high = (math.log(bound) for bound in source.scale)
        told = spacing * math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
        model = LowDoseCt(told, source.dose, kernel, exposure=source.exposure, noise_free=source.noise_free)
        clean = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].clamp(LOWEST, HIGHEST)
        params = model.draw((1, 1, *image.shape[-2:]), generator)
        noisy = model.apply(clean, params).clamp(max=HIGHEST)
        full, low_dose = (working_scale(as_int16(array[0].numpy())) for array in (clean, noisy))
        pairs.append(DosedPair(full, low_dose, float(params.dose), source.noise_free))
    return pairs


def _slices(source: DoseSource, generator: torch.Generator) -> list[tuple[NDArray[np.float32], float]]:
    """Slices ``(1, H, W)`` in HU, views where possible, with their pixel sizes in mm."""
    if source.phantoms:
        made = ellipse_phantoms(source.count, PHANTOM_SIZE, PHANTOM_SPACING, generator)
        return [(image.numpy(), PHANTOM_SPACING) for image in made]
    return [
        (image, in_plane_spacing(volume))
        for path in source.paths
        for volume in open_images(path, Modality.CT)
        if source.named in volume.name and not volume.name.startswith(tuple(source.exclude))
        for image in volume.as_slices()
    ]


def _kernel(names: Sequence[str], share: float) -> ReconstructionKernel:
    """Between the first and the last of the kernels named."""
    first, last = KERNELS[names[0]], KERNELS[names[-1]]
    cutoff = first.cutoff + share * (last.cutoff - first.cutoff)
    return ReconstructionKernel(cutoff, first.order + share * (last.order - first.order))
