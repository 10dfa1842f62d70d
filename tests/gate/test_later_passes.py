"""What later passes may do: nothing twice, and nothing new that shows on little of the image."""

from __future__ import annotations

import torch

from monai_sasm.gate.later_passes import EarlierPasses
from monai_sasm.gate.pixel_weights import PixelWeights
from tests.weight_maps import maps


def passed(*passes: torch.Tensor) -> list[torch.Tensor]:
    """With which weights each of the passes acts."""
    earlier = EarlierPasses()
    return [earlier.allow(PixelWeights.of(weights)).whole() for weights in passes]


def test_the_first_pass_does_what_the_gate_says() -> None:
    weights = torch.rand(2, 3, 10, 10).softmax(1)
    assert torch.equal(passed(weights)[0], weights)


def test_a_new_fault_has_to_show_on_much_of_the_image() -> None:
    noise = maps(1.0, 0.0)
    assert torch.equal(passed(noise, maps(0.0, 0.6))[1], maps(0.0, 0.6))
    held_back = passed(noise, maps(0.0, 0.3))[1]
    assert not held_back[:, 1:].any()
    torch.testing.assert_close(held_back.sum(1), torch.ones(1, 10, 10))


def test_a_fault_that_was_seen_elsewhere_acts_wherever_it_shows_later() -> None:
    both = maps(0.9, 0.1)  # noise on nine rows, drops on the last
    later = passed(both, maps(0.0, 0.3))[1]  # drops on the first three rows, now that the noise is gone
    assert torch.equal(later[:, 2], maps(0.0, 0.3)[:, 2])


def test_nothing_is_repaired_twice() -> None:
    drops = 0.75 * maps(0.0, 0.4) + 0.25 * maps(0.0, 0.0)
    second, third = passed(drops, maps(0.0, 0.8), maps(0.0, 1.0))[1:]
    torch.testing.assert_close(second[0, 2, :, 0], torch.tensor([0.25] * 4 + [1.0] * 4 + [0.0] * 2))
    torch.testing.assert_close(third[0, 2, :, 0], torch.tensor([0.0] * 8 + [1.0] * 2))
    for acted in (second, third):
        torch.testing.assert_close(acted.sum(1), torch.ones(1, 10, 10))


def test_each_image_of_a_batch_is_judged_by_itself() -> None:
    noise = maps(0.0, 0.0)
    batch = torch.cat([maps(0.0, 0.6), maps(0.0, 0.1)])
    later = passed(torch.cat([noise, noise]), batch)[1]
    assert torch.equal(later[0], batch[0])
    assert torch.equal(later[1], noise[0])


def test_parts_are_those_of_the_whole() -> None:
    random = torch.Generator().manual_seed(0)
    first, second = (torch.rand(1, 3, 10, 10, generator=random).softmax(1) for _ in range(2))
    earlier = EarlierPasses()
    earlier.allow(PixelWeights.of(first))
    allowed = earlier.allow(PixelWeights.of(second))
    assert torch.equal(allowed.part((slice(2, 5), slice(3, 9))), allowed.whole()[..., 2:5, 3:9])
