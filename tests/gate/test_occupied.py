"""What is empty gets no expert, to the last bit; what is not empty is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.gate.occupied import FLAT, FLAT_PICTURE, confine, occupied
from monai_sasm.types import Modality

SIZE = 256


def body(noise: float = 0.03, radius: float = 70, lungs: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """CT of a disc with two lungs in noisy air ``(1, 1, 256, 256)``, working scale, and distance from its skin."""
    draw = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.arange(SIZE) - SIZE / 2] * 2, indexing="ij")
    depth = radius - torch.hypot(x, y)
    image = torch.where(depth > 0, 0.04, -1.0)
    if lungs:
        for side in (-30, 30):
            image[torch.hypot(x - side, y) < 22] = -0.85
    noisy = image + noise * torch.randn(image.shape, generator=draw)
    return noisy.clamp(min=-1.024)[None, None], depth


@pytest.mark.parametrize("noise", [0.01, 0.04, 0.08])
def test_air_around_a_body_is_empty_and_lungs_are_not(noise: float) -> None:
    image, depth = body(noise)
    seen = occupied(image, Modality.CT)[0, 0]
    assert float(seen[depth > 0].min()) == 1
    assert float(seen[depth < -SIZE / 16].max()) == 0
    step = max(float((seen[1:] - seen[:-1]).abs().max()), float((seen[:, 1:] - seen[:, :-1]).abs().max()))
    assert step <= 0.34  # it fades out


def test_a_lung_that_fills_the_image_is_no_air() -> None:
    """A targeted reconstruction shows no skin."""
    lung = -0.85 + 0.05 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    assert float(occupied(lung, Modality.CT).min()) == 1


def test_air_is_found_around_corners_and_not_behind_walls() -> None:
    image = torch.full((1, 1, 128, 128), -1.0) + 1e-3 * torch.rand(1, 1, 128, 128)
    image[..., 40:44, 20:120] = 0.5  # a table, open on the left, with a wall below it
    image[..., 40:100, 116:120] = 0.5
    image[..., 70:100, 30:60] = 0.04
    closed = image.clone()
    closed[..., 96:100, 20:120] = closed[..., 40:100, 20:24] = 0.5
    assert float(occupied(image, Modality.CT)[0, 0, 55, 90]) == 0
    assert float(occupied(closed, Modality.CT)[0, 0, 55, 90]) == 1


def test_padding_and_zeros_are_empty_up_to_their_last_pixel() -> None:
    y, x = np.ogrid[:SIZE, :SIZE]
    disc = torch.from_numpy((y - 128.0) ** 2 + (x - 128.0) ** 2 < 100.0**2)
    values = 0.3 + 0.1 * torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    brain = torch.where(disc, values, 0.0)
    seen = occupied(brain, Modality.MR)[0, 0]
    assert float(seen[disc].min()) == 1
    assert float(seen[~disc].max()) == 0
    padded = torch.where(disc, values, -3.024)
    assert float(occupied(padded, Modality.CT)[0, 0][~disc].max()) == 0


def test_small_patches_of_one_value_are_chance() -> None:
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    image[..., 10 : 10 + FLAT - 1, 10 : 10 + FLAT - 1] = 0.5
    image[..., 40 : 40 + FLAT_PICTURE - 1, 40:90] = 1.0  # a highlight that a drop may cast
    assert float(occupied(image, Modality.PHOTO).min()) == 1
    assert float(occupied(image[:, :1, :30, :30], Modality.MR).min()) == 1
    image[:, 0, 40:80, 40:80] = 1.0  # of one colour only in one channel
    assert float(occupied(image, Modality.PHOTO).min()) == 1
    image[..., 60:, :] = 0.0
    assert float(occupied(image, Modality.PHOTO)[..., 60:, :].max()) == 0


def test_experts_lose_their_weight_to_the_identity() -> None:
    image, _ = body()
    weights = torch.tensor([0.1, 0.6, 0.3]).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    confined = confine(weights, occupied(image, Modality.CT))
    torch.testing.assert_close(confined.sum(1), torch.ones(1, SIZE, SIZE))
    assert torch.equal(confined[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(confined[0, :, 128, 128], weights[0, :, 0, 0])
