"""Operating range: for which images an expert was trained and measured, and what an image has that lies outside.

It stands in a bundle's ``metadata.json`` as ``sasm.range``; every entry may be left out:

- ``noise``: lowest and highest noise level as :class:`monai_sasm.functional.noise.NoiseEstimator` reads it, median over
  an image: HU for CT, share of white (the 99.5th percentile of the foreground) for MR. Below the range there is little
  to repair, and that is no reason for a note; a noise that the user tells is brought within, with a note;
- ``pixel_mm``: smallest and largest pixel;
- ``kernels``: reconstruction kernels, ``body_parts``: as DICOM spells them.

Leaving it is a note in the row and in the log, never a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_sasm.bundles import Bundle
from monai_sasm.io.acquisition import Acquisition
from monai_sasm.io.volume import Source, Volume
from monai_sasm.restoration.told_noise import ToldNoise

OUTSIDE = "outside the range"
"""How such a note begins."""
ACTED = 0.01  # mean weight from which an expert counts as having acted
TOLERANCE = 0.02  # part by which a pixel may be smaller or larger
FAR = 3.0  # times that a told noise may be above or below what is read


def range_notes(
    volume: Volume, experts: Sequence[Bundle], weights: Mapping[str, float], noise: float, told: ToldNoise | None = None
) -> list[str]:
    """What of an image lies outside the range of the experts that acted, one sentence per expert; and whether what was
    told of its noise is far from what it shows.

    Args:
        volume: the image; only its geometry, unit and source are looked at.
        experts: of its modality.
        weights: name -> mean weight.
        noise: median estimate in working scale.
        told: what the user told of it.
    """
    acting = [one for one in experts if weights.get(one.name, 0.0) >= ACTED]
    if not acting or volume.modality.profile.is_picture:
        return []
    acquired = volume.source.acquisition() if isinstance(volume.source, Source) else Acquisition()
    scale, unit, pixels = volume.modality.profile.scale, _unit(volume), pixel_sides(volume)
    level, heard = noise * scale, None if told is None else (told.asked * scale, told.reading * scale)
    found = []
    for expert in acting:
        allowed = expert.metadata["sasm"].get("range", {})
        reasons = outside(
            allowed, acquired, noise=level, unit=unit, pixels=pixels, told=heard if expert.noise_map else None
        )
        if reasons:
            found.append(f"{OUTSIDE} that {expert.name} was trained and measured for: {', '.join(reasons)}")
    if heard is not None and level > 0 and not level / FAR <= heard[0] <= level * FAR:
        found.append(
            f"the noise that was told reads as {heard[0]:.3g}{unit}, that of the image as {level:.3g}{unit}; to keep "
            "more or less of the image, change the strength instead"
        )
    return found


def outside(
    allowed: Mapping[str, Any],
    acquired: Acquisition,
    *,
    noise: float,
    unit: str,
    pixels: Sequence[float],
    told: tuple[float, float] | None = None,
) -> list[str]:
    """The reasons, each with the value and the range.

    Args:
        allowed: ``sasm.range`` of an expert.
        acquired: what the file says.
        noise: in ``unit``.
        unit: of the noise, as printed.
        pixels: sides of a pixel, mm; none where they are not known.
        told: reading of the noise that the user told, and what of it the expert was told, both in ``unit``.
    """
    reasons = []
    if "noise" in allowed and told is not None and not allowed["noise"][0] <= told[0] <= allowed["noise"][1]:
        (low, high), (asked, taken) = allowed["noise"], told
        raised = "" if asked == taken else f"; {taken:.3g} was taken"
        reasons.append(f"told noise that reads as {asked:.3g}{unit} ({low:g} to {high:g}{unit}{raised})")
    if "noise" in allowed and noise > allowed["noise"][1]:
        low, high = allowed["noise"]
        reasons.append(f"noise estimate {noise:.3g}{unit} (up to {high:g}{unit})")
    if "pixel_mm" in allowed and pixels:
        low, high = allowed["pixel_mm"]
        if min(pixels) < low * (1 - TOLERANCE) or max(pixels) > high * (1 + TOLERANCE):
            sides = " x ".join(f"{side:.3g}" for side in pixels)
            reasons.append(f"pixels of {sides} mm ({low:g} to {high:g} mm)")
    for name, value in (("kernels", acquired.kernel), ("body_parts", acquired.body_part)):
        known = allowed.get(name, ())
        if known and value and value.casefold() not in {one.casefold() for one in known}:
            word = {"kernels": "kernel", "body_parts": "body part"}[name]
            reasons.append(f"{word} {value} ({', '.join(known)})")
    return reasons


def _unit(volume: Volume) -> str:
    return f" {volume.unit}" if volume.modality.profile.percentile is None else " of white"


def pixel_sides(volume: Volume) -> list[float]:
    """Sides of a pixel in the plane of the slices, mm; none where they are not known."""
    if volume.affine is None:
        return []
    axes = [axis for axis in range(volume.array.ndim - 1) if axis != volume.slice_axis]
    return [float(np.linalg.norm(volume.affine[:3, axis])) for axis in axes[-2:]]
