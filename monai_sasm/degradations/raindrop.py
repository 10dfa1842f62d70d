"""Raindrops on a window pane in front of the lens, with everything about them drawn at random.

Ranges are set around real photos through a wet pane (720 x 480, focused far away): most drops are soft, bright and half
transparent, 30 to 120 pixels wide, a few are small and sharp. The optics is in
:mod:`monai_sasm.degradations.drop_optics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from monai_sasm.degradations.draws import draw_seed, uniform
from monai_sasm.degradations.drop_optics import DropLayer, DropSurface, Pane, render_surface, see_through
from monai_sasm.types import ImageBatch, NoiseMap

MAX_DROPS = 400  # per layer and image; bounds the time of one draw


@dataclass(frozen=True)
class RaindropParams:
    """One draw of :class:`Raindrop`.

    Args:
        panes: one per image.
        size: (H, W) of the images.
        seed: seed of the draw, for the record; ``panes`` already hold all that was drawn.
    """

    panes: tuple[Pane, ...]
    size: tuple[int, int]
    seed: int

    @cached_property
    def surfaces(self) -> tuple[tuple[DropSurface, ...], ...]:
        """The rendered layers of each pane; made once, used by the mask and by every ``apply``."""
        return tuple(tuple(render_surface(layer, self.size) for layer in pane.layers) for pane in self.panes)

    @cached_property
    def mask(self) -> NoiseMap:
        """Share of the light that comes from water, (B, 1, H, W) in [0, 1]; 0 where the image stays as it is."""
        masks = []
        for layers in self.surfaces:
            clear = torch.ones(self.size)
            for surface in layers:
                clear = clear * (1 - surface.coverage)
            masks.append(1 - clear)
        return torch.stack(masks)[:, None]

    @property
    def sigma(self) -> NoiseMap:
        """Zeros (B, 1, H, W): drops add no noise."""
        return torch.zeros(len(self.panes), 1, *self.size)


class Raindrop:
    """Drops on a pane with randomly drawn number, shape, content and defocus.

    Lengths are fractions of the short side of the full picture, so that pictures of any size look alike.

    Args:
        coverage: range of the share of the pane that is wet (footprints before defocus, overlaps counted twice);
            ``MAX_DROPS`` bounds it when drops are tiny; (0, 0) gives a dry pane.
        size: range of drop diameters, as a fraction of ``reference``.
        blur: range of the aperture radius (edge softness), as a fraction of ``reference``, log-uniform.
        opacity: range of the drops' opacity.
        sky: range of the brightness of the surroundings in display units.
        streaks: share of drops that gravity draws out to runs.
        second_layer: probability of a second set of drops at another distance from focus.
        reference: short side, in pixels, of the pictures the images are cropped from; None for whole pictures.
        size_range: drop diameters in pixels; replaces ``size``.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.raindrop import Raindrop
        >>> rain = Raindrop()
        >>> params = rain.draw((1, 3, 96, 128), torch.Generator().manual_seed(0))
        >>> wet = rain.apply(torch.rand(1, 3, 96, 128), params)
    """

    def __init__(
        self,
        coverage: tuple[float, float] = (0.05, 0.8),
        size: tuple[float, float] = (0.02, 0.2),
        blur: tuple[float, float] = (0.004, 0.06),
        opacity: tuple[float, float] = (0.35, 1.0),
        sky: tuple[float, float] = (0.55, 1.15),
        streaks: float = 0.08,
        second_layer: float = 0.35,
        reference: int | None = None,
        size_range: tuple[float, float] | None = None,
    ) -> None:
        ranges = {"coverage": coverage, "size": size, "blur": blur, "opacity": opacity, "sky": sky}
        if size_range is not None:
            ranges["size_range"] = size_range
        for name, (low, high) in ranges.items():
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be an increasing range of non-negative numbers, got {(low, high)}")
        if coverage[1] > 1 or opacity[1] > 1:
            raise ValueError(f"coverage and opacity are shares in [0, 1], got {coverage} and {opacity}")
        if size[0] == 0 or (size_range is not None and size_range[0] == 0):
            raise ValueError("drop sizes must be positive; give coverage=(0, 0) for a dry pane")
        if not 0 <= streaks <= 1 or not 0 <= second_layer <= 1:
            raise ValueError(f"streaks and second_layer are probabilities in [0, 1], got {streaks} and {second_layer}")
        self.coverage, self.size, self.blur, self.opacity, self.sky = coverage, size, blur, opacity, sky
        self.streaks, self.second_layer = streaks, second_layer
        self.picture_side, self.size_range = reference, size_range

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> RaindropParams:
        """Draw one pane per image of a batch ``(B, 3, H, W)``."""
        if shape[1] != 3:
            raise ValueError(f"raindrops need RGB images (B, 3, H, W), got {shape[1]} channels; repeat grey ones")
        seed = draw_seed(generator)
        own = torch.Generator().manual_seed(seed)
        height, width = int(shape[2]), int(shape[3])
        panes = tuple(self._pane(height, width, own) for _ in range(shape[0]))
        return RaindropParams(panes=panes, size=(height, width), seed=seed)

    def apply(self, clean: ImageBatch, params: RaindropParams) -> ImageBatch:
        """Wet ``clean`` ``(B, 3, H, W)`` in [0, 1]; pixels outside ``params.mask`` are returned bit for bit."""
        if clean.shape != (len(params.panes), 3, *params.size):
            drawn = (len(params.panes), 3, *params.size)
            raise ValueError(f"params were drawn for shape {drawn}, got {tuple(clean.shape)}; draw them again")
        wet = [
            see_through(image.float(), pane, surfaces)
            for image, pane, surfaces in zip(clean, params.panes, params.surfaces, strict=True)
        ]
        mask = params.mask.to(clean.device)
        return torch.where(mask > 0, torch.stack(wet).clamp(0, 1).to(clean.dtype), clean)

    def _pane(self, height: int, width: int, generator: torch.Generator) -> Pane:
        reference = self.picture_side or min(height, width)
        coverage = _uniform(self.coverage, generator)
        number = 2 if _uniform((0, 1), generator) < self.second_layer else 1
        share = [1.0] if number == 1 else [0.6, 0.4]
        layers = [self._layer(height, width, reference, coverage * part, generator) for part in share if coverage > 0]
        brightness = _uniform(self.sky, generator)
        warmth = _uniform((-0.08, 0.04), generator)  # most skies are blue
        return Pane(
            layers=tuple(layer for layer in layers if layer is not None),
            sky=brightness * torch.tensor([1 + warmth, 1.0, 1 - warmth]),
            ground=_uniform((0.3, 1.0), generator),
            own_sky=_uniform((0, 0.7), generator),
            horizon=_uniform((0, 0.9), generator),
            rim=_uniform((0, 0.5), generator),
            gamma=_uniform((1.0, 2.2), generator),
            detail=max(2, round(reference / 80 * _uniform((1, 3), generator))),
        )

    def _layer(
        self, height: int, width: int, reference: int, coverage: float, generator: torch.Generator
    ) -> DropLayer | None:
        sizes = self.size_range or (self.size[0] * reference, self.size[1] * reference)
        low, high = sizes[0] / 2, sizes[1] / 2
        typical = _log_uniform((low, high), generator)
        spread = _uniform((0.1, 0.7), generator)
        radius = typical * torch.exp(spread * torch.randn(MAX_DROPS, generator=generator))
        radius = radius.clamp(low, high)
        satellite = torch.rand(MAX_DROPS, generator=generator) < 0.2
        satellite[0] = False
        radius = torch.where(satellite, (radius * 0.35).clamp(min=low), radius)
        aperture = _log_uniform((self.blur[0] * reference, self.blur[1] * reference), generator)
        # Focused far away, large drops are never sharp; an aperture far wider than the drops makes them invisible.
        aperture = min(max(aperture, min(0.25 * typical, self.blur[1] * reference)), 2 * typical)
        margin = aperture + typical
        wet = coverage * (height + 2 * margin) * (width + 2 * margin)
        number = _count(radius, wet, float(torch.rand(1, generator=generator)))
        if number == 0:
            return None
        radius, satellite = radius[:number], satellite[:number]
        centre = _centres(number, height, width, margin, generator)
        parent = (torch.rand(number, generator=generator) * torch.arange(number)).long()
        direction = 2 * math.pi * torch.rand(number, generator=generator)
        away = radius[parent] * (1.1 + torch.rand(number, generator=generator))
        near = centre[parent] + away[:, None] * torch.stack([direction.cos(), direction.sin()], dim=1)
        return DropLayer(
            centre=torch.where(satellite[:, None], near, centre),
            radius=radius,
            stretch=self._stretch(number, generator),
            tilt=0.25 * torch.randn(number, generator=generator),
            taper=uniform((0, 0.5), torch.rand(number, generator=generator)),
            wobble=0.08 * torch.randn(number, 3, generator=generator).clamp(-2, 2) / torch.tensor([1.0, 1.5, 2.0]),
            phase=2 * math.pi * torch.rand(number, 3, generator=generator),
            opacity=uniform(self.opacity, torch.rand(number, generator=generator)),
            veil=uniform((0, 1), torch.rand(number, generator=generator)) * _uniform((0, 1), generator),
            gain=uniform((0.3, 8), torch.rand(number, generator=generator)),
            glint=uniform((0, 1), torch.rand(number, generator=generator)) * _uniform((0, 1.2), generator),
            aperture=aperture,
            blades=(0, 0, 6, 7, 8)[int(torch.randint(5, (1,), generator=generator))],
            falloff=_uniform((0, 1), generator),
        )

    def _stretch(self, number: int, generator: torch.Generator) -> Tensor:
        hanging = uniform((0.9, 1.5), torch.rand(number, generator=generator))
        runs = torch.rand(number, generator=generator) < self.streaks
        return torch.where(runs, hanging * uniform((1.5, 4), torch.rand(number, generator=generator)), hanging)


def _count(radius: Tensor, wet: float, chance: float) -> int:
    """How many of the drops, taken in order, wet the area ``wet``; the last by ``chance``, which keeps the mean."""
    area = math.pi * radius.square().cumsum(0)
    number = int((area <= wet).sum())
    if number < len(radius):
        before = float(area[number - 1]) if number else 0.0
        number += chance < (wet - before) / (float(area[number]) - before)
    return number


def _centres(number: int, height: int, width: int, margin: float, generator: torch.Generator) -> Tensor:
    """Places (number, 2) with uneven density: a pane dries and is hit in patches."""
    density = torch.softmax(_uniform((0, 1), generator) * torch.randn(16, generator=generator), dim=0)
    cell = torch.multinomial(density, number, replacement=True, generator=generator)
    place = torch.rand(number, 2, generator=generator) + torch.stack([cell % 4, cell // 4], dim=1)
    return place / 4 * torch.tensor([width + 2 * margin, height + 2 * margin]) - margin


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand(1, generator=generator))


def _log_uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    """Log-uniform value; the upper bound 0 gives 0, the lower bound 0 is taken as a hundredth of the upper."""
    share = float(torch.rand(1, generator=generator))
    if bounds[1] == 0:
        return 0.0
    low = math.log(bounds[0] or bounds[1] / 100)
    return math.exp(low + (math.log(bounds[1]) - low) * share)
