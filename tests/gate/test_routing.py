"""Weights are a partition of unity, whatever the options."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.gate.routing import route


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.1},
        {"top_k": 1},
        {"top_k": 2, "floor": 0.2},
        {"floor": 0.5},
        {"allowed": torch.tensor([True, False, True, False, False])},
        {"allowed": torch.zeros(5, dtype=torch.bool)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(48, 56), (45, 51), (6, 7), (1, 1)])
def test_weights_are_a_partition_of_unity(logits: torch.Tensor, options: dict, size: tuple[int, int]) -> None:
    weights = route(logits, size, **options)
    assert weights.shape == (2, 5, *size)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(2, *size))


@pytest.mark.parametrize("size", [(41, 321), (40, 320), (33, 7)])
def test_a_weight_lies_in_the_middle_of_its_block(size: tuple[int, int]) -> None:
    blocks = tuple(-(-side // 8) for side in size)
    logits = torch.zeros(1, 2, *blocks)
    logits[:, 1] = torch.linspace(-2, 2, blocks[1])  # rises along the blocks of a row
    weights = route(logits, size)[0, 1]
    for block, expected in enumerate(torch.softmax(logits, 1)[0, 1, 0][: size[1] // 8]):
        middle = weights[0, 8 * block + 3 : 8 * block + 5].mean()
        assert float(middle) == pytest.approx(float(expected), abs=1e-3)


def test_low_temperature_gives_the_winner(logits: torch.Tensor) -> None:
    weights = route(logits, (6, 7), temperature=1e-3)
    assert torch.equal(weights.argmax(1), logits.argmax(1))
    assert float(weights.max(1).values.min()) > 0.9


def test_a_forbidden_class_gets_exactly_nothing(logits: torch.Tensor) -> None:
    allowed = torch.tensor([False, True, False, True, True])
    weights = route(logits, (12, 14), allowed=allowed)
    assert float(weights[:, 2].abs().max()) == 0
    assert float(weights[:, 0].min()) > 0, "the identity is always allowed"


def test_top_k_leaves_the_rest_to_the_identity(logits: torch.Tensor) -> None:
    plain, one = route(logits, (6, 7)), route(logits, (6, 7), top_k=1)
    acting = (one[:, 1:].amax((2, 3)) > 0).sum(1)
    assert acting.tolist() == [1, 1]
    best = plain[:, 1:].mean((2, 3)).argmax(1)
    for image, index in enumerate(best):
        torch.testing.assert_close(one[image, 1 + index], plain[image, 1 + index])


def test_the_floor_is_continuous() -> None:
    """A weight just above the floor acts just a little: no edge in the picture."""
    scores = torch.tensor([0.0, 0.0]).view(1, 2, 1, 1)
    below = route(torch.tensor([0.0, -2.95]).view(1, 2, 1, 1), (1, 1), floor=0.05)  # weight 0.0497
    above = route(torch.tensor([0.0, -2.90]).view(1, 2, 1, 1), (1, 1), floor=0.05)  # weight 0.0522
    assert float(below[0, 1]) == 0
    assert 0 < float(above[0, 1]) < 0.01
    assert float(route(scores, (1, 1), floor=0.05)[0, 1]) == pytest.approx((0.5 - 0.05) / 0.95)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"top_k": -1}, "cannot be negative, got -1"),
        ({"floor": 1.0}, r"floor must be in \[0, 1\), got 1.0"),
        ({"allowed": torch.ones(3, dtype=torch.bool)}, r"one entry per class \(5\), got \(3,\)"),
    ],
)
def test_bad_options_are_explained(logits: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        route(logits, (6, 7), **options)
