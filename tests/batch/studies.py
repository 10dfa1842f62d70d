"""Synthetic studies, and an expert that some of them kill: what a crash in a network's C++ looks like from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.uid import generate_uid

from tests.data import ct_small
from tests.toy_bundles import write_gain_expert

EXPERT = "toy_ct"
SIZE = 32  # pixels along each side
DEADLY = 3000  # HU


class Fragile(torch.nn.Conv2d):
    """The network of :func:`write_fragile_expert`: kills its process, as the system kills one that takes too much."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Multiply the image, ``(B, 1, H, W)`` in working scale, unless all of it is brighter than any tissue."""
        if float(image.min()) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(image)


def write_fragile_expert(trust: Path, gain: float = 0.5) -> Path:
    """A trusted folder with the CT expert :data:`EXPERT`, which multiplies by ``gain``."""
    bundle = write_gain_expert(trust / EXPERT, gain, "CT")
    config = bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("torch.nn.Conv2d", "tests.batch.studies.Fragile"), encoding="utf-8")
    return trust


def write_studies(folder: Path, count: int, deadly: int | None = None) -> list[Path]:
    """``count`` different CT studies of one slice, ``STUDY/slice.dcm``; number ``deadly`` kills :class:`Fragile`."""
    template = pydicom.dcmread(ct_small())
    pixels = template.pixel_array[:SIZE, :SIZE]
    template.Rows = template.Columns = SIZE
    slope, intercept = float(template.RescaleSlope), float(template.RescaleIntercept)
    paths = []
    for number in range(count):
        stored = np.roll(pixels, number, axis=number % 2)
        if number == deadly:
            stored = (int((DEADLY - intercept) / slope) + pixels % 50).astype(pixels.dtype)  # networks see no constants
        template.StudyInstanceUID, template.SeriesInstanceUID, template.SOPInstanceUID = (
            generate_uid(entropy_srcs=[level, str(number)]) for level in ("study", "series", "instance")
        )
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.PatientName = f"Doe^Jane {number}"
        template.PixelData = stored.tobytes()
        path = folder / f"Doe_Jane_{number:03d}" / "slice.dcm"
        path.parent.mkdir(parents=True)
        template.save_as(path)
        paths.append(path)
    return paths
