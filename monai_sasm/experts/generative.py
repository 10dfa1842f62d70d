"""Restoration by a generative process on the image's own grid: the same expert for DiT, SiT and diffusion U-Nets.

What is generated is not the image but what the degraded one lacks of it, :math:`z = (x - y) / scale`, with y as a
condition (SR3, Saharia et al. 2022, in the residual form of Whang et al. 2022). One step from pure noise gives the mean
of all images that fit, the best PSNR; more steps draw one of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.diffusion.process import Process
from monai_sasm.experts.consistency import Guard
from monai_sasm.experts.enhance import DETAIL, BlankStart, initialize_output, starting_noise
from monai_sasm.functional.neighbours import fit_neighbours
from monai_sasm.functional.recorded import Recorded
from monai_sasm.types import ImageBatch, NoiseMap


class GenerativeRestorer(Recorded):
    """Restores images by sampling what they lack.

    Args:
        network: called as MONAI's ``DiffusionModelUNet``; ``C`` channels of ``z_t`` and :meth:`conditions` in, ``C``
            out.
        process: from noise to image, see :mod:`monai_sasm.diffusion.process`: what DiT and SiT differ in.
        channels: C, of the image.
        noise_estimator: image -> noise map; ``None`` for networks that are not told the noise.
        scale: about the root mean square of what degraded images lack, in working scale.
        steps: of the sampler.
        guard: puts measured data back into every estimate, see :mod:`monai_sasm.experts.consistency`.
        seed: of the starting noise.
        zero_init: start as the identity, by zeroing the network's last layer.
        neighbours: slices seen on each side of the one to be restored, see :mod:`monai_sasm.functional.neighbours`.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        channels: int = 1,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
        scale: float = 0.05,
        steps: int = 1,
        guard: Guard | None = None,
        seed: int = 0,
        zero_init: bool = False,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        if steps < 1 or not scale > 0 or neighbours < 0:
            raise ValueError(
                "steps must be at least 1, scale positive and neighbours not negative, "
                f"got {steps}, {scale} and {neighbours}"
            )
        self.channels, self.neighbours = channels, neighbours
        self.network = BlankStart(network, channels, process.last)
        self.process, self.noise_estimator = process, noise_estimator
        self.scale, self.steps, self.guard, self.seed = scale, steps, guard, seed
        if zero_init:
            initialize_output(network, zero=True)

    def forward(self, image: ImageBatch, sigma: NoiseMap | None = None) -> ImageBatch:
        """:meth:`restore` with the configured number of steps."""
        return self.restore(image, sigma)

    def restore(
        self, image: ImageBatch, sigma: NoiseMap | None = None, steps: int | None = None, seed: int | None = None
    ) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)`` in working scale.

        Args:
            image: degraded images; slabs ``(B, (2 n + 1) C, H, W)`` where there are neighbours.
            sigma: noise map ``(B, 1, H, W)``; estimated if missing, unused by networks that are not told the noise.
            steps: of the sampler; the configured number when ``None``.
            seed: of the starting noise; the configured one when ``None``.
        """
        condition = self.conditions(image, sigma)
        image = fit_neighbours(image, 0, self.channels)

        def predict(z: Tensor, t: Tensor) -> Tensor:
            return self.predict(z, t, condition)

        def constrain(z: Tensor) -> Tensor:
            return z if self.guard is None else (self.guard(image + self.scale * z, image) - image) / self.scale

        noise = starting_noise(image, self.seed if seed is None else seed)
        z = self.process.sample(predict, noise, self.steps if steps is None else steps, constrain)
        return image + self.scale * z.to(image.dtype)

    def uncertainty(
        self, image: ImageBatch, sigma: NoiseMap | None = None, members: int = 4, steps: int = 4
    ) -> NoiseMap:
        """Standard deviation ``(B, 1, H, W)`` of ``members`` samples of ``steps`` steps, in working scale.

        It says where the degraded image leaves open what was there. One step has no spread, so ``steps`` is its own.
        """
        if members < 2 or steps < 2:
            raise ValueError(f"a spread needs at least 2 members and 2 steps, got {members} and {steps}")
        samples = torch.stack([self.restore(image, sigma, steps, self.seed + member) for member in range(members)])
        return samples.var(0).mean(1, keepdim=True).sqrt()

    def predict(self, z: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """What the process has the network predict at ``z_t`` ``(B, C, H, W)`` and times ``(B,)``."""
        prediction: Tensor = self.network(torch.cat([z, condition], 1), timesteps=t)
        return prediction

    def conditions(self, image: ImageBatch, sigma: NoiseMap | None = None) -> Tensor:
        """Further input channels: the image, its detail, its noise map if told, its neighbours if seen.

        Detail and noise are in the scale of z: faint beside the contrast of the image, they say most about what lacks.
        The neighbours follow, ``2 n C`` channels, those before the slice first.
        """
        slab, image = (fit_neighbours(image, count, self.channels) for count in (self.neighbours, 0))
        parts = [image, (image - lowpass(image, DETAIL)) / self.scale]
        if self.noise_estimator is not None:
            noise = self.noise_estimator(image) if sigma is None else sigma.to(image)
            parts.append(noise / self.scale)
        if self.neighbours:
            before = self.neighbours * self.channels
            parts += [slab[:, :before], slab[:, before + self.channels :]]
        return torch.cat(parts, 1)


class Prediction(nn.Module):
    """A restorer as training calls it: ``(z_t, t, y, sigma) -> [prediction, restored image]``.

    Args:
        restorer: what is trained.
    """

    def __init__(self, restorer: GenerativeRestorer) -> None:
        super().__init__()
        self.restorer = restorer

    def forward(self, z: Tensor, t: Tensor, image: ImageBatch, sigma: NoiseMap | None = None) -> Tensor:
        """``(B, 2 C, H, W)``: what the process predicts, and the image that it means."""
        with torch.no_grad():
            condition = self.restorer.conditions(image, sigma)
        prediction = self.restorer.predict(z, t, condition).float()
        meant = fit_neighbours(image, 0, self.restorer.channels) + self.restorer.scale * self.restorer.process.estimate(
            z, prediction, t
        )
        return torch.cat([prediction, meant], 1)
