"""Optics of a wet pane: shape of the drops, what they refract, how defocus spreads them.

A pane carries drops with footprint ``A(p)`` in [0, 1] that show ``C(p)``, a flipped and minified view of the
surroundings found by following the cap's surface normal. The camera is focused on the scene behind, so the pane is
convolved with the aperture ``P`` (a disc or a polygon), and light that misses the water passes undisturbed. In linear
light

    y = (1 - P * A) x + P * (A C).

Small drops under a wide aperture become the pale, half-transparent discs of real photos (Qian et al. 2018, "Attentive
generative adversarial network for raindrop removal") without a rule of their own; sharp glassy drops are the limit of a
narrow aperture. Overlapping drops add their heights, as metaballs do (Blinn 1982), and so flow together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OUTLINE = 0.35  # height, of a lone drop's summit 1, at which the water ends
REACH = 1.6  # support of a drop's height profile in radii; puts the outline of a lone drop at about 1 radius
INVISIBLE = 1 / 256  # coverage below one grey level counts as none


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
        gain: (N,), lens strength; above 1 the view is upside down and ``gain - 1`` times the drop, below 1 a thin film.
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
class DropSurface:
    """A rendered layer with at least ``margin`` pixels around the image: maps of shape (H', W')."""

    margin: int
    footprint: Tensor  # A, opacity included
    offset: Tensor  # (2, ...), x and y from a pixel to the point it shows, pixels
    lens_y: Tensor  # vertical position on the cap, -1 top to 1 bottom
    veil: Tensor
    height: Tensor  # 0 at the outline, 1 well inside
    glint: Tensor
    aperture: Tensor | None  # Fourier transform of P; None when sharp
    coverage: Tensor  # P * A, cropped to the image


def render_surface(layer: DropLayer, size: tuple[int, int]) -> DropSurface:
    """Render the geometry of one layer for images of ``size`` (H, W)."""
    margin = math.ceil(layer.aperture) + 1
    height, width = _fast_length(size[0] + 2 * margin), _fast_length(size[1] + 2 * margin)
    drop, row, column = _pixels(layer, margin, height, width)
    across, along = _lens_coordinates(layer, margin, drop, row, column)
    radius2 = across.square() + along.square()
    profile = (1 - radius2 / REACH**2).clamp(min=0).square()
    slope = 1 / (1.1 - radius2.clamp(max=1)).sqrt()  # of a spherical cap: steep towards the rim
    reach = (-layer.gain * layer.radius).index_select(0, drop) * slope.clamp(max=2)
    spot = (1 - ((across + 0.35).square() + (along + 0.4).square()) / 0.09).clamp(min=0).square()
    columns = [
        torch.ones_like(profile),
        reach * across,
        reach * along,
        along,
        layer.veil.index_select(0, drop),
        layer.opacity.index_select(0, drop),
        layer.glint.index_select(0, drop) * spot,
    ]
    sums = torch.zeros(height * width, len(columns))
    sums.index_add_(0, (row * width + column).long(), torch.stack([values * profile for values in columns], dim=1))
    maps = sums.T.reshape(len(columns), height, width)
    water, weighted = maps[0], maps[1:] / maps[0].clamp(min=1e-6)
    edge = ((water - OUTLINE) / 0.12).clamp(0, 1)
    footprint = edge * weighted[4]
    aperture = _aperture(layer, height, width)
    coverage = _defocused(footprint, aperture)[_inside(margin, size)].clamp(0, 1)
    return DropSurface(
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


def see_through(image: Tensor, pane: Pane, surfaces: tuple[DropSurface, ...]) -> Tensor:
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


def _refracted(coarse: Tensor, surface: DropSurface, size: torch.Size) -> Tensor:
    """What each pixel of the layer shows of ``coarse`` (1, 3, h, w), mirrored at the picture's border: (3, ...)."""
    height, width = size
    rows = torch.arange(surface.footprint.shape[0], device=coarse.device) - surface.margin + 0.5
    columns = torch.arange(surface.footprint.shape[1], device=coarse.device) - surface.margin + 0.5
    offset = surface.offset.to(coarse)
    grid = torch.stack(
        [2 * (columns[None, :] + offset[0]) / width - 1, 2 * (rows[:, None] + offset[1]) / height - 1], dim=-1
    )
    return F.grid_sample(coarse, grid[None], padding_mode="reflection", align_corners=False)[0]


def _pixels(layer: DropLayer, margin: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Drop, row and column of every pixel in every drop's bounding box, one flat list: no pixel is visited in vain."""
    across, along = layer.radius / layer.stretch.sqrt(), layer.radius * layer.stretch.sqrt()
    cos, sin = layer.tilt.cos().abs(), layer.tilt.sin().abs()
    grow = REACH * (1 + layer.wobble.abs().sum(dim=1)) * (1 + layer.taper / 2)
    half_x, half_y = grow * (across * cos + along * sin), grow * (across * sin + along * cos)
    x, y = layer.centre[:, 0] + margin, layer.centre[:, 1] + margin
    left, right = (x - half_x).floor().clamp(0, width).int(), (x + half_x).ceil().clamp(0, width).int()
    top, bottom = (y - half_y).floor().clamp(0, height).int(), (y + half_y).ceil().clamp(0, height).int()
    number = (right - left) * (bottom - top)
    drop = torch.repeat_interleave(torch.arange(len(number), dtype=torch.int32), number)
    before = (number.cumsum(0) - number).int()
    place = torch.arange(len(drop), dtype=torch.int32) - before.index_select(0, drop)
    columns = (right - left).index_select(0, drop)
    down = place // columns
    return drop, top.index_select(0, drop) + down, left.index_select(0, drop) + place - down * columns


def _lens_coordinates(
    layer: DropLayer, margin: int, drop: Tensor, row: Tensor, column: Tensor
) -> tuple[Tensor, Tensor]:
    """Position on the drop, (across, along), at distance 1 on its wobbly outline."""

    def of(values: Tensor) -> Tensor:
        return values.index_select(0, drop)

    x = column - of(layer.centre[:, 0] + (margin - 0.5))
    y = row - of(layer.centre[:, 1] + (margin - 0.5))
    cos, sin, long = layer.tilt.cos(), layer.tilt.sin(), layer.radius * layer.stretch.sqrt()
    along = y * of(cos / long) - x * of(sin / long)
    across = x * of(cos * layer.stretch / long) + y * of(sin * layer.stretch / long)
    across = across / (1 + of(layer.taper) * along.clamp(-1, 0.5))
    angle = torch.atan2(along, across)
    outline = torch.ones_like(angle)
    for order in range(3):
        wave = torch.cos((order + 2) * angle + of(layer.phase[:, order]))
        outline.addcmul_(of(layer.wobble[:, order]), wave)
    outline = outline.clamp(min=0.4)
    return across / outline, along / outline


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


def _fast_length(length: int) -> int:
    """Next length whose only prime factors are 2, 3 and 5, for which Fourier transforms are quick."""
    rest = length
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return length if rest == 1 else _fast_length(length + 1)


def _inside(margin: int, size: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(margin, margin + size[0]), slice(margin, margin + size[1])
