"""Weights of a narrow convolutional network for a wider one that gives the same at first."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def widened(state: Mapping[str, Tensor], own: Mapping[str, Tensor], transposed: str) -> dict[str, Tensor]:
    """``state`` with the channels that it lacks.

    A weight of ``own`` with more outputs or inputs than in ``state`` keeps its values for further outputs; further
    inputs of the outputs that there were begin at zero. So the new channels have something to say, and change nothing
    before training lets them (after Net2Net, Chen et al. 2016, whose new channels are copies).

    Args:
        state: name -> weight ``(out, in, ...)`` or bias ``(out,)``.
        own: the same of the wider network.
        transposed: names begin so whose weights are ``(in, out, ...)``, as those of transposed convolutions are.

    Returns:
        ``state``, where a name is in both and has at most as many channels in ``state``; the rest as it came, for
        ``load_state_dict`` to refuse.
    """
    return {name: _wide(weight, own.get(name), name.startswith(transposed)) for name, weight in state.items()}


def _wide(narrow: Tensor, own: Tensor | None, transposed: bool) -> Tensor:
    if own is None or own.shape == narrow.shape or own.ndim != narrow.ndim or own.shape[2:] != narrow.shape[2:]:
        return narrow
    if any(few > many for few, many in zip(narrow.shape[:2], own.shape[:2], strict=True)):
        return narrow
    wide = own.detach().to(narrow.device, narrow.dtype, copy=True)
    if narrow.ndim == 1:
        wide[: len(narrow)] = narrow
        return wide
    first, second = narrow.shape[:2]
    if transposed:
        wide[first:, :second] = 0
    else:
        wide[:first, second:] = 0
    wide[:first, :second] = narrow
    return wide
