"""Low-dose CT: the noise that fewer photons would have added, made in the sinogram and reconstructed.

A dose ``a`` of an acquired image with ``N`` photons per ray gets extra noise in its line integrals ``p`` (Yu et al.
2012, "Development and validation of a practical lower-dose-simulation tool for optimizing CT scan protocols", JCAT
36(4)), of variance

    var = (1 - a) / a * e^p / N * (1 + (1 + a) / a * Ne * e^p / N)

with ``Ne`` the variance of the electronic noise in photons. Only this noise is filtered and back-projected (both are
linear), so that the image's own sharpness is untouched and ``a = 1`` is the exact identity. A noise-free phantom takes
the direct way, ``p_noisy = ln(I / max(Poisson(I e^-p) + N(0, Ne), 1))`` with ``I = a N``.

``N`` follows the patient, as in every scanner with automatic exposure control: ``N = N0 exp(beta (p_peak - p_ref))``
with ``p_peak`` the largest line integral of the view; where the exposure is known, :meth:`Scanner.of_exposure` uses it.

Calibration: ``scripts/calibrate_low_dose_ct.py`` on real full and quarter dose pairs (Mayo, AAPM Low Dose CT Grand
Challenge): kernels, N0, beta and bowtie fit on patients L143 and L192, L096 held out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.degradations.draws import draw_seed, log_uniform
from monai_sasm.degradations.projection import (
    back_project,
    detector_count,
    filter_sinogram,
    noise_gain,
    radon,
    view_angles,
)
from monai_sasm.types import ImageBatch, NoiseMap

MU_WATER = 0.0205  # 1/mm, water at about 60 keV, the effective energy of a 120 kV beam
AIR_HU = -1024.0  # lowest value a CT image stores
REFERENCE_VIEWS = 720  # photons are counted per mm of detector and per 1/720 of half a turn
REFERENCE_INTEGRAL = 6.0  # line integral p_ref at which N = N0: 29 cm of water
COARSE_PIXELS = 128  # line integrals vary slowly: the noise level is worked out on images of about this width
RAYS_PER_PIXEL = 2  # sharp kernels pass frequencies beyond the pixel grid's own limit
# N0 per mAs, Siemens Definition AS+, 120 kV, 3 mm slices, pitch 0.7; fit on L096, the one patient whose mAs is known
PHOTONS_PER_MAS = 8.5e3
SAMPLES_PER_PIXEL = 4  # of the filtered sinogram, for nearest-neighbour back projection


@dataclass(frozen=True)
class ReconstructionKernel:
    """Gain over the pure ramp ``exp(-(f / cutoff)^order)``.

    Args:
        cutoff: cycles per mm at which the gain is 1/e.
        order: steepness; 2 is Gaussian.
    """

    cutoff: float
    order: float

    def __call__(self, frequency: Tensor) -> Tensor:
        """Gain at frequencies (any shape, cycles per mm)."""
        return torch.exp(-((frequency / self.cutoff) ** self.order))


KERNELS = {
    "soft": ReconstructionKernel(cutoff=0.412, order=2.07),  # noise power spectrum of Siemens B30f
    "sharp": ReconstructionKernel(cutoff=0.809, order=4.6),  # noise power spectrum of Siemens D45f
}


@dataclass(frozen=True)
class Scanner:
    """What decides how many photons reach the detector at full dose; defaults fit Mayo's AAPM low-dose pairs.

    Args:
        photons: N0 per mm of detector (at the isocentre) and per 1/720 half turn, before the patient, for a view whose
            largest line integral is ``REFERENCE_INTEGRAL``.
        electronic: Ne, variance of the electronic noise of that ray, in photons squared.
        exposure_control: beta; 0 for a fixed tube current, 1 for constant photons behind the patient.
        bowtie: extra line integral of the beam-shaping filter at 250 mm from the axis, growing with the square.
        max_std: upper bound of the added noise's standard deviation in a line integral at quarter dose; scanners smooth
            starved rays adaptively, and no exponential may run to infinity.
    """

    photons: float = 1.18e6
    electronic: float = 8.0
    exposure_control: float = 0.51
    bowtie: float = 4.65
    max_std: float = 1.0

    def __post_init__(self) -> None:
        if not (self.photons > 0 and self.electronic >= 0 and self.max_std > 0):
            raise ValueError(f"photons and max_std must be > 0 and electronic >= 0, got {self}")

    @classmethod
    def of_exposure(cls, mas: float) -> Scanner:
        """Scanner at a known exposure (DICOM (0018,1152), mAs) instead of the exposure control's average behaviour."""
        return cls(photons=PHOTONS_PER_MAS * mas, exposure_control=0.0)


@dataclass(frozen=True)
class LowDoseCtParams:
    """One draw of :class:`LowDoseCt`.

    Args:
        dose: (B,), fraction of the full dose, in (0, 1].
        exposure: (B,), photons of the full dose over those of the scanner's model.
        seed: seed of the quantum and electronic noise.
        size: (height, width) of the images.
        noise_free: the images had no noise, so that full dose adds some, too.
    """

    dose: Tensor
    exposure: Tensor
    seed: int
    size: tuple[int, int]
    noise_free: bool = False

    @property
    def mask(self) -> NoiseMap:
        """(B, 1, H, W): 1 where noise was added; quantum noise reaches every pixel of the slice."""
        return ((self.dose < 1) | self.noise_free).float().view(-1, 1, 1, 1).expand(-1, 1, *self.size)

    @property
    def sigma(self) -> NoiseMap:
        """Zeros at full dose; else an error, for the noise depends on the patient: ask :meth:`LowDoseCt.sigma`."""
        if self.noise_free or bool((self.dose < 1).any()):
            raise ValueError("the noise of low-dose CT depends on the image; call LowDoseCt.sigma(clean, params)")
        return torch.zeros(len(self.dose), 1, *self.size)


class LowDoseCt:
    """CT images in HU at a lower dose.

    Args:
        spacing: pixel spacing, mm (square pixels).
        dose: range of the dose fraction, drawn log-uniformly; in (0, 1].
        kernel: ``soft`` (B30f), ``sharp`` (D45f) or a kernel of one's own.
        scanner: photon statistics; the default is calibrated on real pairs.
        views: views over half a turn; about 1.4 times the image width avoids view aliasing.
        exposure: range of the photons of the full dose over those of ``scanner``, drawn log-uniformly; in real series
            most slices lie within 0.5 to 2, because tube current follows more than the slice at hand.
        noise_free: the images are phantoms without noise: full Poisson and electronic noise, also at dose 1.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.low_dose_ct import LowDoseCt
        >>> quarter = LowDoseCt(spacing=0.74, dose=(0.25, 0.25), kernel="soft")
        >>> params = quarter.draw((1, 1, 512, 512), torch.Generator().manual_seed(0))
        >>> noisy = quarter.apply(torch.zeros(1, 1, 512, 512), params)
    """

    def __init__(
        self,
        spacing: float,
        dose: tuple[float, float] = (0.1, 0.5),
        kernel: str | ReconstructionKernel = "soft",
        scanner: Scanner | None = None,
        views: int = REFERENCE_VIEWS,
        exposure: tuple[float, float] = (1.0, 1.0),
        noise_free: bool = False,
    ) -> None:
        if not spacing > 0:
            raise ValueError(f"spacing must be a positive length in mm, got {spacing}")
        if not 0 < dose[0] <= dose[1] <= 1:
            raise ValueError(f"dose must be an increasing range within (0, 1], got {dose}")
        if not 0 < exposure[0] <= exposure[1]:
            raise ValueError(f"exposure must be an increasing range of positive numbers, got {exposure}")
        if isinstance(kernel, str) and kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {sorted(KERNELS)} or a ReconstructionKernel, got {kernel!r}")
        self.spacing, self.views, self.noise_free = float(spacing), views, noise_free
        self.dose, self.exposure = tuple(dose), tuple(exposure)
        self.kernel = KERNELS[kernel] if isinstance(kernel, str) else kernel
        self.scanner = scanner or Scanner()

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> LowDoseCtParams:
        """Draw doses and a seed for a batch ``(B, 1, H, W)``."""
        if shape[1] != 1:
            raise ValueError(f"CT images have one channel, (B, 1, H, W); got shape {tuple(shape)}")
        dose = log_uniform(self.dose, torch.rand(shape[0], generator=generator)).clamp(max=1.0)
        exposure = log_uniform(self.exposure, torch.rand(shape[0], generator=generator))
        seed = draw_seed(generator)
        return LowDoseCtParams(dose, exposure, seed, (shape[2], shape[3]), self.noise_free)

    def apply(self, clean: ImageBatch, params: LowDoseCtParams) -> ImageBatch:
        """Add the noise of the drawn dose to HU images (B, 1, H, W); values stay at or above ``min(clean, -1024)``."""
        noise = self._noise(clean.float(), params).to(clean)
        return torch.maximum(clean + noise, clean.clamp(max=AIR_HU))

    def sigma(self, clean: ImageBatch, params: LowDoseCtParams) -> NoiseMap:
        """Standard deviation of what :meth:`apply` adds, HU, (B, 1, H, W), before clipping to air.

        Propagated from the sinogram, not sampled.
        """
        height, width = clean.shape[-2:]
        variance, factor = self._coarse_variance(clean.float(), params)
        angles = view_angles(variance.shape[1], variance.device)
        small = back_project(variance, angles, -(-height // factor), -(-width // factor)) * (math.pi / self.views)
        gain = noise_gain(self._rays(height, width), self.spacing / RAYS_PER_PIXEL, self.kernel)
        hu = (small * gain).clamp(min=0).sqrt() * (1000 / MU_WATER)
        return F.interpolate(hu, scale_factor=factor, mode="bilinear")[..., :height, :width].to(clean.dtype)

    def _noise(self, clean: Tensor, params: LowDoseCtParams) -> Tensor:
        """Reconstructed noise image, HU."""
        height, width = clean.shape[-2:]
        generator = torch.Generator().manual_seed(params.seed)
        if self.noise_free:
            sinogram = self._counted_noise(clean, params, generator)
        else:
            variance, factor = self._coarse_variance(clean, params)
            std = self._to_rays(variance.sqrt(), factor, params.size)
            sinogram = std * torch.randn(std.shape, generator=generator).to(std)
        fine = filter_sinogram(
            sinogram, self.spacing / RAYS_PER_PIXEL, self.kernel, SAMPLES_PER_PIXEL // RAYS_PER_PIXEL
        )
        image = back_project(fine, view_angles(self.views), height, width, SAMPLES_PER_PIXEL)
        return image * (1000 / MU_WATER)

    def _counted_noise(self, clean: Tensor, params: LowDoseCtParams, generator: torch.Generator) -> Tensor:
        """Log of counted over expected photons, (B, V, D): Poisson plus electronic noise, at least one photon."""
        integrals, factor = self._line_integrals(clean)
        sent = (params.dose * params.exposure).to(clean).log()[:, None, None]
        log_photons = self._log_photons(integrals, factor * self.spacing) + sent
        # The counts are drawn on the CPU so that every device gives the same image.
        log_photons = self._to_rays(log_photons.expand_as(integrals), factor, params.size).cpu()
        integrals = self._to_rays(integrals, factor, params.size).cpu()
        counts = torch.poisson((log_photons - integrals).exp(), generator=generator)
        electronic = math.sqrt(self.scanner.electronic * self._ray_size())
        counts += electronic * torch.randn(counts.shape, generator=generator)
        return (log_photons - counts.clamp(min=1).log() - integrals).to(clean)

    def _coarse_variance(self, clean: Tensor, params: LowDoseCtParams) -> tuple[Tensor, int]:
        """Variance of the added noise per fine ray, on the coarse sinogram; and the coarsening factor."""
        integrals, factor = self._line_integrals(clean)
        a = params.dose.to(clean)[:, None, None]
        sent = self._log_photons(integrals, factor * self.spacing) + params.exposure.to(clean).log()[:, None, None]
        # One over the photons that arrive; the bound is set before the exponential and again on the result.
        inverse = (integrals - sent).clamp(max=10.0).exp()
        electronic = self.scanner.electronic * self._ray_size()
        at_quarter = 3 * inverse * (1 + 5 * electronic * inverse)
        bound = (self.scanner.max_std**2 / at_quarter).clamp(max=1.0)
        if self.noise_free:  # all the noise of dose a, not what is missing from an image that has some
            return bound * inverse / a * (1 + electronic * inverse / a), factor
        return bound * (1 - a) / a * inverse * (1 + (1 + a) / a * electronic * inverse), factor

    def _line_integrals(self, clean: Tensor) -> tuple[Tensor, int]:
        """Line integrals (B, V, D) of the attenuation on a coarse grid, dimensionless; and the coarsening factor."""
        height, width = clean.shape[-2:]
        factor = max(1, round(max(height, width) / COARSE_PIXELS))
        attenuation = (1 + clean / 1000).clamp(min=0) * MU_WATER
        ragged = (0, -width % factor, 0, -height % factor)
        small = F.avg_pool2d(F.pad(attenuation, ragged), factor)
        detectors = detector_count(*small.shape[-2:])
        integrals = radon(small, view_angles(max(1, self.views // factor), small.device), detectors)
        return integrals * (factor * self.spacing), factor

    def _log_photons(self, integrals: Tensor, pitch: float) -> Tensor:
        """Logarithm of the photons sent along each ray at full dose, (B, V, D); ``pitch`` of the rays in mm."""
        detectors = integrals.shape[-1]
        t = (torch.arange(detectors, device=integrals.device) - detectors // 2) * pitch
        control = self.scanner.exposure_control * (integrals.amax(-1, keepdim=True) - REFERENCE_INTEGRAL)
        shaped = control - self.scanner.bowtie * (t / 250.0) ** 2
        return shaped + math.log(self.scanner.photons * self._ray_size())

    def _to_rays(self, coarse: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
        """Coarse sinogram (B, v, d) at the fine rays (B, V, D), bilinear."""
        views, detectors = coarse.shape[-2:]
        rays = self._rays(*size)
        angles = view_angles(self.views, coarse.device)[:, None]
        # Averaging moves the rotation centre by a part of a coarse pixel.
        y0, x0 = (-(-n // factor) // 2 * factor + (factor - 1) / 2 - n // 2 for n in size)
        t = (torch.arange(rays, device=coarse.device) - rays // 2) / RAYS_PER_PIXEL
        column = (t - x0 * angles.cos() + y0 * angles.sin()) / factor + detectors // 2
        row = (angles * (views / math.pi)).expand_as(column)
        grid = torch.stack((column * (2 / (detectors - 1)) - 1, row * (2 / max(views - 1, 1)) - 1), dim=-1)
        grid = grid.expand(len(coarse), -1, -1, -1)
        return F.grid_sample(coarse[:, None], grid, padding_mode="border", align_corners=True)[:, 0]

    def _ray_size(self) -> float:
        """Width times angle of one ray, in units of the reference ray."""
        return self.spacing / RAYS_PER_PIXEL * REFERENCE_VIEWS / self.views

    def _rays(self, height: int, width: int) -> int:
        return detector_count(height, width) * RAYS_PER_PIXEL
