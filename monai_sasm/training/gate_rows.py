"""Some rows of the gate's last layer are fitted anew; other faults are judged as before, to the last bit.

With the features ``x`` of a block, the identity's row ``w_0`` and the rows ``w_k`` of the faults of one modality, the
rows minimise the cross-entropy

    - sum_i c_i sum_k t_ik log softmax(w x_i + b)_ik + decay . |w - w_start|^2,   c_i = 1 + (clean_weight - 1) t_i0

over blocks ``i`` with target shares ``t``. A convex problem of a few hundred unknowns, which L-BFGS solves in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from monai_sasm.errors import RefusedError
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.io.commit import replacing
from monai_sasm.training.gate_bank import GateBank, Source
from monai_sasm.training.gate_head import collect
from monai_sasm.training.logistic import minimise
from monai_sasm.types import ImageBatch, NoiseMap


class RowFit:
    """Fits the rows of the faults of one modality.

    Args:
        gate: the trained network; changed in place.
        faults: classes whose rows are fitted; all those that the examples can have.
        sources: where examples come from, of one modality.
        counts: how many from each source.
        noise_estimator: image -> noise map, as used at run time.
        path: file of the state dict, written as float16.
        clean_weight: how much more a block without a fault counts; above 1 the gate does less, and less harm.
        decay: L2 penalty towards the old rows.
        blocks: blocks per example, drawn at random.
        steps: most iterations.
        seed: seed of the examples.
        overwrite: replace ``path`` where it exists.

    Raises:
        RefusedError: it exists.
    """

    def __init__(
        self,
        gate: SpatialGate,
        faults: Sequence[str],
        sources: Sequence[Source],
        counts: Sequence[int],
        noise_estimator: Callable[[ImageBatch], NoiseMap],
        path: str | Path,
        clean_weight: float = 1.0,
        decay: float = 1e-4,
        blocks: int = 60,
        steps: int = 150,
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        if not overwrite and Path(path).exists():
            raise RefusedError(
                f"{path} holds weights already: choose another output_dir, or replace them (overwrite=True)"
            )
        unknown = sorted(set(faults) - set(gate.classes[1:]))
        if unknown or not faults:
            raise ValueError(
                f"faults must be some of the gate's {gate.classes[1:]}, got {', '.join(unknown) or 'none'}"
            )
        self.gate, self.faults, self.path = gate, tuple(faults), Path(path)
        self.sources, self.counts, self.noise_estimator = sources, counts, noise_estimator
        self.clean_weight, self.decay, self.blocks, self.steps, self.seed = clean_weight, decay, blocks, steps, seed

    def run(self) -> None:
        """Draw the examples, fit, and write the gate's weights."""
        self.gate.cpu().float().eval()
        with torch.inference_mode():
            bank = GateBank(
                self.sources,
                self.counts,
                self.gate.classes,
                {},
                self.noise_estimator,
                seed=self.seed,
                augment=False,
            )
            examples = collect(self.gate, bank, self.blocks * len(bank), seed=self.seed)
        rows = [self.gate.classes.index(name) for name in self.faults]
        head = self.gate.head
        assert head.bias is not None
        weight, bias = head.weight.detach().flatten(1), head.bias.detach()
        fitted, offset = fit_rows(
            {key: value.clone() for key, value in examples.items()},
            weight,
            bias,
            rows=rows,
            clean_weight=self.clean_weight,
            decay=self.decay,
            steps=self.steps,
        )
        with torch.no_grad():
            head.weight[rows] = fitted[rows].view_as(head.weight[rows])
            head.bias[rows] = offset[rows]
        state = self.gate.state_dict()
        with replacing(self.path) as file:
            torch.save(
                {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, file
            )


def fit_rows(
    examples: dict[str, Tensor],
    weight: Tensor,
    bias: Tensor,
    *,
    rows: Sequence[int],
    clean_weight: float = 1.0,
    decay: float = 1e-4,
    steps: int = 150,
) -> tuple[Tensor, Tensor]:
    """The formula of this module.

    Args:
        examples: ``features`` (n, F) and ``target`` (n, E), see :func:`monai_sasm.training.gate_head.collect`.
        weight: ``(E, F)`` start.
        bias: ``(E,)`` start.
        rows: which are fitted, not 0.
        clean_weight, decay, steps: see :class:`RowFit`.

    Returns:
        New weight and bias; rows that are not fitted are those of the start.
    """
    features, columns = examples["features"].float(), [0, *rows]
    target = examples["target"].float()[:, columns]
    target = target / target.sum(1, keepdim=True).clamp_min(1e-6)
    counts = 1 + (clean_weight - 1) * target[:, 0]
    identity = features @ weight[:1].T + bias[:1]
    chosen = list(rows)
    fitted, offset = minimise(
        lambda some, free: torch.cat([identity, features @ some.T + free], 1),
        target,
        weight[chosen].detach(),
        bias[chosen].detach(),
        decay=decay,
        counts=counts,
        steps=steps,
        history_size=20,
    )
    weight, bias = weight.detach().clone(), bias.detach().clone()
    weight[chosen], bias[chosen] = fitted, offset
    return weight, bias
