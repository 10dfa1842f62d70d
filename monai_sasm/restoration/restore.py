"""Gate, experts, mixing and refinement on a volume, slice by slice, as a :class:`Plan` says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.functional.grey import to_grey
from monai_sasm.functional.intensity import Scaling, scalings_for
from monai_sasm.functional.mixing import blend
from monai_sasm.functional.neighbours import batches, fit_neighbours, neighbours_of
from monai_sasm.functional.noise import noise_level, volume_noise_level
from monai_sasm.functional.self_ensemble import self_ensemble
from monai_sasm.functional.tiling import bands, tiled
from monai_sasm.functional.uniform_tissue import middle
from monai_sasm.gate.later_passes import EarlierPasses
from monai_sasm.gate.pixel_weights import PixelWeights
from monai_sasm.io import paged
from monai_sasm.io.memory import give_back, keep_freed
from monai_sasm.io.paged import paging
from monai_sasm.io.photo.pixels import check_size
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.coherence import CoherentWeights, slice_distance
from monai_sasm.restoration.dispatch import gate_blocks, restore_tiled
from monai_sasm.restoration.maps import have_maps
from monai_sasm.restoration.operating_range import range_notes
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.refinement import enlarge, enlarge_and_refine, refine
from monai_sasm.restoration.restored import Restored
from monai_sasm.restoration.shelter import above_darkest, darkest, neighbours_for_experts, sheltered, with_change
from monai_sasm.restoration.statistics import SliceStatistics
from monai_sasm.restoration.target_noise import TissueNoise, aimed
from monai_sasm.restoration.threads import AT_ONCE, in_threads
from monai_sasm.restoration.told_noise import ToldNoise, noise_maps, told_slices
from monai_sasm.types import ExpertWeights, ImageBatch, NoiseMap

WEIGHT_FLOOR = 0.05  # below this an expert leaves the pixel alone
UNCHANGED = "unchanged: the result is a copy, for nothing to repair was found or the strength is 0"
NEVERTHELESS = "; to lower its noise nevertheless, ask for a target noise or name an expert"
_TRIM_EVERY = 32  # slices
_TISSUE = 1024  # pixels of tissue that are enough to measure noise in it
_MEASURED = 16  # slices whose noise is estimated before and afterwards


def restore_volume(
    volume: Volume, plan: Plan, progress: Callable[[int], None] | None = None, *, in_place: bool = False
) -> Restored:
    """Restore one image, slice by slice; geometry, unit and shape out equal those in.

    Args:
        volume: of the plan's modality.
        plan: see :meth:`monai_sasm.restoration.restorer.Restorer.plan`.
        progress: called with 1 after each unit of :meth:`Plan.work_units`.
        in_place: put the restored pixels where those of ``volume`` were, which is then used up; a long series needs
            half the memory so.
    """
    started = time.perf_counter()
    keep_freed(not volume.modality.profile.is_picture)
    aim = aimed(volume, plan)
    plan = aim.plan
    options, factor, scalings = plan.options, plan.scale, scalings_for(volume)
    whites = np.array([one.scale for one in scalings])
    count, channels, height, width = volume.slices_shape
    done = _output(volume, factor, in_place)
    changes = np.empty((count, factor * height, factor * width), np.float32) if options.keep_maps else None
    statistics = SliceStatistics(plan.classes, options.keep_maps, count)
    near = neighbours_of(volume, plan.neighbours)
    noises: list[tuple[float, float, float]] = []  # before and after in the unit of the volume, before in working scale
    tissue = TissueNoise(volume, whites, wanted=not (aim.told or volume.modality.profile.is_picture))
    size = plan.batch(factor * height, factor * width)
    given = told_slices(volume, options.sigma, plan.noise_estimator, plan.experts.values())
    run = partial(
        _correction,
        plan=plan,
        channels=channels,
        given=given,
        count=count,
        coherent=coherent_weights(volume, plan, scalings, given=given, behind=size * (AT_ONCE + 1)),
    )
    # read a few slices ahead, so that a slice is restored between neighbours that are not
    images = (_in_working_scale(*one, plan) for one in zip(volume.each_slice(), scalings, strict=True))
    slabs = batches(images, batch=size, neighbours=near, length=volume.stack_length)
    corrections = in_threads(run, slabs, size, plan=plan, count=count, statistics=statistics, progress=progress)
    changed = factor > 1
    with closing(corrections):
        for index, (native, place, change, scaling) in enumerate(
            zip(volume.each_slice(), paging(done.each_slice()), corrections, scalings, strict=True)
        ):
            # adding the correction in native units leaves an untouched pixel untouched to the last bit
            start = native
            if factor > 1:
                start = enlarge(_in_working_scale(native, scaling, plan)[None], factor)[0].numpy()
            floor = darkest(native, plan.modality.profile)
            tissue.see(index, native)
            measured = index % (1 + count // _MEASURED) == 0
            before = noise_of_slice(native, plan, scaling) if measured else 0.0
            for rows in bands(*start.shape[1:]):
                correction = scaling.scale * change[:, rows].numpy()
                changed = changed or bool(correction.any())
                restored = with_change(start[:, rows], correction, floor)
                if changes is not None:
                    changes[index, rows] = (restored - start[:, rows]).mean(0)
                place[:, rows] = restored
            tissue.see_restored(index, place)
            if measured:
                after = noise_of_slice(place, plan, scaling)
                noises.append((scaling.scale * before, scaling.scale * after, before))
            if index % _TRIM_EVERY == 0:
                give_back()
    give_back()
    before, after, read = (volume_noise_level(levels) for levels in zip(*noises, strict=True))
    summary = (
        statistics.summary()
        | dict(aim.told or tissue.summary())
        | {"noise": before, "noise_after": after, "seconds": time.perf_counter() - started}
    )
    weights = {name: maps.repeat(factor, 1).repeat(factor, 2) for name, maps in statistics.maps().items()}
    unsure = statistics.uncertainty(options.strength * whites)
    unsure = None if unsure is None else unsure.repeat(factor, 1).repeat(factor, 2)
    acting = list(plan.experts.values()) if changed else []
    told = range_notes(done, acting, summary["weights"], read, given[0] if given else None)
    if options.keep_maps and not have_maps(done):
        told.append("there are no maps: slices at uneven steps have no affine, which NIfTI needs")
    done = concluded(replace(done, notes=(*done.notes, *aim.notes, *told)), plan, changed)
    return Restored(done, plan, weights, changes, summary, statistics.trust(), unsure, changed)


def concluded(done: Volume, plan: Plan, changed: bool) -> Volume:
    """A restored volume with what is to be told of it."""
    done = plan.annotate(done)
    if changed:
        return done
    judged = plan.gate is not None and not plan.modality.profile.is_picture and plan.options.target_noise is None
    return replace(done, notes=(*done.notes, UNCHANGED + NEVERTHELESS if judged else UNCHANGED))


def restore_slices(
    image: ImageBatch,
    plan: Plan,
    *,
    given: Sequence[ToldNoise] | None = None,
    statistics: SliceStatistics | None = None,
    progress: Callable[[int], None] | None = None,
    slab: ImageBatch | None = None,
    weights: ExpertWeights | None = None,
) -> ImageBatch:
    """Slices ``(B, c, H, W)`` in working scale through all passes; grey photos enter as three equal channels.

    Args:
        image: the slices.
        plan: what to do.
        given: noise that the user tells, of each slice; estimated if ``None``, and in later passes.
        statistics: notes weights, noise and trust.
        progress: called with the number of slices after each tile of each pass.
        slab: the slices between their neighbours, see :mod:`monai_sasm.functional.neighbours`. They are as they came,
            so that only the first pass looks at them.
        weights: of the first pass, ``(B, E, H, W)``; by default the gate's of each slice alone.

    Returns:
        Same shape; ``plan.scale`` times as high and wide.
    """
    start, current = restore_fully(
        image, plan, given=given, statistics=statistics, progress=progress, slab=slab, weights=weights
    )
    own = current is not start and not current.is_inference()
    return at_strength(start, current, plan.options.strength, channels=image.shape[1], in_place=own)


def at_strength(
    start: ImageBatch, full: ImageBatch, strength: float, *, channels: int, in_place: bool = False
) -> ImageBatch:
    """``start + strength * (full - start)``, both of :func:`restore_fully`, with the channels of the image.

    ``in_place`` puts it where ``full`` was.
    """
    result = full if in_place else torch.empty_like(full)
    for rows in bands(*full.shape[-2:]):
        result[..., rows, :] = blend(start[..., rows, :], full[..., rows, :], strength)
    return to_grey(result) if channels == 1 and result.shape[1] == 3 else result


def restore_fully(
    image: ImageBatch,
    plan: Plan,
    *,
    given: Sequence[ToldNoise] | None = None,
    statistics: SliceStatistics | None = None,
    progress: Callable[[int], None] | None = None,
    slab: ImageBatch | None = None,
    weights: ExpertWeights | None = None,
) -> tuple[ImageBatch, ImageBatch]:
    """What :func:`restore_slices` starts from, and what it comes to at strength 1, whatever the plan's strength.

    Arguments as there; both results have its shape, but three channels for grey photos. They are the same tensor where
    nothing was to be done.
    """
    options = plan.options
    grey_photo = plan.modality.profile.is_picture and image.shape[1] == 1
    shelter = None if plan.modality.profile.is_picture else sheltered(image, plan.modality.profile)
    start = image.expand(-1, 3, -1, -1) if grey_photo else image if shelter is None else shelter.seen
    calls = {index: self_ensemble(expert.restore, options.self_ensemble) for index, expert in plan.experts.items()}
    current = start
    earlier = EarlierPasses()
    for number in range(plan.passes):
        first = number == 0
        sigma = plan.noise_estimator(current) if given is None or not first else noise_maps(given, current)
        maps = PixelWeights.of(weights) if weights is not None and first else _weights_of(current, sigma, plan)
        if plan.passes > 1:
            maps = earlier.allow(maps)
        active = [True] * len(current) if first else [not idle for idle in maps.all_identity(1 - WEIGHT_FLOOR)]
        if not any(active):
            break  # nothing left to repair
        around = slab if first else None
        if shelter is not None:
            around = shelter.for_experts(current) if around is None else neighbours_for_experts(around, plan.modality)
        if statistics is not None:
            read = sigma if given is None or not first else plan.noise_estimator(current)
            statistics.add(maps, read, number, active)
            if options.keep_maps and first and options.expert and plan.experts[1].samples:
                shown = current if around is None else around
                statistics.add_uncertainty(tiled(plan.experts[1].uncertainty, shown, sigma))
        mine = not first and around is None and all(active)  # nobody else needs what an earlier pass made
        restored = restore_tiled(current, sigma, maps, calls, progress=progress, slab=around, in_place=mine)
        current = restored if all(active) else torch.where(_per_slice(active, current), restored, current)
    start, current = _refined(start, current, plan, statistics)
    current = above_darkest(current, start, plan.modality.profile)
    return (start, current) if shelter is None else (image, shelter.result(current))


def _refined(
    start: ImageBatch, current: ImageBatch, plan: Plan, statistics: SliceStatistics | None
) -> tuple[ImageBatch, ImageBatch]:
    """What the passes started from and came to, on the grid of the result, with what the refiner draws."""
    if plan.refiner is None:
        return start, current
    if plan.options.upscale:
        return enlarge(start, plan.scale), enlarge_and_refine(current, plan.refiner, plan.options.refine)
    current, trust = refine(current, plan.refiner, plan.modality, strength=plan.options.refine, source=start)
    if statistics is not None:
        statistics.add_trust(trust)
    return start, current


def mixing_weights(image: ImageBatch, sigma: NoiseMap, plan: Plan) -> ExpertWeights:
    """Weights ``(B, E, H, W)`` of an image ``(B, C, H, W)`` in working scale; class 0 is the identity.

    A named expert has weight 1 everywhere; otherwise the plan's gate decides, and experts of other modalities, or that
    are not installed, get exactly 0.
    """
    return _weights_of(image, sigma, plan).whole()


def _weights_of(image: ImageBatch, sigma: NoiseMap, plan: Plan) -> PixelWeights:
    if plan.gate is None:
        return PixelWeights.of(image.new_tensor([0.0, 1.0])[:, None, None].expand(len(image), 2, *image.shape[-2:]))
    # in float32 whatever the precision: these weights are of single images, which no neighbouring slice steadies
    blocks = gate_blocks(image, sigma, plan.gate.network, modality=plan.modality, **_gate_settings(plan))
    return PixelWeights.of_blocks(blocks, image, plan.modality, WEIGHT_FLOOR)


def coherent_weights(
    volume: Volume, plan: Plan, scalings: list[Scaling], *, given: list[ToldNoise] | None = None, behind: int = 0
) -> CoherentWeights | None:
    """The gate's weights of the slices of a volume; ``None`` where each slice stands alone, or no gate decides.

    A slice must not be overwritten before its weights were asked for. ``scalings`` see
    :func:`monai_sasm.functional.intensity.scalings_for`, ``given`` :func:`coherent_slices`, ``behind``
    :class:`CoherentWeights`.
    """
    _, _, height, width = volume.slices_shape
    return coherent_slices(
        lambda index: _in_working_scale(volume.slice_at(index), scalings[index], plan).to(plan.device),
        plan,
        count=volume.stack_length,
        distance=slice_distance(volume),
        size=(height, width),
        given=given,
        behind=behind,
    )


def coherent_slices(
    slice_at: Callable[[int], ImageBatch],
    plan: Plan,
    *,
    count: int,
    distance: float | None,
    size: tuple[int, int],
    given: Sequence[ToldNoise] | None = None,
    behind: int = 0,
) -> CoherentWeights | None:
    """:func:`coherent_weights` of slices that are in working scale already.

    Args:
        slice_at: index -> slice ``(c, H, W)``.
        plan: what to do.
        count: slices per stack.
        distance: see :func:`monai_sasm.restoration.coherence.slice_distance`.
        size: height and width of the slices.
        given: noise that the user tells, of each slice; estimated if ``None``.
        behind: see :class:`CoherentWeights`.
    """
    gate = plan.gate
    if gate is None or distance is None:
        return None

    def judge(index: int) -> ExpertWeights:
        image = sheltered(slice_at(index)[None], plan.modality.profile).seen
        sigma = plan.noise_estimator(image) if given is None else given[index].map(image)
        blocks = gate_blocks(
            image, sigma, gate.network, modality=plan.modality, precision=gate.precision, **_gate_settings(plan)
        )
        return blocks.cpu()  # small, and asked for by threads that know nothing of each other's streams

    return CoherentWeights(
        judge, count=count, distance=distance, modality=plan.modality, size=size, floor=WEIGHT_FLOOR, behind=behind
    )


def _in_working_scale(native: NDArray[np.float32], scaling: Scaling, plan: Plan) -> torch.Tensor:
    """A slice ``(c, H, W)`` as the networks take it; a photo in their scale is not copied, where torch takes it."""
    if plan.modality.profile.is_picture and scaling == Scaling():
        return torch.from_numpy(native if native.flags.writeable and min(native.strides) >= 0 else np.array(native))
    return torch.from_numpy(scaling.forward(np.asarray(native)))


def _gate_settings(plan: Plan) -> dict[str, Any]:
    return {
        "allowed": torch.tensor([index == 0 or index in plan.experts for index in range(len(plan.classes))]),
        "temperature": plan.gate.metadata["sasm"].get("temperature", 1.0) if plan.gate else 1.0,
        "top_k": plan.options.top_k,
    }


def _correction(
    first: int,
    slab: ImageBatch,
    plan: Plan,
    channels: int,
    given: Sequence[ToldNoise] | None,
    count: int,
    coherent: CoherentWeights | None,
    progress: Callable[[int], None] | None,
) -> tuple[ImageBatch, SliceStatistics]:
    """What is added to slices ``(B, (2 n + 1) channels, H, W)``, given between their neighbours, and what is noted.

    ``first`` of ``count`` is the index of the first of them.
    """
    statistics = SliceStatistics(plan.classes, plan.options.keep_maps, count)
    if plan.device.type == "cuda":
        slab = slab.pin_memory()
    slab = slab.to(plan.device, non_blocking=True)
    image = fit_neighbours(slab, 0, channels)
    around = slab if slab.shape[1] > channels else None
    weights = None
    if coherent is not None:
        weights = torch.cat([coherent(first + index, image[index : index + 1]) for index in range(len(image))])
    result = restore_slices(
        image,
        plan,
        given=None if given is None else given[first : first + len(image)],
        statistics=statistics,
        progress=progress,
        slab=around,
        weights=weights,
    )
    return result.sub_(enlarge(image, plan.scale)).cpu(), statistics


def noise_of_slice(image: NDArray[np.float32], plan: Plan, scaling: Scaling) -> float:
    """Median noise of the middle of a slice ``(c, H, W)``, in working scale; of its tissue, where there is enough.

    A restored background is all but flat, and would make the noise that is left in the body look smaller than it is.
    """
    seen = torch.from_numpy(np.ascontiguousarray(scaling.forward(np.array(middle(image))), np.float32))
    sigma, (low, high) = plan.noise_estimator(seen[None]), plan.modality.profile.tissue
    tissue = ((seen > low) & (seen < high)).all(0)[None, None]
    enough = not plan.modality.profile.is_picture and int(tissue.sum()) >= _TISSUE
    return noise_level(sigma.where(tissue, sigma.new_zeros(())) if enough else sigma)[0]


def _output(volume: Volume, factor: int, in_place: bool) -> Volume:
    """Where the restored pixels go."""
    if factor == 1:
        return volume if in_place else volume.with_array(paged.like(volume.array))
    channels, height, width = volume.array.shape
    check_size(factor * width, factor * height)
    return volume.enlarged(np.empty((channels, factor * height, factor * width), np.float32))


def _per_slice(flags: list[bool], image: ImageBatch) -> torch.Tensor:
    return torch.tensor(flags, device=image.device)[:, None, None, None]
