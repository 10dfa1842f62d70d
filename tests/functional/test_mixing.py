"""Soft mixing against a plain NumPy loop, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.functional.mixing import blend, softmix


@pytest.fixture
def scene() -> tuple[torch.Tensor, dict[int, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 5, 6, generator=generator)
    outputs = {1: torch.rand(2, 3, 5, 6, generator=generator), 2: torch.rand(2, 3, 5, 6, generator=generator)}
    weights = torch.softmax(torch.randn(2, 3, 5, 6, generator=generator), 1)
    return image, outputs, weights


def test_mixing_equals_the_formula_pixel_by_pixel(scene) -> None:
    image, outputs, weights = scene
    expected = np.zeros(image.shape)
    for b, c, i, j in np.ndindex(*image.shape):
        x = float(image[b, c, i, j])
        expected[b, c, i, j] = x + sum(
            float(weights[b, k, i, j]) * (float(outputs[k][b, c, i, j]) - x) for k in outputs
        )
    np.testing.assert_allclose(softmix(image, outputs, weights).numpy(), expected, atol=1e-6)


def test_identity_weight_keeps_the_pixel_exactly(scene) -> None:
    image, outputs, weights = scene
    weights = torch.zeros_like(weights)
    weights[:, 0] = 1
    assert torch.equal(softmix(image, outputs, weights), image)


def test_one_hot_weights_select(scene) -> None:
    image, outputs, weights = scene
    weights = torch.zeros_like(weights)
    weights[:, 2] = 1
    torch.testing.assert_close(softmix(image, outputs, weights), outputs[2])


def test_a_mix_lies_between_its_parts(scene) -> None:
    image, outputs, weights = scene
    parts = torch.stack([image, *outputs.values()])
    mixed = softmix(image, outputs, weights)
    assert (mixed <= parts.amax(0) + 1e-6).all()
    assert (mixed >= parts.amin(0) - 1e-6).all()


def test_wrong_shapes_are_named(scene) -> None:
    image, outputs, weights = scene
    with pytest.raises(ValueError, match=r"expert 1 must return the image's shape \(2, 3, 5, 6\), got \(2, 3, 5, 5\)"):
        softmix(image, {1: outputs[1][..., :5]}, weights)
    with pytest.raises(ValueError, match="0 is the identity"):
        softmix(image, {0: outputs[1]}, weights)


def test_blend_ends_are_exact(scene) -> None:
    image, outputs, _ = scene
    assert torch.equal(blend(image, outputs[1], 0.0), image)
    torch.testing.assert_close(blend(image, outputs[1], 1.0), outputs[1])
