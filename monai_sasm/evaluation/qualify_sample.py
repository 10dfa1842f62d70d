"""A sample of a series' slices, restored without and with lesions: what ``sasm qualify`` measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.contrast_gain import Disc, disc_signal, uniform_places
from monai_sasm.evaluation.ct_denoising import uniform_regions
from monai_sasm.evaluation.tissues import BODY, TISSUES, Mask, body_of, kinds, window_side
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.orientation import Orientation, orientation_of
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.operating_range import pixel_sides
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.restored import Restored

Image = NDArray[np.float32]
Place = tuple[int, int]
FILLED = 0.05  # share of a slice that is patient, below which it is not sampled


@dataclass(frozen=True)
class Lesions:
    """What is pasted into the images of a modality: HU for CT, percent of white for MR; lengths in mm.

    Args:
        discs: kinds, which take turns over the places.
        span, spread, radius, gap: of the places, see :func:`monai_sasm.evaluation.contrast_gain.uniform_places`.
        blur: standard deviation of a disc's edge.
    """

    discs: tuple[Disc, ...]
    span: tuple[float, float]
    spread: float
    radius: float
    gap: float
    blur: float = 0.4


LESIONS = {
    Modality.CT: Lesions((Disc(3, 14), Disc(5, 7), Disc(7, 5), Disc(10, 3)), (-20, 150), spread=16, radius=7.5, gap=30),
    Modality.MR: Lesions((Disc(2, 20), Disc(3, 15), Disc(4, 10), Disc(3, -15)), (20, 110), spread=6, radius=4, gap=14),
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Slices ``(N, H, W)`` in HU or percent of white, and what became of them at full strength.

    Args:
        modality: CT or MR.
        indices: of the slices in the series.
        spacing: mean side of a pixel, mm.
        before: as they came.
        after: restored.
        weights: expert -> weight of each pixel.
        places: lesions of each slice, kind and centre.
        lesions: what was pasted.
        with_lesions: restored with them.
        orientation: how a slice is turned to be shown.
        white: what the networks took for 1 in the slices as they came, in the unit of the series; CT: 1.
    """

    modality: Modality
    indices: tuple[int, ...]
    spacing: float
    before: Image
    after: Image
    weights: dict[str, Image]
    places: tuple[tuple[tuple[Disc, Place], ...], ...]
    lesions: Image
    with_lesions: Image
    orientation: Orientation = field(default_factory=Orientation)
    white: float = 1.0

    def shown(self, plane: Image) -> Image:
        """A slice as radiologists look at it: patient's right on the left, front or top up."""
        return self.orientation.show(plane)

    def at(self, strength: float) -> Image:
        """The slices at a strength: 0 as they came, 1 restored."""
        return self.before + np.float32(strength) * (self.after - self.before)

    def response(self, strength: float) -> Image:
        """What the lesions became at a strength."""
        return self.lesions + np.float32(strength) * (self.with_lesions - self.after - self.lesions)

    @property
    def scale(self) -> float:
        """The unit of the slices over the working scale of the networks."""
        profile = self.modality.profile
        return 100.0 if profile.relative else profile.scale

    @property
    def window(self) -> int:
        """Side of the windows that noise is measured in, pixels."""
        return window_side(self.spacing)

    @cached_property
    def bodies(self) -> list[Mask]:
        """The patient in each slice."""
        return [body_of(one, BODY[self.modality]) for one in self.after]

    @cached_property
    def tissues(self) -> list[dict[str, Mask]]:
        """Kinds of tissue in each slice."""
        return [kinds(one, TISSUES[self.modality], self.window) for one in self.after]

    @cached_property
    def regions(self) -> list[list[tuple[slice, slice]]]:
        """Uniform squares of soft tissue in each slice, CT; none for MR."""
        if self.modality is not Modality.CT:
            return [[] for _ in self.after]
        return [uniform_regions(one) for one in self.after]

    def patches(self, images: Image) -> Image:
        """The uniform squares of ``images``, ``(M, side, side)``; M may be 0."""
        found = [one[place] for one, places in zip(images, self.regions, strict=True) for place in places]
        return np.stack(found) if found else np.empty((0, 1, 1), np.float32)

    def within(self, images: Image, tissue: str) -> NDArray[np.float32]:
        """Values of ``images`` at all pixels of a kind."""
        return np.concatenate([one[mask[tissue]] for one, mask in zip(images, self.tissues, strict=True)])

    def in_patient(self, images: Image) -> NDArray[np.float32]:
        """Values of ``images`` in the patient."""
        return np.concatenate([one[body] for one, body in zip(images, self.bodies, strict=True)])


def sampled(
    volume: Volume,
    restorer: Callable[..., Restored],
    count: int,
    *,
    expert: str | None = None,
    gate: str | None = None,
) -> tuple[Sample, Restored]:
    """At most ``count`` slices of a series, restored by the gate or a named expert.

    Args:
        volume: CT or MR.
        restorer: a :class:`~monai_sasm.restoration.restorer.Restorer`, or what is called like one.
        count: slices, evenly over the series.
        expert: without the gate.
        gate: another one than the default.

    Raises:
        RefusedError: no slice holds enough of a patient.
        BundleError: an expert or the gate is missing.
    """
    modality, stack = volume.modality, volume.as_slices()[:, 0]
    unit = _unit(volume)
    indices = _indices(stack / unit, BODY[modality], count)
    spacing = float(np.mean(pixel_sides(volume) or [1.0]))
    chosen = np.ascontiguousarray(stack[list(indices)])
    taken = _stack(volume, chosen, indices)
    result = restorer(taken, expert=expert, gate=gate, keep_maps=True)
    after = result.volume.as_slices()[:, 0] / unit
    places = _places(after, LESIONS[modality], spacing)
    lesions = np.stack([_signal(one, after.shape[1:], LESIONS[modality].blur, spacing=spacing) for one in places])
    second = restorer(_stack(volume, chosen + unit * lesions, indices), expert=expert, gate=gate)
    return Sample(
        modality,
        indices,
        spacing,
        before=chosen / unit,
        after=after,
        weights={name: maps for name, maps in result.weights.items() if name != "identity"},
        places=places,
        lesions=lesions,
        with_lesions=second.volume.as_slices()[:, 0] / unit,
        orientation=orientation_of(volume),
        white=scaling_for(taken).scale if modality.profile.relative else 1.0,
    ), result


def usable_slices(volume: Volume) -> int:
    """How many slices of a series :func:`sampled` can take at most."""
    return len(_inner(volume.as_slices()[:, 0] / _unit(volume), BODY[volume.modality]))


def _unit(volume: Volume) -> float:
    """What a step of HU or of one percent of white is in the unit of a series."""
    return scaling_for(volume).scale / 100 if volume.modality.profile.relative else 1.0


def _inner(stack: Image, above: float) -> NDArray[np.int64]:
    """The slices that hold some of the patient, without the outermost."""
    filled = np.flatnonzero((stack[:, ::4, ::4] > above).mean((1, 2)) > FILLED)
    return filled[len(filled) // 20 : len(filled) - len(filled) // 20]


def _indices(stack: Image, above: float, count: int) -> tuple[int, ...]:
    """At most ``count`` of them, evenly spread."""
    inner = _inner(stack, above)
    if not len(inner):
        raise RefusedError("no slice holds enough of a patient to measure anything")
    places = np.linspace(0, len(inner) - 1, min(count, len(inner))).round().astype(int)
    return tuple(int(inner[k]) for k in places)


def _stack(volume: Volume, slices: Image, indices: Sequence[int]) -> Volume:
    """The slices as a volume of their own, as far from one another as they lie in the series."""
    across, down = pixel_sides(volume) or [1.0, 1.0]
    step = 1.0
    if volume.affine is not None and volume.slice_axis is not None:
        step = float(np.linalg.norm(volume.affine[:3, volume.slice_axis]))
    apart = step * max(1.0, (indices[-1] - indices[0]) / max(len(indices) - 1, 1))
    affine = np.array([[0, 0, down, 0], [0, across, 0, 0], [apart, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    return Volume(np.ascontiguousarray(slices[None], np.float32), volume.modality, affine, slice_axis=0)


def _places(clean: Image, settings: Lesions, spacing: float) -> tuple[tuple[tuple[Disc, Place], ...], ...]:
    number, found = 0, []
    for one in clean:
        centres = uniform_places(
            one, spacing, span=settings.span, spread=settings.spread, radius=settings.radius, gap=settings.gap
        )
        kinds_here = [settings.discs[(number + k) % len(settings.discs)] for k in range(len(centres))]
        found.append(tuple(zip(kinds_here, centres, strict=True)))
        number += len(centres)
    return tuple(found)


def _signal(places: Sequence[tuple[Disc, Place]], shape: tuple[int, ...], blur: float, *, spacing: float) -> Image:
    total = np.zeros(shape, np.float32)
    for disc, centre in places:
        total += disc_signal((shape[0], shape[1]), [centre], disc, spacing=spacing, blur=blur)
    return total
