"""Logistic regression of soft targets by L-BFGS, drawn towards the weights it starts from: a convex problem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def minimise(
    logits: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    start: Tensor,
    offset: Tensor,
    *,
    decay: float,
    counts: Tensor | None = None,
    steps: int,
    history_size: int = 100,
) -> tuple[Tensor, Tensor]:
    """The least ``-mean(c sum_k t_k log softmax(logits(w, b))_k) + decay |w - start|^2`` over weights w and offsets b.

    Args:
        logits: weights and offsets -> ``(n, E)``.
        target: shares ``t``, ``(n, E)``.
        start: weights to begin with, and those that the penalty draws to.
        offset: offsets to begin with.
        decay: strength of the penalty; offsets are free.
        counts: ``c``, ``(n,)``, how much each row counts; all alike if left out.
        steps: most iterations.
        history_size: of L-BFGS.

    Returns:
        Weights and offsets, shapes of ``start`` and ``offset``.
    """
    weight, bias = start.clone().requires_grad_(), offset.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, history_size=history_size, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        likelihood = (target * logits(weight, bias).log_softmax(1)).sum(1)
        likelihood = likelihood if counts is None else counts * likelihood
        value = -likelihood.mean() + decay * (weight - start).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()
