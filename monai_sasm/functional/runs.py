"""Runs of true values along an axis: what squares of one value are found by."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def in_squares(across: Tensor, down: Tensor, side: int) -> Tensor:
    """``(..., H, W)`` bool: pixels in squares of one value.

    Args:
        across: ``(..., H, W - 1)`` bool: each pixel equals the next one of its row.
        down: ``(..., H - 1, W)`` bool: and of its column.
        side: of the squares, pixels; no more than ``H`` and ``W``.
    """
    rows, first_column = all_in_runs(across, side - 1, -1), all_in_runs(down, side - 1, -2)
    corners = all_in_runs(rows, side, -2) & first_column[..., : rows.shape[-1]]
    around = F.pad(corners, [side - 1] * 4)
    return ~all_in_runs(all_in_runs(~around, side, -1), side, -2)


def all_in_runs(true: Tensor, count: int, axis: int) -> Tensor:
    """Whether ``count`` neighbours along an axis are all true, from each on; shorter by ``count - 1``."""
    covered = 1
    while covered < count:
        step = min(covered, count - covered)
        length = true.shape[axis] - step
        true = true.narrow(axis, 0, length) & true.narrow(axis, step, length)
        covered += step
    return true
