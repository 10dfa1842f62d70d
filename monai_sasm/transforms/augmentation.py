"""Augmentation of small labelled photos: mirrored and moved by a few pixels, a batch at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monai_sasm.types import ImageBatch


def flip_and_shift(images: ImageBatch, shift: int, generator: torch.Generator) -> ImageBatch:
    """Mirror half of the images left to right and move each by up to ``shift`` pixels, reflecting at the border.

    Args:
        images: ``(B, C, H, W)``, any range.
        shift: largest displacement in pixels, along rows and columns; 0 only mirrors.
        generator: source of the draws.
    """
    if not 0 <= shift < min(images.shape[-2:]):
        raise ValueError(f"shift must be at least 0 and less than the image's sides, got {shift}")
    batch, _, height, width = images.shape
    flip = torch.rand(batch, generator=generator) < 0.5
    mirrored = torch.where(flip.view(-1, 1, 1, 1).to(images.device), images.flip(-1), images)
    padded = F.pad(mirrored, [shift] * 4, mode="reflect") if shift else mirrored
    top, left = torch.randint(2 * shift + 1, (2, batch), generator=generator)
    rows = (top[:, None] + torch.arange(height)).to(images.device)  # (B, H)
    columns = (left[:, None] + torch.arange(width)).to(images.device)
    index = torch.arange(batch, device=images.device)
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
