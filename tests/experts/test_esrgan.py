"""RRDBNet: size of the paper's network, residual start, corrections of the right shape."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.experts.esrgan import RRDBNet


def test_body_has_the_size_of_the_papers() -> None:
    body = RRDBNet(image_channels=3).body
    heads_of_the_paper = 1792 + 4 * 36928 + 1731  # first, trunk, two upsampling, high-resolution and last convolution
    assert sum(p.numel() for p in body.parameters()) == 16_697_987 - heads_of_the_paper


def test_zero_init_is_the_identity() -> None:
    image = torch.rand(2, 1, 21, 34)
    assert torch.equal(RRDBNet(features=8, blocks=2, growth=4, zero_init=True)(image), image)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 20)], ids=str)
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_any_size_comes_back(size: tuple[int, int], patch: int) -> None:
    network = RRDBNet(image_channels=3, features=8, blocks=1, growth=4, patch=patch)
    assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_it_can_learn() -> None:
    torch.manual_seed(0)
    network = RRDBNet(features=8, blocks=1, growth=4)
    clean = torch.rand(4, 1, 16, 16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    errors = []
    for _ in range(40):
        error = (network(clean + 0.3) - clean).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.1 * errors[0]


def test_empty_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RRDBNet(blocks=0)
