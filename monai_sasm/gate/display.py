"""What the gate looks at: CT, MR and photos brought to three channels in [0, 1], as an ImageNet trunk expects."""

from __future__ import annotations

from monai_sasm.types import ImageBatch, Modality, NoiseMap


def to_display(image: ImageBatch, sigma: NoiseMap, modality: Modality) -> tuple[ImageBatch, NoiseMap]:
    """Window ``image`` ``(B, C, H, W)`` (working scale) to ``(B, 3, H, W)`` in [0, 1], and its noise map likewise.

    Args:
        image: working scale of ``modality``; ``C`` is 1 or 3.
        sigma: noise map ``(B, 1, H, W)``, working scale.
        modality: decides the window.
    """
    low, high = modality.profile.window
    shown = ((image - low) / (high - low)).clamp(0, 1)
    return shown.expand(-1, 3, -1, -1) if shown.shape[1] == 1 else shown, sigma / (high - low)
