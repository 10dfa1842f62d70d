"""The strength that leaves a wanted noise, as a noise index on a scanner's console: measured on the images at hand.

With the full correction ``d`` of an image ``x``, the noise of ``x + s d`` in a uniform region is
``sqrt(var(x) + 2 s cov(x, d) + s^2 var(d))``. The three numbers are measured in small uniform squares of some slices,
and their means taken; one strength then holds for the whole volume, so that slices keep their noise relative to each
other. Slices of time points that differ in brightness are measured each in percent of its own white.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.bundles import Bundle
from monai_sasm.errors import RefusedError
from monai_sasm.functional.squares import flattened, freedom, squares_of
from monai_sasm.functional.uniform_tissue import FEWEST, SLICES, middle, spread_evenly, tissue, uniformity
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.plan import Plan
from monai_sasm.types import Modality

MET = 1.01  # noise over the wanted one that is as good
NOISE = ("noise", "low-dose")  # degradations of experts that lower noise


@dataclass(frozen=True)
class NoiseCurve:
    """Noise of ``x + s d`` in uniform regions as a function of the strength s.

    Args:
        before: variance of ``x``, squared unit of the image.
        shared: covariance of ``x`` and ``d``; negative where noise is removed.
        removed: variance of ``d``.
        squares: how many squares were measured.
    """

    before: float
    shared: float
    removed: float
    squares: int

    def at(self, strength: float) -> float:
        """Noise standard deviation, in the unit of the image."""
        return float(np.sqrt(max(0.0, self.before + 2 * strength * self.shared + strength**2 * self.removed)))

    def nearest(self, target: float, most: float = 1.0) -> float:
        """The noise that :meth:`strength_for` leaves."""
        return self.at(self.strength_for(target, most))

    def strength_for(self, target: float, most: float = 1.0) -> float:
        """The smallest strength with at most that noise, 0 to ``most``; ``most`` where it cannot be reached.

        0 where there is no more noise than that already, or the correction removes none.
        """
        if self.before <= target**2 or self.shared >= 0:
            return 0.0
        lowest = min(most, -self.shared / self.removed)
        if self.at(lowest) >= target:
            return lowest
        a, b, c = self.removed, 2 * self.shared, self.before - target**2
        return float((-b - np.sqrt(b * b - 4 * a * c)) / (2 * a))


def noise_curve(
    image: NDArray[np.float32],
    change: NDArray[np.float32],
    modality: Modality,
    scale: float | NDArray[np.float64] = 1.0,
    smoother: NDArray[np.float32] | None = None,
) -> NoiseCurve:
    """Measure on slices and what a restoration adds to them at strength 1.

    Args:
        image: ``(N, c, H, W)``, in the unit of the image.
        change: same shape, restored minus image.
        modality: says which values are tissue.
        scale: unit of the image over the working scale, of all slices or of each, ``(N,)``. Where they differ, as
            whites of time points do, each slice counts in its own, and the curve is in the unit of their mean.
        smoother: a change that lowers the noise everywhere, same shape: shows which squares are uniform where
            ``change`` leaves some of them alone.

    Raises:
        RefusedError: there is no uniform tissue to measure on.
    """
    changes = (change, change if smoother is None else smoother)
    rule = uniformity(modality.profile)
    white = float(np.mean(scale))
    alike = white / np.broadcast_to(np.asarray(scale, np.float64), len(image))[:, None, None, None]
    x, d, smooth = (squares_of(alike * one, rule.side) for one in (image, *changes))  # (n, side^2)
    found = tissue(x / white, (x + smooth).mean(1) / white, modality.profile)
    if found.sum() < FEWEST:
        raise RefusedError("there is too little uniform tissue to measure noise on; give a strength instead of a noise")
    x, d, smooth = (flattened(one[found]) for one in (x, d, smooth))
    structure, variance = _blurred_variance(x + smooth), x.var(1)
    calm = structure <= np.quantile(structure, rule.share)
    calm &= variance <= rule.variance * np.quantile(variance, rule.share)
    x, d = x[calm], d[calm]
    moments = ((one * other).sum(1) / freedom(rule.side) for one, other in ((x, x), (x, d), (d, d)))
    before, shared, removed = (float(one.mean()) for one in moments)
    return NoiseCurve(before, shared, removed, len(x))


class TissueNoise:
    """Noise of uniform tissue before and after a restoration, from some of its slices.

    Args:
        volume: that is restored.
        scales: its unit over the working scale, of each slice.
        wanted: whether it is measured at all.
    """

    def __init__(self, volume: Volume, scales: NDArray[np.float64], *, wanted: bool = True) -> None:
        self.modality = volume.modality
        self._indices = spread_evenly(volume.slices_shape[0]) if wanted else []
        self._scales = scales[self._indices]
        self._before: list[NDArray[np.float32]] = []
        self._added: list[NDArray[np.float32]] = []

    def see(self, index: int, before: NDArray[np.float32]) -> None:
        """A slice ``(c, H, W)`` as it came, in the unit of the volume; it is copied."""
        if index in self._indices:
            self._before.append(np.array(middle(before)))

    def see_restored(self, index: int, after: NDArray[np.float32]) -> None:
        """The same slice, restored."""
        if index in self._indices:
            self._added.append(middle(after) - self._before[-1])

    def summary(self) -> dict[str, dict[str, float]]:
        """``{"tissue_noise": {"input": ..., "result": ...}}``, in the unit of the volume; empty where there is too
        little uniform tissue.
        """
        if not self._added:
            return {}
        try:
            curve = noise_curve(np.stack(self._before), np.stack(self._added), self.modality, self._scales)
        except RefusedError:
            return {}
        return {"tissue_noise": {"input": _rounded(curve.at(0)), "result": _rounded(curve.at(1))}}


def restored_slices(
    volume: Volume, plan: Plan, slices: int = SLICES
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """What :func:`noise_curve` measures: some slices ``(N, c, H, W)``, spread evenly, what the plan adds to them at
    strength 1, both in the unit of the volume, and that unit over the working scale, ``(N,)``.

    Args:
        volume: of the plan's modality.
        plan: its strength does not matter.
        slices: how many are restored at most.
    """
    from monai_sasm.restoration.on_demand import OnDemand

    some = OnDemand(volume, replace(plan, options=replace(plan.options, keep_maps=False)))
    indices = spread_evenly(len(some), slices)
    for index in indices:
        some.restore(index)
    natives, changes = np.stack([some.natives[index] for index in indices]), np.stack(list(map(some.change, indices)))
    return natives, changes, np.array([some.scalings[index].scale for index in indices])


@dataclass(frozen=True)
class Aim:
    """How a wanted noise is reached.

    Args:
        plan: with the strength that was chosen.
        told: for the summary: ``strength`` and ``tissue_noise``; empty where no noise was asked for.
        notes: for the user.
    """

    plan: Plan
    told: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def aimed(volume: Volume, plan: Plan) -> Aim:
    """The plan with the strength that leaves ``Options.target_noise``, never more than its own.

    A gate leaves alone what a normal image of some scanner looks like. Who asks for a noise knows better: where gate
    and experts leave more, the expert for noise acts everywhere, if it leaves less. Not in photos, whose other
    faults would stay: there a note says which expert to name.

    Raises:
        RefusedError: there is no uniform tissue to measure on.
    """
    asked, most = plan.options.target_noise, plan.options.strength
    if asked is None:
        return Aim(plan)
    target = asked
    image, change, scales = restored_slices(volume, plan)
    measured = partial(noise_curve, image, modality=plan.modality, scale=scales)
    if plan.modality.profile.relative:
        target = asked / 100 * float(np.mean(scales))  # the white that the curve is in the unit of
    alone = denoiser_alone(plan)
    notes: tuple[str, ...] = ()
    if alone is None:
        curve = measured(change)
    else:
        everything = restored_slices(volume, alone)[1]
        curve, everywhere = measured(change, smoother=everything), measured(everything)
        least = curve.nearest(target, most)
        if least > MET * target and everywhere.nearest(target, most) < least:
            plan, curve = alone, everywhere
            notes = (f"the gate would leave more noise than was asked for: {alone.options.expert} acts everywhere",)
    strength = round(curve.strength_for(target, most), 4)
    notes += _missed(curve, strength, target, asked, plan)
    told = {
        "strength": strength,
        "tissue_noise": {"input": _rounded(curve.at(0)), "result": _rounded(curve.at(strength)), "target": target},
    }
    return Aim(replace(plan, options=replace(plan.options, strength=strength)), told, notes)


def _rounded(noise: float) -> float:
    """To five significant digits: some images are of small numbers throughout."""
    return float(f"{noise:.5g}")


def _missed(curve: NoiseCurve, strength: float, target: float, asked: float, plan: Plan) -> tuple[str, ...]:
    """What is to be told where the image does not come to the wanted noise, in the unit of ``asked``.

    Args:
        curve: in the unit of the image.
        strength: that was chosen.
        target: the wanted noise, in that unit.
        asked: the same as the user gave it.
        plan: what was done.
    """
    profile = plan.modality.profile
    unit = "% of white" if profile.relative else profile.unit
    place = "uniform places have" if profile.is_picture else "uniform tissue has"
    left, before = (f"{place} {curve.at(one) * asked / target:.3g} {unit} of noise" for one in (strength, 0.0))
    if curve.at(strength) > MET * target:
        return (f"{left} left, more than the {asked:.3g} that were asked for{_left_to_the_gate(plan)}",)
    if curve.at(0) * MET < target:
        return (f"{before}, less than was asked for: nothing was to be done",)
    return ()


def _left_to_the_gate(plan: Plan) -> str:
    """What may be done about noise that is left in a photo, where the gate alone decides."""
    denoisers = _denoisers(plan) if plan.gate is not None and plan.modality.profile.is_picture else []
    if not denoisers:
        return ""
    return (
        f"; in photos the gate alone decides where, and the expert {denoisers[0].name} acts everywhere if it is named"
    )


def _denoisers(plan: Plan) -> list[Bundle]:
    return [expert for _, expert in sorted(plan.experts.items()) if expert.degradation in NOISE]


def denoiser_alone(plan: Plan) -> Plan | None:
    """The plan without its gate, in which its first expert for noise acts everywhere; ``None`` where there is none, and
    for photos, whose other faults would stay.
    """
    if plan.gate is None or plan.modality.profile.is_picture:
        return None
    denoisers = _denoisers(plan)
    if not denoisers:
        return None
    name = denoisers[0].name
    options = replace(plan.options, expert=name, gate=None, top_k=None)
    return replace(plan, options=options, gate=None, classes=("identity", name), experts={1: denoisers[0]}, passes=1)


def _blurred_variance(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of the means of the sixteenths of each square: structure more than noise."""
    part = round(squares.shape[1] ** 0.5) // 4
    means = squares.reshape(-1, 4, part, 4, part).mean((2, 4))
    return means.reshape(len(squares), -1).var(1)
