"""CT for the gate at any dose: what is noisier than a normal image of that scanner and kernel, and what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from monai_sasm.datasets.crops import CropDataset
from monai_sasm.functional.intensity import HU_PER_UNIT
from monai_sasm.training.dose_range import LOWEST, DosedPair
from monai_sasm.training.gate_bank import Example
from monai_sasm.types import Modality

AIR = LOWEST / HU_PER_UNIT
FREE_OF_NOISE = 2.0  # dose, as a multiple of the full one, up to which images that have no noise get some


class DoseRangeSource:
    r"""Examples from pairs whose dose is known, at a dose ``q`` of one's own choice.

    Quantum noise has a variance proportional to 1 / dose. With the noise ``N = noisy - clean`` of a pair at dose ``d``,

    .. math:: \mathrm{clean} + s N, \quad s^2 = \frac{1/q - 1}{1/d - 1}, \quad
              \text{or } s^2 = d / q \text{ where clean has no noise}

    has the noise of dose ``q``, whatever scanner, kernel and patient. So half dose is half dose in each, while a fixed
    share of ``N`` is a weak fault in one pair and a strong one in another.

    Args:
        pairs: see :mod:`monai_sasm.training.dose_range`; those at full dose with noise of their own are left out.
        fault: class of the noise.
        normal: smallest dose that still counts as a normal image.
        low: smallest and largest dose that count as the fault.
        coarse: share of examples with larger pixels: whole slices, averaged over up to ``coarsest`` pixels.
        coarsest: factor on the pixel size.
        size: side of the crop in pixels.
        min_std: crops that vary less are drawn again, HU / 1000.
        seed: seed of the crops.
    """

    def __init__(
        self,
        pairs: Sequence[DosedPair],
        fault: str,
        normal: float = 0.75,
        low: tuple[float, float] = (0.12, 0.55),
        coarse: float = 0.2,
        coarsest: float = 4.0,
        size: int = 224,
        min_std: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 < low[0] <= low[1] < normal <= 1 <= coarsest:
            raise ValueError(
                f"needed: 0 < low range < normal <= 1 <= coarsest, got low={low}, normal={normal}, coarsest={coarsest}"
            )
        self.pairs = [pair for pair in pairs if pair.noise_free or pair.dose < normal]
        self.crops = [
            CropDataset([(pair.clean, pair.noisy)], size, 1, ("clean", "noisy"), min_std, seed=seed + number)
            for number, pair in enumerate(self.pairs)
        ]
        if not self.pairs:
            raise ValueError(f"no pair below {normal} of the full dose, and none without noise")
        self.fault, self.normal, self.low, self.size = fault, normal, tuple(low), size
        self.coarse, self.coarsest = coarse, coarsest

    def draw(self, generator: torch.Generator) -> Example:
        """One image at a dose that is normal or low, with even chances."""
        number = int(torch.randint(len(self.pairs), (1,), generator=generator))
        pair, uniform = self.pairs[number], torch.rand(4, generator=generator).tolist()
        faulty = uniform[0] < 0.5
        bounds = self.low if faulty else (self.normal, FREE_OF_NOISE if pair.noise_free else 1.0)
        dose = bounds[0] * (bounds[1] / bounds[0]) ** uniform[1]
        if uniform[2] < self.coarse:
            factor = self.coarsest ** uniform[3]
            clean, noisy = (_coarser(torch.from_numpy(array), factor, self.size) for array in (pair.clean, pair.noisy))
        else:
            clean, noisy = self.crops[number][0].values()
        degraded = clean + noise_share(dose, pair) * (noisy - clean)
        mask = torch.full((1, self.size, self.size), float(faulty))
        return Example(clean if faulty else degraded, degraded, {self.fault: mask}, Modality.CT)


def noise_share(dose: float, pair: DosedPair) -> float:
    """``s`` of :class:`DoseRangeSource` for ``dose``."""
    if pair.noise_free:
        return math.sqrt(pair.dose / dose)
    return math.sqrt((1 / dose - 1) / (1 / pair.dose - 1))


def _coarser(image: torch.Tensor, factor: float, size: int) -> torch.Tensor:
    """``image`` ``(1, H, W)`` with pixels ``factor`` times as wide; its middle, in air where it is too small."""
    smaller = [max(int(side / factor), 1) for side in image.shape[-2:]]
    coarse = F.interpolate(image[None], size=smaller, mode="area")[0]
    for axis in (1, 2):
        excess = coarse.shape[axis] - size
        if excess > 0:
            coarse = coarse.narrow(axis, excess // 2, size)
    missing = [size - side for side in coarse.shape[-2:]]
    top, left = missing[0] // 2, missing[1] // 2
    return F.pad(coarse, (left, missing[1] - left, top, missing[0] - top), value=AIR)
