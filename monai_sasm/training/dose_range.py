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
from monai_sasm.io.formats import open_images
from monai_sasm.training.ellipse_phantoms import ellipse_phantoms
from monai_sasm.training.made_with import digests
from monai_sasm.training.simulated import as_int16, in_plane_spacing, kept_pairs
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


def simulated_doses(sources: Sequence[DoseSource], cache: str | Path, seed: int = 0) -> list[Pair]:
    """Pairs ``(clean, low dose)`` of slices ``(1, H, W)`` in HU / 1000.

    A slice takes about a second, hence the cache: when the file exists it is read and the other arguments do not
    matter, of which a warning tells where they have changed; delete it to simulate anew.

    Args:
        sources: in order; one without paths that makes no phantoms gives nothing.
        cache: ``.npz`` file.
        seed: of all draws.
    """
    generator = torch.Generator().manual_seed(seed)
    paths = [path for source in sources for path in source.paths]
    return kept_pairs(
        Path(cache),
        paths,
        lambda: [pair for source in sources for pair in _simulate(source, generator)],
        digests(sources=sources, seed=seed),
    )


def _simulate(source: DoseSource, generator: torch.Generator) -> list[tuple[NDArray[np.int16], NDArray[np.int16]]]:
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
        noisy = model.apply(clean, model.draw((1, 1, *image.shape[-2:]), generator)).clamp(max=HIGHEST)
        pairs.append((as_int16(clean[0].numpy()), as_int16(noisy[0].numpy())))
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
