"""Bundles whose networks have a known effect, as protocols are handed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_sasm.bundles import Bundle
from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.types import Modality

EXPERTS = {
    "noise_photo_unet": (Modality.PHOTO, "noise"),
    "raindrop_photo_unet": (Modality.PHOTO, "raindrop"),
    "lowdose_ct_unet": (Modality.CT, "low-dose"),
    "noise_mri_unet": (Modality.MR, "noise"),
}


class Blur(nn.Module):
    """Stands in for an expert: a Gaussian blur."""

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, sigma: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)``; the noise map is not looked at."""
        return lowpass(image, self.sigma)


class Undecided(nn.Module):
    """A gate that gives all classes the same probability; those of another modality are left out by the pipeline."""

    def __init__(self, experts: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = ("clean", *experts)

    def forward(self, image: Tensor, sigma: Tensor) -> Tensor:
        """Scores at an eighth of the resolution."""
        height, width = (-(-side // 8) for side in image.shape[-2:])
        return torch.zeros(len(image), len(self.classes), height, width)


def bundle(
    name: str,
    network: nn.Module,
    role: str = "expert",
    modality: Modality | None = None,
    degradation: str | None = None,
) -> Bundle:
    """A bundle of the network, which takes a noise map."""
    section: dict[str, Any] = {"role": role, "degradation": degradation}
    return Bundle(
        name=name,
        root=Path("nowhere"),
        role=role,
        modality=modality,
        degradation=degradation,
        noise_map=role != "segmenter" and degradation != "low-resolution",
        version="1",
        sha256="0" * 64,
        network=network.eval(),
        metadata={"sasm": section},
    )


def named(networks: dict[str, nn.Module], role: str = "expert", modality: Modality | None = None) -> dict[str, Bundle]:
    """Bundles of networks for one modality, which take no noise map."""
    return {name: bundle(name, one, role, modality, "low-resolution") for name, one in networks.items()}


def blurring(sigma: float = 1.0, *, gate: bool = True) -> dict[str, Bundle]:
    """All experts of the gate as blurs, and a gate that trusts all of a modality alike."""
    experts = {
        name: bundle(name, Blur(sigma), "expert", modality, degradation)
        for name, (modality, degradation) in EXPERTS.items()
    }
    return experts | ({"gate": bundle("gate", Undecided(tuple(EXPERTS)), "gate")} if gate else {})
