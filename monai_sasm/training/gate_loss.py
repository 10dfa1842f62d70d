"""What a good gate is: right about the faults, and right about what mixing makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.gate.mobilenet import SpatialGate


class GateLoss(nn.Module):
    r"""Cross-entropy against the fault masks + load balance + error of the mixed image.

    .. math::
        L = CE(w, m) + \lambda_b \sum_k (\bar w_k - \bar m_k)^2 + \lambda_x \| x + \sum_k w_k (E_k(x) - x) - y \|_1

    The soft masks (shares of a block) make the gate unsure where a block is only partly degraded; the mixing term then
    settles how to be unsure, since it is smallest for the weights whose blend is nearest to the clean image. Experts
    are frozen: training them together with the gate is unstable (UniRestorer, arXiv:2412.20157).

    Args:
        balance: weight of the load balance, which keeps a rare class from being forgotten.
        mixing: weight of the error of the mixed image (working scale).
    """

    def __init__(self, balance: float = 0.01, mixing: float = 10.0) -> None:
        super().__init__()
        self.balance, self.mixing = balance, mixing

    def forward(self, logits: Tensor, example: Mapping[str, Tensor]) -> Tensor:
        """``logits`` ``(B, E, h, w)``; ``example`` as given by :class:`monai_sasm.training.gate_bank.GateBank`."""
        masked = forbid(logits, example["allowed"])
        target = example["target"]
        weights = torch.softmax(masked, 1)
        balance = (weights.mean((0, 2, 3)) - target.mean((0, 2, 3))).square().sum()
        full = F.interpolate(weights, size=example["error"].shape[-2:], mode="bilinear", align_corners=False)
        remaining = example["error"] + torch.einsum("behw,bechw->bchw", full, example["corrections"])
        return cross_entropy(masked, target) + self.balance * balance + self.mixing * remaining.abs().mean()


def forbid(logits: Tensor, allowed: Tensor) -> Tensor:
    """``logits`` ``(B, E, h, w)`` with the classes that ``allowed`` ``(B, E)`` leaves out pushed to weight zero."""
    return logits.masked_fill(~allowed[:, :, None, None], -1e4)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over blocks, in nats; both ``(B, E, h, w)``, the target a share of each class."""
    return -(target * torch.log_softmax(logits, 1)).sum(1).mean()


class PrepareGate:
    """``prepare_batch`` of the gate: its input, the noise map beside it, and the rest of the example as the target."""

    def __call__(
        self,
        batch: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor], dict[str, Any]]:
        moved = {key: value.to(device, non_blocking=non_blocking) for key, value in batch.items()}
        return moved["display"], moved, (moved["sigma"],), {}


def parameter_groups(gate: SpatialGate, lr: float, trunk_factor: float = 0.1) -> list[dict[str, Any]]:
    """Optimizer groups: the pretrained trunk learns ``trunk_factor`` times as fast as the new layers."""
    trunk = {id(parameter) for parameter in gate.trunk.parameters()}
    fresh = [parameter for parameter in gate.parameters() if id(parameter) not in trunk]
    return [{"params": list(gate.trunk.parameters()), "lr": lr * trunk_factor}, {"params": fresh, "lr": lr}]
