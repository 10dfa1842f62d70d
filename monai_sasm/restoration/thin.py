"""Thin slices from thick ones: interpolate along the slice axis, restore the planes that contain it, keep the data.

Seen from the side, thick-slice MR is blurred along one axis and sharp along the other, and a 2-D super-resolution
expert can sharpen it there (Zhao et al. 2020, SMORE). Both families of planes that contain the slice axis are restored
and averaged, and the result is made to average to the acquired slices again
(:mod:`monai_sasm.degradations.slice_profile`), so that the expert adds only what the thick slices cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.bundles import Bundle
from monai_sasm.degradations.slice_profile import SliceProfile
from monai_sasm.errors import RefusedError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.neighbours import adjacent, run_on_slices
from monai_sasm.functional.noise import noise_level, volume_noise_level
from monai_sasm.functional.tiling import tiles
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.finer_slices import check_stack, finer_slices
from monai_sasm.io.photo.pixels import check_size
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.dispatch import restore_tiled
from monai_sasm.restoration.installed import check_thinning
from monai_sasm.restoration.options import LARGEST_FACTOR, Thinning
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.shelter import sheltered
from monai_sasm.restoration.told_noise import told_slices
from monai_sasm.types import ImageBatch, Modality

_EDGE = 1e-6  # of a slice by which rounding may move the edge of a thin one
BATCH = 4  # planes that an expert restores at once
USUAL = (3.0, 5.0), (0.6, 0.4)  # thin slices in a thick one, and strength; between them it falls evenly


def thin_count(volume: Volume, factor: float | None) -> int:
    """How many thin slices replace those of ``volume``.

    The extent stays, so the step is what fits: 22 slices of 6.4 mm with pixels of 0.6875 mm become 205 of 0.687 mm.

    Raises:
        RefusedError: the volume has no regular stack of slices, its slices are thin already or far too thick.
    """
    axis = check_stack(volume)
    sides = np.linalg.norm(np.asarray(volume.affine)[:3, : volume.array.ndim - 1], axis=0)
    step, pixel = float(sides[axis]), float(np.delete(sides, axis).min())
    wanted = step / pixel if factor is None else factor
    slices = volume.array.shape[axis + 1]
    count = round(slices * wanted)
    if count <= slices:
        raise RefusedError(f"slices {step:.3g} mm apart are no thicker than pixels of {pixel:.3g} mm: nothing to thin")
    if wanted > LARGEST_FACTOR:
        raise RefusedError(
            f"slices {step:.3g} mm apart hold too little for steps of {pixel:.3g} mm; give a factor of at most "
            f"{LARGEST_FACTOR:g} yourself"
        )
    return count


def usual_strength(factor: float) -> float:
    """How much of what an expert finds is added by default to slices ``factor`` times as thick as the thin ones.

    An expert is right on average, and puts some edges in wrong places, the more the thicker slices are. This is the
    most at which three heads for validation have no blob of 8 % of white that is not there (protocol ``mri-lesions``).
    """
    return float(np.interp(factor, *USUAL))


def thin_volume(
    volume: Volume, restorer: Restorer, options: Thinning, progress: Callable[[int], None] | None = None
) -> Volume:
    """The MR volume with thin slices: same extent, axes, unit and in-plane grid.

    Averaged by the slice profile, the result gives the acquired slices back to rounding, except where a value below the
    lowest of the source was raised to it. Constant background (the zeros around a stripped brain) stays what it was, to
    the last bit, throughout the slices that have it.

    Args:
        volume: MR with slices at equal steps, thicker than its pixels are wide.
        restorer: holds the expert.
        options: see :class:`Thinning`.
        progress: called with the number of planes done since the last call, see :func:`work_units`.

    Raises:
        RefusedError: the volume is not such.
        BundleError: there is no such expert, or it is none for super-resolution of MR.
    """
    expert = _expert(restorer, options.expert)
    if volume.modality is not Modality.MR:
        raise RefusedError(f"thinning was made for MR slices, this is {volume.modality.value}; leave it as it is")
    count, axis = thin_count(volume, options.factor), check_stack(volume)
    stacks = np.moveaxis(volume.array, axis + 1, 1)  # (C, n, H, W)
    check_size(max(count, stacks.shape[3]), max(count, stacks.shape[2]))
    profile = SliceProfile(stacks.shape[1], count, options.profile)
    sides = _thin_sides(volume, axis, count)
    strength = usual_strength(count / stacks.shape[1]) if options.strength is None else options.strength
    told = told_slices(volume, options.sigma, restorer.noise_estimator, [expert])
    fine = np.empty((len(stacks), count, *stacks.shape[2:]), np.float32)
    for index, thick in enumerate(stacks):
        scaling = scaling_for(volume.stacks()[index])
        start = scaling.forward(profile.interpolate(thick))
        sigma = _noise(scaling.forward(thick), restorer) if told is None else told[index * volume.stack_length].reading
        end = profile.consistent(
            _restored_planes(start, sides, sigma, expert, restorer, progress), scaling.forward(thick)
        )
        fine[index] = scaling.inverse(start + strength * (end - start))
        np.maximum(fine[index], thick.min(), out=fine[index])  # magnitudes do not become negative beside an edge
        _keep_background(fine[index], thick, volume.modality)
    return finer_slices(volume, np.ascontiguousarray(np.moveaxis(fine, 1, axis + 1)))


def _keep_background(fine: NDArray[np.float32], thick: NDArray[np.float32], modality: Modality) -> None:
    """Put back what is constant background in the thick slices ``(n, H, W)`` that a thin one, of ``(m, H, W)``, lies
    in."""
    kept = sheltered(torch.from_numpy(np.ascontiguousarray(thick))[:, None], modality.profile).kept[:, 0].numpy()
    edges = np.arange(len(fine) + 1) * (len(thick) / len(fine))
    for place, (top, bottom) in zip(fine, pairwise(edges), strict=True):
        first, last = int(top + _EDGE), min(int(np.ceil(bottom - _EDGE)), len(thick))
        np.copyto(place, thick[first], where=kept[first:last].all(0))


def work_units(volume: Volume, options: Thinning) -> int:
    """How much :func:`thin_volume` will tell ``progress``: planes times tiles, of both directions."""
    count, axis = thin_count(volume, options.factor), check_stack(volume)
    height, width = (side for index, side in enumerate(volume.array.shape[1:]) if index != axis)
    per_stack = height * len(tiles(count, width)) + width * len(tiles(count, height))
    return int(per_stack * len(volume.array))


def thin_derivation(restorer: Restorer, options: Thinning) -> Derivation:
    """What to write into the headers of a result."""
    from monai_sasm import __version__

    expert = _expert(restorer, options.expert)
    factor = "isotropic" if options.factor is None else options.factor
    parameters = {
        "expert": options.expert,
        "factor": factor,
        "strength": "by thickness" if options.strength is None else options.strength,
        "sigma": options.sigma,
        "profile": options.profile,
        "precision": expert.precision,
    }
    return Derivation(
        "monai_sasm",
        __version__,
        {options.expert: expert.sha256},
        {key: value for key, value in parameters.items() if value is not None},
        settings={options.expert: expert.settings},
        summary="Through-plane super-resolution",
        label="SASM thin slices",
    )


def _expert(restorer: Restorer, name: str) -> Bundle:
    expert = restorer.expert(name, thinning=True)
    check_thinning(name, restorer.experts.sections)
    return expert


def _noise(thick: NDArray[np.float32], restorer: Restorer) -> float:
    """Median noise of the acquired slices, working scale; in interpolated planes it could not be told."""
    with torch.inference_mode():
        maps = [restorer.noise_estimator(torch.from_numpy(np.ascontiguousarray(one))[None, None]) for one in thick]
    return volume_noise_level([noise_level(one)[0] for one in maps])


def _thin_sides(volume: Volume, axis: int, count: int) -> NDArray[np.float64]:
    """Sides in mm of the thin voxels, that along the slice axis first."""
    sides = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    sides[axis] *= volume.array.shape[axis + 1] / count
    return np.array([sides[axis], *np.delete(sides, axis)])


def _restored_planes(
    start: NDArray[np.float32],
    sides: NDArray[np.float64],
    sigma: float,
    expert: Bundle,
    restorer: Restorer,
    progress: Callable[[int], None] | None,
) -> NDArray[np.float32]:
    """Mean of the two families of restored planes of ``(m, H, W)``, working scale."""
    total = np.zeros_like(start)

    def run(slab: ImageBatch) -> ImageBatch:
        near = slab.shape[1] // 2
        slab = slab.to(restorer.device)
        image = slab[:, near : near + 1]
        everywhere = torch.cat([torch.zeros_like(image), torch.ones_like(image)], 1)
        level = torch.full_like(image, sigma)
        return restore_tiled(image, level, everywhere, {1: expert.restore}, progress=progress, slab=slab)

    for axis in (1, 2):
        planes = np.moveaxis(start, axis, 0)  # (planes, m, width)
        result = np.moveaxis(total, axis, 0)
        near = expert.neighbours if adjacent(np.diag([*sides, 1.0]), axis) else 0
        images = (torch.from_numpy(np.ascontiguousarray(plane))[None] for plane in planes)
        restored = run_on_slices(run, images, batch=BATCH, neighbours=near, length=len(planes))
        for place, plane in zip(result, restored, strict=True):
            place += plane[0].cpu().numpy() / 2
    return total
