"""Small subjects in the layout of BraTS, a judge that thresholds, and an expert that can be made to die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import nibabel
import numpy as np
import torch

from tests.toy_bundles import write_bundle, write_gain_expert

SHAPE = (36, 40, 18)
DIES = "SASM_TEST_DIES_AT"  # in the environment: the call at which Mortal kills its process
JUDGE = """
modalities: [t1ce, flair]
preprocessing:
  _target_: monai.transforms.Compose
  transforms:
    - {_target_: monai.transforms.LoadImaged, keys: image}
    - {_target_: monai.transforms.Orientationd, keys: image, axcodes: RAS}
inferer:
  _target_: monai.inferers.SimpleInferer
network_def:
  _target_: tests.evaluation.tumours.Thresholds
"""


class Thresholds(torch.nn.Module):
    """Tumour core, whole tumour and enhancing tumour of ``(1, 2, I, J, K)``, T1ce and FLAIR in working scale."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores ``(1, 3, I, J, K)``."""
        contrast, flair = image[:, :1], image[:, 1:]
        return torch.cat([contrast - 0.55, flair - 0.7, contrast - 0.85], 1)


class Mortal(torch.nn.Conv2d):
    """Kills its process at the call that :data:`DIES` names, as the system kills one that takes too much memory."""

    calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        Mortal.calls += 1
        if os.environ.get(DIES) == str(Mortal.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(image)


def write_models(folder: Path) -> Path:
    """A trusted folder with the judge, ``same`` (which can die) and ``dimmer``."""
    write_bundle(folder / "segment_brats_segresnet", JUDGE, {"role": "segmenter", "modality": "MR"}, {})
    write_gain_expert(folder / "dimmer", 0.6, "MR", "low-resolution")
    same = write_gain_expert(folder / "same", 1.0, "MR", "low-resolution") / "configs" / "inference.yaml"
    same.write_text(same.read_text().replace("torch.nn.Conv2d", "tests.evaluation.tumours.Mortal"), encoding="utf-8")
    return folder


def write_subjects(folder: Path, count: int, unlabelled: int | None = None, background: float = 0.0) -> Path:
    """``BraTS2021_00000`` and so on: ellipsoids with a round tumour, of which the judge finds every voxel."""
    grid = np.mgrid[tuple(slice(0, side) for side in SHAPE)].astype(np.float32)
    centre = np.array([side / 2 - 0.5 for side in SHAPE])[:, None, None, None]
    brain = (((grid - centre) / np.array([15, 17, 7])[:, None, None, None]) ** 2).sum(0) < 1
    for number in range(count):
        random = np.random.default_rng(number)
        tumour = centre + np.array([random.integers(-4, 5), random.integers(-4, 5), 0])[:, None, None, None]
        radius = np.sqrt(((grid - tumour) ** 2).sum(0))
        whole, core, enhancing = (brain & (radius < limit) for limit in (7, 5, 3.5))
        texture = 20 * random.standard_normal(SHAPE)
        flair = np.where(whole, 1000, 400) + texture
        contrast = np.select([enhancing, core], [1000, 700], 400) + texture
        labels = np.select([enhancing, core, whole], [4, 1, 2], 0)
        name = f"BraTS2021_{number:05d}"
        (folder / name).mkdir(parents=True)
        images = {"flair": flair, "t1ce": contrast}
        parts = {kind: np.where(brain, image, 0) + background for kind, image in images.items()}
        if number != unlabelled:
            parts["seg"] = labels
        for kind, array in parts.items():
            dtype = np.uint8 if kind == "seg" else np.float32
            image = nibabel.Nifti1Image(array.astype(dtype), np.diag([-1.0, -1.0, 1.0, 1.0]))
            nibabel.save(image, folder / name / f"{name}_{kind}.nii.gz")
    return folder
