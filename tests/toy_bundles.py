"""Small complete bundles on disk, made of configuration and a few numbers, for tests that load real folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from monai_sasm.bundles import Bundle
from monai_sasm.types import Modality

INFERENCE = """
network_def:
  _target_: torch.nn.Conv2d
  in_channels: {channels}
  out_channels: {channels}
  kernel_size: 1
"""
GATE = """
network_def:
  _target_: tests.toy_bundles.TrustingGate
  experts: {experts}
"""


def bundle(name: str, role: str, modality: Modality | None, network: torch.nn.Module) -> Bundle:
    """A bundle in memory, for noise where it is an expert."""
    return Bundle(name, Path("nowhere"), role, modality, "noise", False, "1", name * 8, network, {"sasm": {}})


class TrustingGate(torch.nn.Module):
    """A gate that shares each pixel evenly between all of its experts."""

    def __init__(self, experts: list[str]) -> None:
        super().__init__()
        self.classes = ("clean", *experts)

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, E, ceil(H/8), ceil(W/8))``."""
        height, width = (-(-side // 8) for side in image.shape[-2:])
        logits = torch.zeros(len(image), len(self.classes), height, width)
        logits[:, 0] = -50
        return logits


def write_bundle(folder: Path, config: str, section: dict[str, Any], state: dict[str, torch.Tensor]) -> Path:
    """A bundle folder of ``configs/inference.yaml``, ``configs/metadata.json`` and ``models/model.pt``."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.yaml").write_text(config, encoding="utf-8")
    metadata = json.dumps({"version": "1.2.3", "sasm": section})
    (folder / "configs" / "metadata.json").write_text(metadata, encoding="utf-8")
    torch.save(state, folder / "models" / "model.pt")
    return folder


def write_gain_expert(folder: Path, gain: float, modality: str = "PHOTO", degradation: str = "noise") -> Path:
    """A bundle whose network multiplies each channel by ``gain``: it repairs images dimmed by ``1 / gain``."""
    channels = 3 if modality == "PHOTO" else 1
    section = {"role": "expert", "modality": modality, "degradation": degradation, "noise_map": False}
    state = {"weight": gain * torch.eye(channels)[..., None, None], "bias": torch.zeros(channels)}
    return write_bundle(folder, INFERENCE.format(channels=channels), section, state)


def write_trusting_gate(folder: Path, experts: list[str]) -> Path:
    """A gate bundle with these experts as classes, see :class:`TrustingGate`."""
    write_bundle(folder, GATE.format(experts=experts), {"role": "gate"}, {})
    (folder / "configs" / "classes.json").write_text(json.dumps(["clean", *experts]))
    return folder
