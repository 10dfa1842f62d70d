"""The gate's loss falls towards the truth, ignores forbidden classes, and settles doubt by the mixed image."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.training.gate_loss import GateLoss, PrepareGate, cross_entropy, forbid, parameter_groups
from monai_sasm.training.gate_scores import by_block, by_image


def example(corrections: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> dict[str, torch.Tensor]:
    """One image of 2 x 2 blocks whose truth is class 1; class 2 is forbidden. Everything is 0.1 too bright."""
    target = torch.zeros(1, 3, 2, 2)
    target[:, 1] = 1
    return {
        "target": target,
        "allowed": torch.tensor([[True, True, False]]),
        "error": torch.full((1, 3, 16, 16), 0.1),
        "corrections": torch.tensor(corrections).view(1, 3, 1, 1, 1).expand(1, 3, 3, 16, 16).clone(),
    }


def logits(second: float, third: float = 0.0) -> torch.Tensor:
    """Scores 0, ``second`` and ``third`` in every block."""
    return torch.tensor([0.0, second, third]).view(1, 3, 1, 1).expand(1, 3, 2, 2).clone().requires_grad_()


def test_loss_falls_towards_the_truth() -> None:
    losses = [GateLoss()(logits(value), example()).item() for value in (-2.0, 0.0, 2.0, 4.0)]
    assert losses == sorted(losses, reverse=True)


def test_value_by_hand() -> None:
    loss = GateLoss(balance=0.5, mixing=2.0)(logits(0.0), example(corrections=(0.0, -0.1, 0.0)))
    # weights 1/2, 1/2: -log(1/2), 0.5 * (0.25 + 0.25), 2 * |0.1 - 0.05|
    assert float(loss) == pytest.approx(0.6931 + 0.25 + 0.1, abs=1e-3)


def test_a_forbidden_class_has_no_effect() -> None:
    low, high = logits(1.0, -3.0), logits(1.0, 9.0)
    losses = [GateLoss()(scores, example(corrections=(0.0, 0.0, 5.0))) for scores in (low, high)]
    assert torch.equal(*losses)
    losses[1].backward()
    assert not high.grad[:, 2].any()
    assert high.grad[:, 1].all()


def test_the_mixed_image_settles_doubt() -> None:
    doubt = example(corrections=(0.0, -0.1, 0.0))
    doubt["target"][:, :2] = 0.5
    useful = logits(0.0)
    GateLoss()(useful, doubt).backward()
    assert float(useful.grad[:, 1].max()) < 0, "the expert's correction is right: more of it"
    harmful = logits(0.0)
    GateLoss()(harmful, doubt | {"corrections": -doubt["corrections"]}).backward()
    assert float(harmful.grad[:, 1].min()) > 0


def test_cross_entropy_is_in_nats() -> None:
    masked = forbid(logits(0.0), example()["allowed"])
    assert float(cross_entropy(masked, example()["target"])) == pytest.approx(0.6931, abs=1e-4)


def test_scores_leave_out_forbidden_classes() -> None:
    output = {"pred": logits(1.0, 9.0).detach(), "label": example()}
    predicted, truth = by_image(output)
    assert predicted.argmax(1).tolist() == truth.tolist() == [1]
    assert float(predicted[0, 2]) == 0
    assert by_block(output)[0][0, 2].max() < -1e3


def test_batches_bring_their_noise_map() -> None:
    batch = {"display": torch.rand(2, 3, 8, 8), "sigma": torch.rand(2, 1, 8, 8), "target": torch.rand(2, 3, 1, 1)}
    image, truth, arguments, keywords = PrepareGate()(batch, "cpu")
    assert image is batch["display"]
    assert truth.keys() == batch.keys()
    assert arguments == (batch["sigma"],)
    assert keywords == {}


def test_the_trunk_learns_slower() -> None:
    gate = SpatialGate(["clean", "a"], width=8)
    trunk, fresh = parameter_groups(gate, lr=0.1, trunk_factor=0.1)
    assert trunk["lr"] == pytest.approx(0.01)
    assert fresh["lr"] == 0.1
    assert len(trunk["params"]) + len(fresh["params"]) == len(list(gate.parameters()))
    assert any(parameter is gate.head.weight for parameter in fresh["params"])
