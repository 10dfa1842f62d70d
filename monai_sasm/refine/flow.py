"""Refinement by rectified flow, from the mixed image plus a little noise to the clean image in a few steps.

After PMRF (Ohayon et al. 2025, arXiv:2410.00418): the least squared error first, here by the experts, then a flow from
there to the distribution of clean images. The source noise makes the flow's map exist where many clean images have the
same restoration.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_sasm.diffusion.flow import euler, even_shares
from monai_sasm.diffusion.pinning import lowpass, pin_low_frequencies
from monai_sasm.refine.grain import grain
from monai_sasm.refine.network import TIMES
from monai_sasm.refine.refiner import Refined
from monai_sasm.types import ImageBatch, NoiseMap


class FlowEstimate(nn.Module):
    """``(x_s, t, anchor, source) -> x_0``: the anchor plus what the network predicts is missing.

    A network of zeros gives the anchor, which is the image of least squared error that the experts know; the flow's
    velocity is ``(x_0 - x_s) / s``.

    Args:
        network: called as MONAI's ``DiffusionModelUNet``, with twice the image's channels as input: how ``x_s``
            departs from the anchor, and the anchor. With ``removed``, three times: also what the experts removed.
        removed: show the network the source less the anchor; zeros where the source is not at hand.
    """

    def __init__(self, network: nn.Module, removed: bool = False) -> None:
        super().__init__()
        self.network, self.removed = network, removed

    def forward(self, x: Tensor, t: Tensor, anchor: Tensor, source: Tensor | None = None) -> Tensor:
        """``x``, ``anchor`` and ``source`` ``(B, C, H, W)`` in [-1, 1], ``t`` ``(B,)`` in 0 to 1000 -> ``x_0``."""
        shown = [x - anchor, anchor]
        if self.removed:
            shown.append(torch.zeros_like(anchor) if source is None else source - anchor)
        missing: Tensor = self.network(torch.cat(shown, 1), timesteps=t)
        return anchor + missing.to(anchor.dtype)


class FlowRefiner(nn.Module):
    """Gives photos back the texture that experts of least squared error average away.

    Args:
        network: see :class:`FlowEstimate`.
        steps: Euler steps, 1 to 4; more draw more texture and cost more fidelity.
        noise: standard deviation of the source noise, photos in [0, 1].
        members: size of the ensemble, whose spread gives the trust map; 1 trusts everything.
        pin: standard deviation in pixels of the low-pass pinned to the anchor; 0 is off.
        window: the same of the neighbourhood in which the ensemble is compared.
        seed: of the source noise.
        grain: standard deviation of the noise that is given back, photos in [0, 1], see :mod:`monai_sasm.refine.grain`.
        removed: let the network see what the experts removed from the source: noise, and the texture lost with it.
        zero_init: start as the identity, by zeroing the network's last layer.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: int = 1,
        noise: float = 0.05,
        members: int = 2,
        pin: float = 8.0,
        window: float = 2.0,
        seed: int = 0,
        grain: float = 0.0,
        removed: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if steps < 1 or members < 1 or pin < 0 or not noise > 0 or not window > 0 or grain < 0:
            raise ValueError(
                "steps and members must be at least 1, pin and grain at least 0, noise and window positive; got "
                f"{steps}, {members}, {pin}, {noise}, {window} and {grain}"
            )
        self.estimate = FlowEstimate(network, removed)
        self.steps, self.noise, self.members = steps, noise, members
        self.pin, self.window, self.seed, self.grain = pin, window, seed, grain
        if zero_init:
            for parameter in list(network.parameters())[-2:]:  # weight and bias of the last convolution
                nn.init.zeros_(parameter)

    def forward(self, image: ImageBatch, source: ImageBatch | None = None) -> ImageBatch:
        """Refine photos ``(B, 3, H, W)`` in [0, 1] as far as the ensemble agrees."""
        return image + self.refine(image, source).change(image)

    def refine(self, anchor: ImageBatch, source: ImageBatch | None = None) -> Refined:
        """The first member of the ensemble, the trust map of all, and grain if the source is at hand."""
        members = self.ensemble(anchor, source)
        given_back = grain(source, anchor, self.grain) if source is not None and self.grain else None
        return Refined(image=members[0], trust=trust_map(members - anchor, self.window), grain=given_back)

    def ensemble(self, anchor: ImageBatch, source: ImageBatch | None = None) -> Tensor:
        """Refined photos ``(members, B, 3, H, W)``, from as many draws of the source noise."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same draw on every device
        shape = (self.members, *anchor.shape)
        noise = 2 * self.noise * torch.randn(shape, generator=generator).flatten(0, 1).to(anchor)
        model = (2 * anchor - 1).repeat(self.members, 1, 1, 1)
        origin = None if source is None else (2 * source - 1).repeat(self.members, 1, 1, 1)

        def estimate(x: Tensor, s: Tensor) -> Tensor:
            clean: Tensor = self.estimate(x, TIMES * s, model, origin)
            return clean

        def pinned(clean: Tensor) -> Tensor:
            return pin_low_frequencies(clean, model, self.pin) if self.pin else clean

        clean = euler(estimate, model + noise, even_shares(self.steps), pinned)
        return anchor + ((clean - model) / 2).view(shape)


def trust_map(changes: Tensor, window: float) -> NoiseMap:
    r"""Share of a change on which an ensemble agrees, :math:`\mu^2 / (\mu^2 + v)`.

    The factor that makes one member's change, :math:`\mu` known plus a random part of variance v, closest to the known
    part in the mean square (Wiener's). Both are measured around each pixel: v is the variance between the members, and
    :math:`\mu^2` the energy of their mean less the v / K that it has by chance.

    Args:
        changes: refined minus anchor of each member, ``(K, B, C, H, W)``.
        window: standard deviation of the Gaussian neighbourhood, pixels.

    Returns:
        ``(B, 1, H, W)`` in [0, 1]; all ones for K = 1, and where nothing changes.
    """
    count = len(changes)
    if count == 1:
        return torch.ones_like(changes[0, :, :1])
    spread = lowpass(changes.var(0).mean(1, keepdim=True), window)
    energy = lowpass(changes.mean(0).square().mean(1, keepdim=True), window)
    agreed = (energy - spread / count).clamp_min(0)
    return torch.where(spread > 0, agreed / (agreed + spread).clamp_min(torch.finfo(spread.dtype).tiny), 1.0)
