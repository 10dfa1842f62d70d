"""Raindrops on a window pane in front of the lens: caps of water that refract the scene, seen out of focus.

The pane carries drops with footprint ``A(p)`` in [0, 1] that show ``C(p)``, a flipped and minified view of the surroundings
found by following the cap's surface normal. The camera is focused on the scene behind, so the pane is convolved with the
aperture ``P`` (a disc or a polygon), and light that misses the water passes undisturbed. In linear light

    y = (1 - P * A) x + P * (A C).

Small drops under a wide aperture become the pale, half-transparent discs of real photos (Qian et al. 2018, "Attentive GAN for
raindrop removal") without a rule of their own; sharp glassy drops are the limit of a narrow aperture. Overlapping drops add
their heights, as metaballs do (Blinn 1982), and so flow together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.types import ImageBatch, NoiseMap

OUTLINE = 0.35  # height, of a lone drop's summit 1, at which the water ends
REACH = 1.6  # support of a drop's height profile in radii; puts the outline of a lone drop at about 1 radius
INVISIBLE = 1 / 256  # coverage below one grey level counts as none
MAX_DROPS = 400  # per layer and image; bounds the time of one draw


@dataclass(frozen=True)
class DropLayer:
    """Drops that are equally far out of focus. All lengths in pixels; ``N`` drops.

    Args:
        centre: (N, 2), x and y.
        radius: (N,), radius of the disc of equal area.
        stretch: (N,), length over width; the long axis hangs down, turned by ``tilt`` (N,) radians.
        taper: (N,), how much narrower the top is than the bottom, 0 to 0.6.
        wobble: (N, 3), relative amplitude of harmonics 2 to 4 of the outline, with ``phase`` (N, 3) in radians.
        opacity: (N,), share of the light behind that the water replaces, 0 to 1.
        veil: (N,), 0 shows the refracted scene, 1 the plain colour of the sky.
        gain: (N,), lens strength; the drop shows a view ``gain - 1`` times its own size, upside down.
        glint: (N,), strength of the specular highlight.
        aperture: radius of the defocus disc; below 0.5 the drops are sharp.
        blades: number of aperture blades, 0 for round.
        falloff: 0 for an evenly lit disc, 1 for one that fades to its border.
    """

    centre: Tensor
    radius: Tensor
    stretch: Tensor
    tilt: Tensor
    taper: Tensor
    wobble: Tensor
    phase: Tensor
    opacity: Tensor
    veil: Tensor
    gain: Tensor
    glint: Tensor
    aperture: float
    blades: int
    falloff: float


@dataclass(frozen=True)
class Pane:
    """The wet pane before one image.

    Args:
        layers: drops by distance from focus, drawn over one another; none for a dry pane.
        sky: (3,), display colour of the bright surroundings; above 1 where they are brighter than the picture's white.
        ground: brightness of what lies below the picture, as a factor of the local mean.
        own_sky: 0 to 1, share of the picture's own brightest region in the colour of the sky.
        horizon: 0 to 1, weight of the sky-above-ground surroundings against the picture itself in what drops show.
        rim: 0 to 1, darkening of the drops' border by total reflection.
        gamma: exponent from display values to linear light.
        detail: pixels averaged into one of the minified view.
    """

    layers: tuple[DropLayer, ...]
    sky: Tensor
    ground: float
    own_sky: float
    horizon: float
    rim: float
    gamma: float
    detail: int


@dataclass(frozen=True)
class _Surface:
    """A rendered layer with ``margin`` pixels around the image: maps of shape (H + 2 margin, W + 2 margin)."""

    margin: int
    footprint: Tensor  # A, opacity included
    offset: Tensor  # (2, ...), x and y from a pixel to the point it shows, pixels
    lens_y: Tensor  # vertical position on the cap, -1 top to 1 bottom
    veil: Tensor
    height: Tensor  # 0 at the outline, 1 well inside
    glint: Tensor
    aperture: Tensor | None  # Fourier transform of P; None when sharp
    coverage: Tensor  # P * A, cropped to the image


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
    def surfaces(self) -> tuple[tuple[_Surface, ...], ...]:
        """The rendered layers of each pane; made once, used by the mask and by every ``apply``."""
        return tuple(tuple(_surface(layer, self.size) for layer in pane.layers) for pane in self.panes)

    @cached_property
    def mask(self) -> NoiseMap:
        """Share of the light that comes from water, (B, 1, H, W) in [0, 1]; exactly 0 where the image stays as it is."""
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
        coverage: range of the share of the pane that is wet (footprints before defocus, overlaps counted twice), log-uniform.
            0 gives a dry pane.
        size: range of drop diameters, as a fraction of ``reference``.
        blur: range of the aperture radius (edge softness), as a fraction of ``reference``, log-uniform.
        opacity: range of the drops' opacity.
        sky: range of the brightness of the surroundings in display units.
        streaks: share of drops that gravity draws out to runs.
        second_layer: probability of a second set of drops at another distance from focus.
        reference: short side, in pixels, of the pictures the images are cropped from; None when they are whole pictures.
        size_range: drop diameters in pixels; replaces ``size``.

    Example:
        >>> rain = Raindrop()
        >>> params = rain.draw((1, 3, 96, 128), torch.Generator().manual_seed(0))
        >>> wet = rain.apply(torch.rand(1, 3, 96, 128), params)
    """

    def __init__(
        self,
        coverage: tuple[float, float] = (0.03, 0.4),
        size: tuple[float, float] = (0.012, 0.2),
        blur: tuple[float, float] = (0.0015, 0.05),
        opacity: tuple[float, float] = (0.25, 1.0),
        sky: tuple[float, float] = (0.5, 1.2),
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
        self.reference, self.size_range = reference, size_range

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> RaindropParams:
        """Draw one pane per image of a batch ``(B, 3, H, W)``."""
        if shape[1] != 3:
            raise ValueError(f"raindrops are drawn on RGB images (B, 3, H, W), got {shape[1]} channels; repeat grey images")
        seed = int(torch.randint(2**31, (1,), generator=generator))
        own = torch.Generator().manual_seed(seed)
        height, width = int(shape[2]), int(shape[3])
        panes = tuple(self._pane(height, width, own) for _ in range(shape[0]))
        return RaindropParams(panes=panes, size=(height, width), seed=seed)

    def apply(self, clean: ImageBatch, params: RaindropParams) -> ImageBatch:
        """Wet ``clean`` ``(B, 3, H, W)`` in [0, 1]; pixels outside ``params.mask`` are returned bit for bit."""
        if clean.shape != (len(params.panes), 3, *params.size):
            raise ValueError(
                f"params were drawn for {(len(params.panes), 3, *params.size)}, got {tuple(clean.shape)}; draw them again"
            )
        wet = [
            _wet(image.float(), pane, surfaces)
            for image, pane, surfaces in zip(clean, params.panes, params.surfaces, strict=True)
        ]
        mask = params.mask.to(clean.device)
        return torch.where(mask > 0, torch.stack(wet).clamp(0, 1).to(clean.dtype), clean)

    def _pane(self, height: int, width: int, generator: torch.Generator) -> Pane:
        reference = self.reference or min(height, width)
        coverage = _log_uniform(self.coverage, generator)
        number = 2 if _uniform((0, 1), generator) < self.second_layer else 1
        share = [1.0] if number == 1 else [0.6, 0.4]
        layers = [self._layer(height, width, reference, coverage * part, generator) for part in share if coverage > 0]
        brightness = _uniform(self.sky, generator)
        warmth = _uniform((-0.08, 0.04), generator)  # most skies are blue
        return Pane(
            layers=tuple(layer for layer in layers if layer is not None),
            sky=brightness * torch.tensor([1 + warmth, 1.0, 1 - warmth]),
            ground=_uniform((0.15, 0.9), generator),
            own_sky=_uniform((0, 0.7), generator),
            horizon=_uniform((0, 0.8), generator),
            rim=_uniform((0, 0.6), generator),
            gamma=_uniform((1.0, 2.2), generator),
            detail=max(2, round(reference / 80)),
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
        # An aperture much wider than the drops spreads them below what can be seen.
        aperture = min(_log_uniform((self.blur[0] * reference, self.blur[1] * reference), generator), 2 * typical)
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
            taper=_spread((0, 0.5), number, generator),
            wobble=0.12 * torch.randn(number, 3, generator=generator).clamp(-2, 2) / torch.tensor([1.0, 1.5, 2.0]),
            phase=2 * math.pi * torch.rand(number, 3, generator=generator),
            opacity=_spread(self.opacity, number, generator),
            veil=_spread((0, 1), number, generator) * _uniform((0, 1), generator),
            gain=_spread((2.5, 9), number, generator),
            glint=_spread((0, 1), number, generator) * _uniform((0, 1.2), generator),
            aperture=aperture,
            blades=(0, 0, 6, 7, 8)[int(torch.randint(5, (1,), generator=generator))],
            falloff=_uniform((0, 1), generator),
        )

    def _stretch(self, number: int, generator: torch.Generator) -> Tensor:
        hanging = _spread((0.9, 1.5), number, generator)
        runs = torch.rand(number, generator=generator) < self.streaks
        return torch.where(runs, hanging * _spread((1.5, 4), number, generator), hanging)


def _wet(image: Tensor, pane: Pane, surfaces: tuple[_Surface, ...]) -> Tensor:
    """Image (3, H, W) seen through the pane; values may exceed 1."""
    if not surfaces:
        return image
    coarse = F.avg_pool2d(image[None], min(pane.detail, *image.shape[1:]), ceil_mode=True)
    own_sky = coarse.flatten(2).quantile(0.95, dim=2)[0]
    sky = ((1 - pane.own_sky) * pane.sky.to(image) + pane.own_sky * own_sky)[:, None, None]
    ground = pane.ground * coarse.mean(dim=(2, 3))[0][:, None, None]
    light = image.clamp(0, 1) ** pane.gamma
    for surface in surfaces:
        seen = _refracted(coarse, surface, image.shape[1:])
        above = torch.sigmoid(4 * surface.lens_y.to(image) + 0.5)  # upside down: the sky shows at the drop's bottom
        seen = torch.lerp(seen, torch.lerp(ground, sky, above), pane.horizon)
        seen = torch.lerp(seen, sky.expand_as(seen), surface.veil.to(image))
        seen = seen * (1 - pane.rim * (1 - surface.height.to(image))) + surface.glint.to(image)
        water = _defocused(surface.footprint.to(image) * seen**pane.gamma, surface.aperture)
        inside = (slice(None), *_inside(surface.margin, image.shape[1:]))
        light = (1 - surface.coverage.to(image)) * light + water[inside].clamp(min=0)
    return light ** (1 / pane.gamma)


def _refracted(coarse: Tensor, surface: _Surface, size: torch.Size) -> Tensor:
    """What each pixel of the layer shows of ``coarse`` (1, 3, h, w), mirrored at the picture's border: (3, ...)."""
    height, width = size
    rows = torch.arange(surface.footprint.shape[0], device=coarse.device) - surface.margin + 0.5
    columns = torch.arange(surface.footprint.shape[1], device=coarse.device) - surface.margin + 0.5
    offset = surface.offset.to(coarse)
    grid = torch.stack(
        [2 * (columns[None, :] + offset[0]) / width - 1, 2 * (rows[:, None] + offset[1]) / height - 1], dim=-1
    )
    return F.grid_sample(coarse, grid[None], padding_mode="reflection", align_corners=False)[0]


def _surface(layer: DropLayer, size: tuple[int, int]) -> _Surface:
    """Render the geometry of one layer for images of ``size`` (H, W)."""
    margin = math.ceil(layer.aperture) + 1
    height, width = size[0] + 2 * margin, size[1] + 2 * margin
    drop, row, column = _pixels(layer, margin, height, width)
    across, along, radius = _lens_coordinates(layer, margin, drop, row, column)
    profile = (1 - (radius / REACH).square()).clamp(min=0).square()
    slope = 1 / (1.1 - radius.square().clamp(max=1)).sqrt()  # of a spherical cap: steep towards the rim
    reach = -layer.gain[drop] * layer.radius[drop] * slope.clamp(max=2)
    spot = torch.exp(-((across + 0.35).square() + (along + 0.4).square()) / 0.03)
    columns = [
        torch.ones_like(profile),
        reach * across,
        reach * along,
        along,
        layer.veil[drop],
        layer.opacity[drop],
        layer.glint[drop] * spot,
    ]
    sums = torch.zeros(height * width, len(columns))
    sums.index_add_(0, row * width + column, torch.stack(columns, dim=1) * profile[:, None])
    maps = sums.T.reshape(len(columns), height, width)
    water, weighted = maps[0], maps[1:] / maps[0].clamp(min=1e-6)
    edge = ((water - OUTLINE) / 0.12).clamp(0, 1)
    footprint = edge * weighted[4]
    aperture = _aperture(layer, height, width)
    coverage = _defocused(footprint, aperture)[_inside(margin, size)].clamp(0, 1)
    return _Surface(
        margin=margin,
        footprint=footprint,
        offset=weighted[:2],
        lens_y=weighted[2],
        veil=weighted[3],
        height=((water - OUTLINE) / 0.4).clamp(0, 1),
        glint=weighted[5],
        aperture=aperture,
        coverage=torch.where(coverage < INVISIBLE, torch.zeros(()), coverage),
    )


def _pixels(layer: DropLayer, margin: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Drop, row and column of every pixel in every drop's bounding box, one flat list: no pixel is visited in vain."""
    across, along = layer.radius / layer.stretch.sqrt(), layer.radius * layer.stretch.sqrt()
    cos, sin = layer.tilt.cos().abs(), layer.tilt.sin().abs()
    grow = REACH * (1 + layer.wobble.abs().sum(dim=1)) * (1 + layer.taper / 2)
    half_x, half_y = grow * (across * cos + along * sin), grow * (across * sin + along * cos)
    x, y = layer.centre[:, 0] + margin, layer.centre[:, 1] + margin
    left, right = (x - half_x).floor().clamp(0, width).long(), (x + half_x).ceil().clamp(0, width).long()
    top, bottom = (y - half_y).floor().clamp(0, height).long(), (y + half_y).ceil().clamp(0, height).long()
    number = (right - left) * (bottom - top)
    drop = torch.repeat_interleave(torch.arange(len(number)), number)
    place = torch.arange(len(drop)) - (number.cumsum(0) - number)[drop]
    columns = (right - left)[drop]
    return drop, top[drop] + place // columns, left[drop] + place % columns


def _lens_coordinates(
    layer: DropLayer, margin: int, drop: Tensor, row: Tensor, column: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Position on the drop, (across, along, distance), 1 at its wobbly outline."""
    x = column + 0.5 - margin - layer.centre[drop, 0]
    y = row + 0.5 - margin - layer.centre[drop, 1]
    cos, sin = layer.tilt.cos()[drop], layer.tilt.sin()[drop]
    long = layer.radius[drop] * layer.stretch.sqrt()[drop]
    along = (y * cos - x * sin) / long
    across = (x * cos + y * sin) / (long / layer.stretch[drop])
    across = across / (1 + layer.taper[drop] * along.clamp(-1, 0.5))
    angle = torch.atan2(along, across)
    outline = torch.ones_like(angle)
    for order in range(3):
        outline = outline + layer.wobble[drop, order] * torch.cos((order + 2) * angle + layer.phase[drop, order])
    outline = outline.clamp(min=0.4)
    across, along = across / outline, along / outline
    return across, along, (across.square() + along.square()).sqrt()


def _aperture(layer: DropLayer, height: int, width: int) -> Tensor | None:
    """Fourier transform of the defocus kernel on the (height, width) grid, sum 1; None when below half a pixel."""
    if layer.aperture < 0.5:
        return None
    y = (torch.arange(height) + height // 2) % height - height // 2
    x = (torch.arange(width) + width // 2) % width - width // 2
    distance = torch.hypot(y[:, None].float(), x[None, :].float())
    radius = torch.full_like(distance, layer.aperture)
    if layer.blades:
        angle = torch.atan2(y[:, None].float(), x[None, :].float() + 1e-6)
        sector = 2 * math.pi / layer.blades
        radius = radius * math.cos(sector / 2) / torch.cos(torch.remainder(angle, sector) - sector / 2)
    inside = (radius + 0.5 - distance).clamp(0, 1)
    kernel = inside * (1 - layer.falloff * (distance / (radius + 0.5)).clamp(max=1).square())
    return torch.fft.rfft2(kernel / kernel.sum())


def _defocused(maps: Tensor, aperture: Tensor | None) -> Tensor:
    """Maps (..., H, W) convolved with the aperture; the layer's margin takes the wrap-around."""
    if aperture is None:
        return maps
    return torch.fft.irfft2(torch.fft.rfft2(maps) * aperture.to(maps.device), s=maps.shape[-2:])


def _inside(margin: int, size: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(margin, margin + size[0]), slice(margin, margin + size[1])


def _count(radius: Tensor, wet: float, chance: float) -> int:
    """How many of the drops, taken in order, wet the area ``wet``; the last one by ``chance``, so that the mean is right."""
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


def _spread(bounds: tuple[float, float], number: int, generator: torch.Generator) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(number, generator=generator)
