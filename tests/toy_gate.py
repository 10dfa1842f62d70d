"""Complete gates and houses on disk for tests: shipped weights where there are some, fresh ones where not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.training.gate_bank import DegradedSource, GateBank
from monai_sasm.training.gate_copy import REHEARSAL_FILE
from monai_sasm.training.gate_head import collect
from tests.bundle_cases import ROOT

GATE = "gate_mobilenet"


def photos() -> list[NDArray[np.uint8]]:
    """Three small photos ``(3, 128, 128)`` that come with scikit-image."""
    found = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    return [np.ascontiguousarray(photo[60:188, 160:288].transpose(2, 0, 1)) for photo in found]


def copy_bundle(name: str, folder: Path, **network: object) -> Path:
    """A copy of a shipped bundle in ``folder``; without shipped weights, or with overrides, its weights are fresh."""
    source, copy = ROOT / "bundles" / name, folder / name
    shutil.copytree(source, copy)
    if network or not (copy / "models" / "model.pt").is_file():
        parser = ConfigParser()
        parser.read_config(str(copy / "configs" / "inference.yaml"))
        parser["bundle_root"] = str(copy)
        for key, value in network.items():
            parser[f"network_def::{key}"] = value
        torch.manual_seed(0)
        (copy / "models").mkdir(exist_ok=True)
        torch.save(parser.get_parsed_content("network_def").state_dict(), copy / "models" / "model.pt")
    return copy


def write_stand_ins(folder: Path, names: Sequence[str]) -> Path:
    """Bundles with fresh weights for those of ``names`` that are shipped without; experts among them change nothing."""
    for name in names:
        if not (ROOT / "bundles" / name / "models" / "model.pt").is_file():
            copy_bundle(name, folder, **({} if name == GATE else {"zero_init": True}))
    return folder


def write_gate(folder: Path) -> Path:
    """The gate with the examples that :func:`monai_sasm.training.gate_head.add_bundle` rehearses."""
    from monai_sasm.bundles import load

    copy = copy_bundle(GATE, folder)
    if not (copy / "models" / REHEARSAL_FILE).is_file():
        gate = load(copy).network
        source = DegradedSource(photos(), "PHOTO", {"noise_photo_unet": GaussianNoise(sigma=(0.1, 0.2))}, size=96)
        bank = GateBank([source], [12], gate.classes, {}, NoiseEstimator(), augment=False)
        torch.save(collect(gate, bank, 1200), copy / "models" / REHEARSAL_FILE)
    return copy
