"""Runs of true values along an axis: what squares of one value are found by."""

from __future__ import annotations

from torch import Tensor


def all_in_runs(true: Tensor, count: int, axis: int) -> Tensor:
    """Whether ``count`` neighbours along an axis are all true, from each on; shorter by ``count - 1``."""
    covered = 1
    while covered < count:
        step = min(covered, count - covered)
        length = true.shape[axis] - step
        true = true.narrow(axis, 0, length) & true.narrow(axis, step, length)
        covered += step
    return true
