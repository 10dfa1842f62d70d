"""DiT: identity at the start, any size, patches put back in their places, positions and times that matter."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.experts.dit import PRESETS, DiT, sinusoid


def small(**options: object) -> DiT:
    """A tiny DiT whose zeroed layers have been filled, so that every input can show in the output."""
    torch.manual_seed(0)
    network = DiT(**{"in_channels": 2, "out_channels": 1, "patch": 4, "depth": 2, "width": 24, "heads": 2, **options})
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_a_fresh_network_predicts_nothing() -> None:
    fresh = DiT(2, 1, preset="T", patch=4)
    assert not fresh(torch.rand(2, 2, 16, 20), timesteps=torch.tensor([0, 999])).any()


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (13, 30)], ids=str)
def test_any_size_comes_back(size: tuple[int, int]) -> None:
    assert small()(torch.rand(2, 2, *size), timesteps=torch.tensor([1, 2])).shape == (2, 1, *size)


def test_three_dimensions() -> None:
    network = small(spatial_dims=3, patch=2)
    assert network(torch.rand(1, 2, 5, 6, 7), timesteps=torch.tensor([1])).shape == (1, 1, 5, 6, 7)


@pytest.mark.parametrize("dims", [2, 3])
def test_patches_go_back_to_their_places(dims: int) -> None:
    network = small(spatial_dims=dims, patch=2, out_channels=3)
    image = torch.rand(2, 3, *[4, 6, 8][:dims])
    cut = image
    for axis in range(dims):
        cut = cut.unfold(2 + axis, 2, 2)  # (B, C, *grid, *patch)
    grid = cut.shape[2 : 2 + dims]
    tokens = cut.permute(0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims)).reshape(2, -1, 3 * 2**dims)
    torch.testing.assert_close(network._assemble(tokens, grid), image, rtol=0, atol=0)


def test_time_label_and_position_matter() -> None:
    network = small(num_class_embeds=3)
    image = torch.full((1, 2, 8, 8), 0.5)
    early, late = (network(image, timesteps=torch.tensor([t])) for t in (1, 900))
    assert not torch.allclose(early, late)
    first, second = (network(image, timesteps=torch.tensor([1]), class_labels=torch.tensor([c])) for c in (0, 2))
    assert not torch.allclose(first, second)
    assert early.unfold(2, 4, 4).unfold(3, 4, 4).std((2, 3)).max() > 1e-4, "equal patches differ by their position"


def test_every_patch_sees_every_other() -> None:
    network = small()
    image = torch.rand(1, 2, 16, 16, requires_grad=True)
    network(image, timesteps=torch.tensor([5]))[0, 0, 0, 0].backward()
    assert (image.grad.abs().amax((0, 1)) > 0).all()


def test_presets_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in DiT(4, 4, preset=name).parameters()) / 1e6 for name in ("S", "B")}
    assert counts["S"] == pytest.approx(33, rel=0.05)  # table 4 of the paper
    assert counts["B"] == pytest.approx(130, rel=0.05)
    assert set(PRESETS) >= {"XL", "L", "B", "S"}


def test_sinusoid_is_the_textbook_one() -> None:
    table = sinusoid(torch.tensor([3.0]), 4)
    torch.testing.assert_close(
        table,
        torch.tensor([[3.0, 0.03]]).repeat(1, 2).cos() * torch.tensor([1, 1, 0, 0])
        + (torch.tensor([[3.0, 0.03]]).repeat(1, 2).sin() * torch.tensor([0, 0, 1, 1])),
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [({"preset": "Z"}, "preset must be one of"), ({"width": 25}, "multiple"), ({"spatial_dims": 1}, "2 or 3")],
)
def test_wrong_sizes_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiT(1, 1, **options)
