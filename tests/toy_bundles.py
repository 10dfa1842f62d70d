"""Small complete bundles on disk, made of configuration and a few numbers, for tests that load real folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch

INFERENCE = """
network_def:
  _target_: torch.nn.Conv2d
  in_channels: {channels}
  out_channels: {channels}
  kernel_size: 1
"""


def write_gain_expert(folder: Path, gain: float, modality: str = "PHOTO", degradation: str = "noise") -> Path:
    """A bundle whose network multiplies each channel by ``gain``: it repairs images dimmed by ``1 / gain``."""
    channels = 3 if modality == "PHOTO" else 1
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.yaml").write_text(INFERENCE.format(channels=channels), encoding="utf-8")
    section = {"role": "expert", "modality": modality, "degradation": degradation, "noise_map": False}
    metadata = json.dumps({"version": "1.2.3", "sasm": section})
    (folder / "configs" / "metadata.json").write_text(metadata, encoding="utf-8")
    state = {"weight": gain * torch.eye(channels)[..., None, None], "bias": torch.zeros(channels)}
    torch.save(state, folder / "models" / "model.pt")
    return folder
