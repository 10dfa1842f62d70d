"""Mixing weights of two experts for tests."""

from __future__ import annotations

import torch


def maps(*shares: float) -> torch.Tensor:
    """Weights ``(1, 3, 10, 10)``: two experts, each alone on its share of the image, the identity on the rest."""
    weights = torch.zeros(1, 3, 100)
    start = 0
    for index, share in enumerate(shares, start=1):
        end = start + round(100 * share)
        weights[:, index, start:end] = 1
        start = end
    weights[:, 0, start:] = 1
    return weights.view(1, 3, 10, 10)
