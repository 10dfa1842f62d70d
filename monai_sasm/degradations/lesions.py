"""Lesion fields: soft discs and ellipses of known contrast, pasted into an image.

A lesion with centre c, half axes a and b, contrast h and edge blur tau adds

    s(r) = h Phi(-d(r) / tau),    d(r) = (rho(r) - 1) sqrt(a b),    rho(r)^2 = (u / a)^2 + (v / b)^2

where u and v are the coordinates of r - c along the axes and Phi is the normal distribution function: a disc whose edge
is the edge response of a Gaussian point spread function of standard deviation tau. The field is the sum over lesions.

It is no fault but a signal: what a restorer does to it tells how much of a small, faint thing it gives back
(:mod:`monai_sasm.evaluation.contrast_gain`), and a loss can ask for all of it
(:class:`monai_sasm.losses.contrast.ContrastGainLoss`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_sasm.degradations.draws import log_uniform, uniform
from monai_sasm.types import ImageBatch, NoiseMap

NOTHING = 1e-3  # share of its contrast below which a lesion ends, so that pixels outside stay as they were


@dataclass(frozen=True)
class LesionParams:
    """One draw of :class:`Lesions`, N lesions per image; lengths in pixels.

    Args:
        centre: (B, N, 2), row and column.
        axes: (B, N, 2), half axes.
        angle: (B, N), of the first axis, radians.
        blur: (B, N), standard deviation of the edge.
        contrast: (B, N), in the unit of the image; 0 for a lesion that is not there.
        size: (height, width) of the images.
    """

    centre: Tensor
    axes: Tensor
    angle: Tensor
    blur: Tensor
    contrast: Tensor
    size: tuple[int, int]

    @property
    def field(self) -> ImageBatch:
        """What is added, (B, 1, H, W), in the unit of the image."""
        height, width = self.size
        rows = torch.arange(height).view(1, 1, height, 1) - self.centre[..., 0, None, None]
        columns = torch.arange(width).view(1, 1, 1, width) - self.centre[..., 1, None, None]
        cosine, sine = self.angle.cos()[..., None, None], self.angle.sin()[..., None, None]
        a, b = self.axes[..., 0, None, None], self.axes[..., 1, None, None]
        rho = (((rows * cosine + columns * sine) / a).square() + ((columns * cosine - rows * sine) / b).square()).sqrt()
        distance = (rho - 1) * (a * b).sqrt() / self.blur[..., None, None]
        share = 0.5 * torch.erfc(distance / math.sqrt(2))
        share = torch.where(share < NOTHING, torch.zeros(()), share)
        return (share * self.contrast[..., None, None]).sum(1, keepdim=True)

    @property
    def mask(self) -> NoiseMap:
        """(B, 1, H, W): 1 where there is a lesion."""
        return (self.field != 0).float()

    @property
    def sigma(self) -> NoiseMap:
        """(B, 1, H, W): zeros; a lesion is no noise."""
        return torch.zeros(len(self.centre), 1, *self.size)


class Lesions:
    """Lesions at random places, brighter or darker than what is around them.

    Args:
        contrast: range of the contrast's magnitude in the unit of the image, drawn log-uniformly; the sign is even.
        diameter: range of the geometric mean diameter, mm, drawn log-uniformly.
        spacing: range of the pixel size, mm; one for all lesions of an image, drawn log-uniformly. A range stands for
            crops whose pixel size is not known.
        count: fewest and most lesions per image.
        elongation: largest ratio of the axes; 1 for discs only.
        blur: range of the edge's standard deviation, mm, drawn uniformly.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.lesions import Lesions
        >>> lesions = Lesions(contrast=(0.004, 0.08))
        >>> params = lesions.draw((2, 1, 64, 64), torch.Generator().manual_seed(0))
        >>> lesions.apply(torch.zeros(2, 1, 64, 64), params).shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        contrast: tuple[float, float],
        diameter: tuple[float, float] = (2.0, 14.0),
        spacing: tuple[float, float] = (0.7, 0.8),
        count: tuple[int, int] = (2, 5),
        elongation: float = 2.0,
        blur: tuple[float, float] = (0.2, 0.8),
    ) -> None:
        for name, bounds in (("contrast", contrast), ("diameter", diameter), ("spacing", spacing), ("blur", blur)):
            if not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{name} must be an increasing range of positive numbers, got {tuple(bounds)}")
        if not 0 <= count[0] <= count[1]:
            raise ValueError(f"count must be an increasing range of whole numbers from 0 on, got {tuple(count)}")
        if not elongation >= 1:
            raise ValueError(f"elongation is a ratio of at least 1, got {elongation}")
        self.contrast, self.diameter, self.spacing = tuple(contrast), tuple(diameter), tuple(spacing)
        self.count, self.elongation, self.blur = tuple(count), elongation, tuple(blur)

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> LesionParams:
        """Draw the lesions of a batch ``(B, C, H, W)``; centres lie anywhere in the image."""
        images, _, height, width = shape
        most = max(self.count[1], 1)

        def share(*size: int) -> Tensor:
            return torch.rand(size, generator=generator)

        pixel = log_uniform(self.spacing, share(images, 1))
        radius = log_uniform(self.diameter, share(images, most)) / 2 / pixel
        stretch = log_uniform((1.0, self.elongation), share(images, most)).sqrt()
        number = torch.randint(self.count[0], self.count[1] + 1, (images, 1), generator=generator)
        sign = torch.where(share(images, most) < 0.5, -1.0, 1.0)
        contrast = sign * log_uniform(self.contrast, share(images, most))
        return LesionParams(
            centre=share(images, most, 2) * torch.tensor([height - 1.0, width - 1.0]),
            axes=torch.stack([radius * stretch, radius / stretch], dim=-1),
            angle=share(images, most) * math.pi,
            blur=uniform(self.blur, share(images, most)) / pixel,
            contrast=torch.where(torch.arange(most) < number, contrast, torch.zeros(())),
            size=(height, width),
        )

    def apply(self, clean: ImageBatch, params: LesionParams) -> ImageBatch:
        """Add the lesions to images ``(B, C, H, W)``, the same to each channel."""
        return clean + params.field.to(clean)
