"""Does a bundle run: metadata, network and weights, of its variant for thin slices, too, and an image through it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from monai_sasm.bundles.bundle import Bundle
from monai_sasm.bundles.loading import load
from monai_sasm.bundles.metadata import read_metadata

SIZES = ((64, 64), (61, 75))  # pixels; the second is a multiple of nothing, as images are


def check_runs(folder: Path) -> None:
    """Read a bundle's metadata, build its networks, load their weights, send an image through experts and refiners.

    Args:
        folder: the bundle's, trusted: its configuration may run code. A pipeline owns no weights; its metadata is read.

    Raises:
        Exception: whatever is wrong with it; a foreign configuration may fail in any way.
    """
    section = read_metadata(folder)["sasm"]
    if section["role"] == "pipeline":
        return
    for variant in dict.fromkeys([None, section.get("thinning")]):
        bundle = load(folder, overlay=variant)
        if bundle.role in ("expert", "refiner"):
            _run(bundle)


def _run(bundle: Bundle) -> None:
    """Images of zeros must come back finite and in their shape, see :meth:`Bundle.restore`; in bfloat16, too, where the
    metadata allow it."""
    import torch

    channels = 1 if bundle.modality is None else bundle.modality.profile.channels
    reduced = "bfloat16" if bundle.metadata["sasm"].get("bfloat16") else "float32"
    for size, precision in zip(SIZES, ("float32", reduced), strict=True):
        image = torch.zeros(1, channels, *size)
        replace(bundle, precision=precision).restore(image, torch.full_like(image[:, :1], 0.05))
