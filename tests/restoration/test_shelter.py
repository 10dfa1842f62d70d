"""Padding, constant background and values out of range: not shown to networks, and given back to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_sasm.bundles import Bundle
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.shelter import constant_regions, neighbours_for_experts, sheltered
from monai_sasm.types import Modality

CT, MR = Modality.CT.profile, Modality.MR.profile


def body(size: int = 48, seed: int = 0) -> Tensor:
    """Noisy soft tissue in HU, ``(1, 1, size, size)``."""
    return torch.from_numpy(np.random.default_rng(seed).normal(40, 20, (1, 1, size, size)).astype(np.float32))


def outside(size: int = 48) -> Tensor:
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    return torch.from_numpy(np.hypot(row, column) > size / 2 - 1)[None, None]


class Spy(torch.nn.Module):
    """Adds the same everywhere, and keeps what it was shown."""

    def __init__(self, change: float) -> None:
        super().__init__()
        self.change, self.shown = change, list[Tensor]()

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image.clone())
        return image + self.change


def seen_by_expert(image: Tensor, change: float = 0.1) -> tuple[Tensor, Tensor]:
    """What an expert is shown, and what comes back where it adds ``change``; both in HU."""
    spy = Spy(change)
    bundle = Bundle("spy", Path("nowhere"), "expert", Modality.CT, "noise", False, "1", "0", spy, {"sasm": {}})
    restorer = Restorer.of({"spy": bundle})
    volume = Volume(image[0].numpy().copy(), Modality.CT, affine=np.eye(4))
    done = restorer(volume, Options(expert="spy")).volume.array
    return 1000 * spy.shown[0], torch.from_numpy(done)[None]


@pytest.mark.parametrize("padding", [-2000.0, -1500.0, -3024.0, -32768.0, 0.0, 1064.0])
def test_padding_never_reaches_a_network_and_comes_back_exactly(padding: float) -> None:
    image = body()
    padded = image.masked_fill(outside(), padding)
    shown, result = seen_by_expert(padded)
    assert -100 < float(shown.min()) < float(shown.max()) < 200, "padding is continued from the tissue beside it"
    assert torch.equal(result[outside()], padded[outside()])
    torch.testing.assert_close(result[~outside()], image[~outside()] + 100, atol=0.01, rtol=0)


def test_values_out_of_range_pass_through_and_what_is_beside_metal_changes_little() -> None:
    image = body()
    image[..., 20:23, 20:23] = torch.tensor([[12000.0, 3072, 8000], [20000, 30000, 5000], [4000, 6000, 7000]])
    image[..., 2, 3] = -1200.0
    shown, result = seen_by_expert(image)
    assert float(shown.max()) == pytest.approx(3071)
    assert float(shown.min()) == pytest.approx(-1024)
    strange = (image > 3071) | (image < -1024)
    assert int(strange.sum()) == 10
    assert torch.equal(result[strange], image[strange])
    beside = torch.zeros_like(strange)
    beside[..., 12:31, 12:31] = True
    change = (result - image)[~strange & beside]
    assert float(change.abs().max()) == pytest.approx(50, abs=0.01)
    assert float((result - image)[~strange & ~beside].mean()) == pytest.approx(100, abs=0.01)


def test_zero_background_stays_exactly_zero_also_single_pixels_of_it() -> None:
    image = body().abs() / 100 + 0.1
    image[outside()] = 0
    image[..., 24, 24] = 0
    result = sheltered(image, MR).result(image + 0.5)
    assert torch.equal(result == 0, image == 0)
    assert torch.equal(result[image > 0], image[image > 0] + 0.5)
    noise = body().abs().round() % 3  # zeros by chance only
    assert float(sheltered(noise, MR).kept.float().mean()) == 0


def test_a_constant_slice_is_the_identity() -> None:
    for profile in (CT, MR):
        for value in (0.0, -1.0, 0.7):
            image = torch.full((2, 1, 20, 30), value)
            assert torch.equal(sheltered(image, profile).result(image + 1), image)


def test_constant_regions_are_squares_and_what_is_next_to_them() -> None:
    image = body(30)
    image[..., 10:15, 8:13] = 7
    image[..., 15, 8] = 7  # a corner of it
    image[..., 25:28, 20:29] = 7  # a bar too narrow
    kept = constant_regions(image)
    expected = torch.zeros_like(kept)
    expected[..., 10:15, 8:13] = True
    expected[..., 15, 8] = True
    assert torch.equal(kept, expected)
    assert not constant_regions(body(4)).any()


def test_noise_clipped_at_the_lower_end_is_no_background() -> None:
    air = (body(256) - 1064).clamp_min(-1024) / 1000  # about half of it clipped
    assert 0.3 < float((air == air.min()).float().mean()) < 0.7
    assert float(sheltered(air, CT).kept.float().mean()) < 0.01


def test_neighbours_are_shown_like_the_slice_itself() -> None:
    slab = torch.cat([body(seed=seed) for seed in range(3)], 1) / 1000
    slab[outside().expand_as(slab)] = -2.0
    shown = neighbours_for_experts(slab, Modality.CT)
    assert shown.shape == slab.shape
    assert float(shown.min()) > -0.1
    assert torch.equal(shown[~outside().expand_as(slab)], slab[~outside().expand_as(slab)])


def test_what_lies_inside_is_untouched_by_the_shelter() -> None:
    image = body() / 1000
    shelter = sheltered(image, CT)
    assert torch.equal(shelter.seen, image)
    assert torch.equal(shelter.for_experts(image), image)
    assert not shelter.kept.any()
    assert shelter.near is None
