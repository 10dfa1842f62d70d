"""The sentence of the house: gate, experts, mixing, refinement, on a Volume; the only file that knows all rooms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.bundles import Bundle
from monai_sasm.errors import BundleError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.mixing import blend
from monai_sasm.functional.neighbours import reach, slabs
from monai_sasm.functional.tiling import tiles
from monai_sasm.gate.display import to_display
from monai_sasm.gate.routing import convincing, route, seen
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.memory import give_back
from monai_sasm.io.photo.pixels import check_size
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.dispatch import restore_tiled, score_tiled, spread_tiled
from monai_sasm.restoration.maps import SliceStatistics
from monai_sasm.restoration.refinement import (
    check_upscale,
    enlarged,
    refined,
    refined_and_enlarged,
    refined_derivation,
)
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import ExpertWeights, ImageBatch, Modality, NoiseMap

DEFAULT_PASSES = {Modality.CT: 1, Modality.MR: 1, Modality.PHOTO: 2}
WEIGHT_FLOOR = 0.05  # below this an expert leaves the pixel alone
_TRIM_EVERY = 16  # slices


@dataclass(frozen=True)
class Options:
    """What a user may choose; the defaults are right for most images.

    Args:
        expert: name of one expert to apply everywhere, without the gate.
        strength: 0 returns the input, 1 the full restoration; in between, a blend.
        top_k: how many experts may act on one image.
        passes: how often gate and experts look at the image; by default 1 for CT and MR, 2 for photos, where
            raindrops may lie on noise.
        sigma: noise standard deviation in the volume's unit (HU, MR magnitude, sRGB [0, 1]); estimated if ``None``.
        refine: strength of the refiner, 0 (off) to 1.
        keep_maps: also return weight, trust and change maps, and the uncertainty of an expert that draws samples.
        refiner: name of the refiner; by default the one meant for the image's modality.
        force_refiner: apply the named refiner although it is made for another modality; the result's metadata say so.
        upscale: keep the larger image of a refiner that enlarges (``upscale_photo_sd4x``: four times); photos only.
        gate: name of the gate; by default :func:`monai_sasm.bundles.default_gate`.
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

    def __post_init__(self) -> None:
        if self.gate is not None and self.expert is not None:
            raise ValueError(f"a named expert acts without a gate; choose the expert {self.expert} or {self.gate}")
        for name in ("strength", "refine"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.passes is not None and self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")
        if self.sigma is not None and not (np.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(
                f"sigma is a noise standard deviation and must be finite and not negative, got {self.sigma}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not self.refine and (self.refiner or self.force_refiner or self.upscale):
            raise ValueError("a refiner acts with the strength of refine, which is 0; set it above 0, 1 for all of it")
        if self.refiner is None and (self.force_refiner or self.upscale):
            raise ValueError("force_refiner and upscale need the name of a refiner; set refiner")


@dataclass(frozen=True)
class Restored:
    """A restored volume with what was done to it.

    Args:
        volume: same geometry, header and unit as the input; larger with ``upscale``, and the maps with it.
        weights: class name -> ``(N, H, W)`` weight of each pixel in each slice (later passes as ``"name, pass 2"``);
            empty unless ``keep_maps``.
        change: ``(N, H, W)`` restored minus input, in the volume's unit, mean over colours; ``None`` unless
            ``keep_maps``.
        summary: mean weight per expert, median noise estimate in the volume's unit, passes, seconds, mean trust.
        trust: ``(N, H, W)`` share of the refiner's change that was used, before its strength; ``None`` unless
            ``keep_maps`` and refined.
        uncertainty: ``(N, H, W)`` standard deviation of what a named expert that draws samples might have restored, in
            the volume's unit; ``None`` unless ``keep_maps`` and such an expert.
    """

    volume: Volume
    weights: dict[str, NDArray[np.float32]]
    change: NDArray[np.float32] | None
    summary: dict[str, Any]
    trust: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None


def restore(
    volume: Volume,
    restorer: Restorer,
    options: Options | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    in_place: bool = False,
) -> Restored:
    """Restore one image, slice by slice; geometry, unit and shape out equal those in.

    Args:
        volume: what to restore.
        house: see :func:`monai_sasm.restoration.restorer.load_restorer`.
        options: see :class:`Options`.
        progress: called with 1 after each unit of :func:`work_units`.
        in_place: put the restored pixels where those of ``volume`` were, which is then used up; a long series needs
            half the memory so.

    Raises:
        BundleError: an expert, the gate or a refiner that the options need is not there or does not fit.
    """
    options = options or Options()
    _check_fits(volume.modality, restorer, options)
    started = time.perf_counter()
    scaling = scaling_for(volume)
    count, _, height, width = volume.slices_shape
    factor = _refiner(volume.modality, restorer, options).scale if options.upscale else 1
    done = _room_for(volume, factor, in_place)
    changes = np.empty((count, factor * height, factor * width), np.float32) if options.keep_maps else None
    statistics = statistics_for(restorer, options, count)
    given = None if options.sigma is None else options.sigma / scaling.scale
    near = reach(volume, restorer.neighbours(volume.modality, options.expert))
    images = (  # a few slices ahead, so that a slice is restored between neighbours that are not
        torch.from_numpy(scaling.forward(np.array(native)))[None].to(restorer.device) for native in volume.each_slice()
    )
    stack = count // (1 if volume.modality is Modality.PHOTO else len(volume.array))
    parts = zip(volume.each_slice(), done.each_slice(), slabs(images, near, stack), strict=True)
    for index, (native, place, around) in enumerate(parts):
        image, slab = around[near], torch.cat(around, 1) if near else None  # (1, c, H, W), (1, 2 near + 1, H, W)
        result = restore_slice(image, volume.modality, restorer, options, given, statistics, progress, slab)
        # adding the correction in native units leaves an untouched pixel untouched to the last bit
        correction = scaling.scale * (result - enlarged(image, factor))[0].cpu().numpy()
        start = native if factor == 1 else enlarged(torch.from_numpy(native)[None], factor)[0].numpy()
        restored = start + correction
        if changes is not None:
            changes[index] = (restored - start).mean(0)
        place[...] = restored
        if index % _TRIM_EVERY == 0:
            give_back()
    summary = statistics.summary(scaling.scale) | {"seconds": time.perf_counter() - started}
    weights = {name: maps.repeat(factor, 1).repeat(factor, 2) for name, maps in statistics.maps().items()}
    unsure = statistics.uncertainty(options.strength * scaling.scale)
    unsure = None if unsure is None else unsure.repeat(factor, 1).repeat(factor, 2)
    return Restored(_noted(done, restorer, options), weights, changes, summary, statistics.trust(), unsure)


def work_units(volume: Volume, options: Options | None = None) -> int:
    """How often :func:`restore` will call ``progress``: slices times tiles times passes (at most)."""
    count, _, height, width = volume.slices_shape
    return count * len(tiles(height, width)) * _passes(volume.modality, options or Options())


def derivation(restorer: Restorer, options: Options, modality: Modality | None = None) -> Derivation:
    """What to write into the headers of a result made with this house and these options.

    Args:
        house: see :func:`monai_sasm.restoration.restorer.load_restorer`.
        options: see :class:`Options`.
        modality: of the image; needed where it was refined.
    """
    from monai_sasm import __version__

    chosen = {
        "expert": options.expert or "gate",
        "strength": options.strength,
        "top_k": options.top_k,
        "passes": options.passes,
        "sigma": options.sigma,
        "refine": options.refine,
        "precision": restorer.precision,
    }
    parameters = {key: value for key, value in chosen.items() if value is not None}
    plain = Derivation("monai_sasm", __version__, restorer.models(), parameters, summary="Noise and artefact reduction")
    if not options.refine:
        return plain
    if modality is None:
        raise ValueError("how an image was refined depends on its modality; pass derivation(..., modality=...)")
    return refined_derivation(plain, _refiner(modality, restorer, options), modality, options.upscale)


def gate_weights(
    image: ImageBatch, sigma: NoiseMap, modality: Modality, restorer: Restorer, options: Options
) -> ExpertWeights:
    """Mixing weights ``(B, E, H, W)`` of an image in working scale; class 0 is the identity.

    Args:
        image: ``(B, C, H, W)``, ``C`` 1 or 3.
        sigma: noise map ``(B, 1, H, W)``, working scale.
        modality: masks experts of other modalities.
        house: must have a gate.
        options: ``top_k`` is used.
    """
    gate = restorer.require_gate()
    classes = restorer.classes()
    usable = torch.tensor(
        [
            index == 0 or (name in restorer.experts and restorer.experts[name].modality is modality)
            for index, name in enumerate(classes)
        ],
        device=image.device,
    )
    shown, shown_sigma = to_display(image, sigma, modality)
    with torch.inference_mode():
        logits = score_tiled(shown, shown_sigma, gate.network)
        return route(
            logits,
            size=(image.shape[-2], image.shape[-1]),
            allowed=usable,
            temperature=gate.metadata["sasm"].get("temperature", 1.0),
            top_k=options.top_k,
            floor=WEIGHT_FLOOR,
        )


def statistics_for(restorer: Restorer, options: Options, count: int) -> SliceStatistics:
    """What :func:`restore_slice` notes of ``count`` slices."""
    classes = ("clean", options.expert) if options.expert else restorer.classes()
    return SliceStatistics(("identity", *classes[1:]), options.keep_maps, count)


def _room_for(volume: Volume, factor: int, in_place: bool) -> Volume:
    """Where the restored pixels go."""
    if factor == 1:
        return volume if in_place else volume.with_array(np.empty_like(volume.array))
    channels, height, width = volume.array.shape
    check_size(factor * width, factor * height)
    return volume.enlarged(np.empty((channels, factor * height, factor * width), np.float32))


def restore_slice(
    image: ImageBatch,
    modality: Modality,
    restorer: Restorer,
    options: Options,
    given: float | None,
    statistics: SliceStatistics,
    progress: Callable[[int], None] | None = None,
    slab: ImageBatch | None = None,
) -> ImageBatch:
    """One slice ``(1, c, H, W)`` in working scale through all passes; a grey photo enters as three equal channels.

    Args:
        image: the slice.
        modality: of the image.
        house: see :func:`monai_sasm.restoration.restorer.load_restorer`.
        options: see :class:`Options`.
        given: noise standard deviation in working scale; estimated if ``None``, and in later passes.
        keeper: notes weights, noise and trust, see :func:`statistics_for`.
        progress: called with 1 after each tile of each pass.
        slab: the slice between its neighbours, see :mod:`monai_sasm.functional.neighbours`. They are as they came, so
            that only the first pass looks at them.
    """
    grey_photo = modality is Modality.PHOTO and image.shape[1] == 1
    start = image.expand(-1, 3, -1, -1) if grey_photo else image
    current = start
    known: torch.Tensor | None = None  # faults that earlier passes saw
    for number in range(passes := _passes(modality, options)):
        if given is not None and number == 0:
            sigma = torch.full_like(current[:, :1], given)
        else:
            sigma = restorer.noise_estimator(current)
        weights = _weights(current, sigma, modality, restorer, options)
        if known is not None:
            weights = convincing(weights, known)
        if passes > 1:
            known = seen(weights) if known is None else known | seen(weights)
        if number and float(weights[:, 0].min()) > 1 - WEIGHT_FLOOR:
            break  # nothing left to repair
        statistics.add(weights, sigma, number)
        around = None if number else slab
        if options.keep_maps and number == 0 and options.expert and restorer.experts[options.expert].samples:
            shown = current if around is None else around
            statistics.add_uncertainty(spread_tiled(shown, sigma, restorer.experts[options.expert].uncertainty))
        calls = _expert_calls(restorer, options)
        current = restore_tiled(current, sigma, weights, calls, progress=progress, slab=around)
    if options.upscale:
        refiner = _refiner(modality, restorer, options)
        start, current = enlarged(start, refiner.scale), refined_and_enlarged(current, refiner, options.refine)
    elif options.refine:
        refiner = _refiner(modality, restorer, options)
        current, trust = refined(current, refiner, modality, options.refine, start)
        statistics.add_trust(trust)
    current = blend(start, current, options.strength)
    if modality is Modality.MR:  # no magnitude is negative, however dark the surroundings are drawn
        current = current.clamp_min(min(0.0, float(start.min())))
    return current.mean(1, keepdim=True) if grey_photo else current


def _weights(
    image: ImageBatch, sigma: NoiseMap, modality: Modality, restorer: Restorer, options: Options
) -> ExpertWeights:
    if options.expert is None:
        return gate_weights(image, sigma, modality, restorer, options)
    ones = torch.ones_like(image[:, :1])
    return torch.cat([torch.zeros_like(ones), ones], 1)


def _expert_calls(restorer: Restorer, options: Options) -> dict[int, Callable[[ImageBatch, NoiseMap], ImageBatch]]:
    if options.expert is not None:
        return {1: restorer.experts[options.expert].restore}
    return {
        index: restorer.experts[name].restore
        for index, name in enumerate(restorer.classes())
        if name in restorer.experts
    }


def _refiner(modality: Modality, restorer: Restorer, options: Options) -> Bundle:
    return restorer.refiner(restorer.choose_refiner(modality, options.refiner, options.force_refiner))


def _noted(volume: Volume, restorer: Restorer, options: Options) -> Volume:
    """The volume with a note where a refiner did what its user should be reminded of."""
    if not options.refine:
        return volume
    done = derivation(restorer, options, volume.modality)
    enlarged_by = (f"enlarged {done.parameters['enlarged']} times by {options.refiner}",) if options.upscale else ()
    return replace(volume, notes=(*volume.notes, *enlarged_by, *((done.warning,) if done.warning else ())))


def _passes(modality: Modality, options: Options) -> int:
    if options.expert is not None:
        return options.passes or 1
    return options.passes or DEFAULT_PASSES[modality]


def _check_fits(modality: Modality, restorer: Restorer, options: Options) -> None:
    if options.expert is None:
        restorer.require_gate()
        if modality in restorer.unusable:
            raise BundleError(f"{restorer.unusable[modality]}; repair the bundle, or name an expert")
    elif options.expert not in restorer.experts:
        known = ", ".join(sorted(restorer.experts)) or "none"
        raise BundleError(
            f"no expert named {options.expert!r}; available: {known}; load_restorer(only=...) loads others"
        )
    elif restorer.experts[options.expert].modality is not modality:
        raise BundleError(
            f"{options.expert} is for {restorer.experts[options.expert].modality}, this image is {modality.value}; "
            "choose an expert of its modality, or leave --expert out"
        )
    if options.refine:
        refiner = _refiner(modality, restorer, options)
        if options.upscale:
            check_upscale(refiner, modality)
        refiner.prepare()
