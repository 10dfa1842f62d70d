"""The mean of the weights of several trainings of one network (Wortsman et al. 2022, Model soups), for trainings that
began at the same weights: between others there is no valley.

scripts/mean_weights.py A/model.pt B/model.pt --shares 0.65 0.35 -o model.pt
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

State = dict[str, Tensor]


def mean(states: Sequence[State], shares: Sequence[float]) -> State:
    """Weighted mean of state dicts, summed in float64, in the types of the first; what is no number with a fraction,
    such as a count of batches, is that of the first.

    Raises:
        ValueError: not one share for each, they do not add up to 1, or names or shapes differ.
    """
    if len(states) != len(shares) or not math.isclose(sum(shares), 1):
        raise ValueError(f"give one share for each of {len(states)} files, together 1, got {list(shares)}")
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(one != shapes[0] for one in shapes):
        raise ValueError("the files hold weights of different networks")
    given = list(zip(shares, states, strict=True))
    return {
        name: torch.stack([share * state[name].double() for share, state in given]).sum(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", help="model.pt of a training")
    parser.add_argument("--shares", type=float, nargs="+", help="of each in the mean; equal ones, if left out")
    parser.add_argument("-o", "--output", type=Path, required=True, help="new file")
    given = parser.parse_args()
    if given.output.exists():
        parser.error(f"{given.output} exists")
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in given.weights]
    torch.save(mean(states, given.shares or [1 / len(states)] * len(states)), given.output)
