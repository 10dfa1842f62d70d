"""A sample of a series' slices, restored without and with lesions: what ``sasm qualify`` measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.contrast_gain import Disc, disc_signal, uniform_places
from monai_sasm.evaluation.ct_denoising import uniform_regions
from monai_sasm.evaluation.some_slices import RestoreSome
from monai_sasm.evaluation.tissues import BODY, TISSUES, Mask, body_of, clipped_near, kinds, window_side
from monai_sasm.functional.intensity import scalings_for
from monai_sasm.functional.neighbours import neighbours_of, stack_distance
from monai_sasm.io.orientation import Orientation, orientation_of
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.operating_range import pixel_sides
from monai_sasm.types import Modality

Image = NDArray[np.float32]
Place = tuple[int, int]
REACH = 2  # slices on each side that networks look at
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
        noise: of tissue, as the networks read it in the slices as they came, in working scale.
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
    noise: float = 0.0

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
        """Kinds of tissue in each slice, within the patient and where no value is clipped."""
        trained, found = self.modality.profile.trained, []
        for before, after, body in zip(self.before, self.after, self.bodies, strict=True):
            whole = body & ~clipped_near(before, self.window, trained)
            here = kinds(after, TISSUES[self.modality], self.window)
            found.append({name: mask & whole for name, mask in here.items()})
        return found

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


def sampled(volume: Volume, restore: RestoreSome, count: int) -> Sample:
    """At most ``count`` slices of a series, restored.

    Where slices lie as close as pixels, lesions are as thick as they are wide, and seen in neighbouring slices, too.

    Args:
        volume: CT or MR.
        restore: see :mod:`monai_sasm.evaluation.some_slices`.
        count: slices, evenly over the series.

    Raises:
        RefusedError: no slice holds enough of a patient.
    """
    modality, stack = volume.modality, volume.as_slices()
    settings, units = LESIONS[modality], _units(volume)
    indices = _indices(stack[:, 0] / units, BODY[modality], count)
    unit = units[list(indices)]
    spacing = float(np.mean(pixel_sides(volume) or [1.0]))
    outcome = restore(volume, indices)
    after = outcome.after[:, 0] / unit
    places = _places(after, settings, spacing)
    apart = min((later - earlier for earlier, later in pairwise(indices)), default=len(stack))
    reach = min(neighbours_of(volume, REACH), (apart - 1) // 2)  # lesions of one slice are not seen in another
    step = stack_distance(volume) or spacing
    with_lesions, lesions = stack.copy(), np.zeros_like(after)
    for number, (index, here) in enumerate(zip(indices, places, strict=True)):
        for offset in range(-reach, reach + 1):
            if 0 <= index + offset < len(stack):
                signal = _signal(here, after.shape[1:], settings.blur, spacing=spacing, height=offset * step)
                with_lesions[index + offset, 0] += units[index + offset] * signal
                if offset == 0:
                    lesions[number] = signal
    second = restore(volume.from_slices(with_lesions), indices)
    return Sample(
        modality,
        indices,
        spacing,
        before=np.ascontiguousarray(stack[list(indices), 0]) / unit,
        after=after,
        weights={name: maps for name, maps in outcome.weights.items() if name != "identity"},
        places=places,
        lesions=lesions,
        with_lesions=second.after[:, 0] / unit,
        orientation=orientation_of(volume),
        noise=outcome.noise,
    )


def usable_slices(volume: Volume) -> int:
    """How many slices of a series :func:`sampled` can take at most."""
    return len(_inner(volume.as_slices()[:, 0] / _units(volume), BODY[volume.modality]))


def _units(volume: Volume) -> NDArray[np.float32]:
    """What a step of HU or of one percent of white is in the unit of a series, of each slice ``(N, 1, 1)``."""
    relative = volume.modality.profile.relative
    steps = [one.scale / 100 if relative else 1.0 for one in scalings_for(volume)]
    return np.array(steps, np.float32)[:, None, None]


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


def _signal(
    places: Sequence[tuple[Disc, Place]], shape: tuple[int, ...], blur: float, *, spacing: float, height: float = 0.0
) -> Image:
    """The lesions in the plane ``height`` mm above their middle, where a ball is narrower."""
    total = np.zeros(shape, np.float32)
    for disc, centre in places:
        squared = disc.diameter**2 - 4 * height**2
        if squared > 0:
            cut = replace(disc, diameter=math.sqrt(squared))
            total += disc_signal((shape[0], shape[1]), [centre], cut, spacing=spacing, blur=blur)
    return total
