"""JPEG after another degradation."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.jpeg import Compressed, write

CLEAN = torch.linspace(0.2, 0.8, 64).expand(8, 3, 48, 64).contiguous()


def drawn(model: Compressed, seed: int = 0):
    return model.draw(tuple(CLEAN.shape), torch.Generator().manual_seed(seed))


def test_written_photos_have_steps_of_blocks_and_8_bits_the_others_are_left() -> None:
    model = Compressed(GaussianNoise(sigma=(0.1, 0.1)), quality=(30, 50), share=0.5)
    params = drawn(model)
    noisy, plain = model.apply(CLEAN, params), model.degradation.apply(CLEAN, params.degraded)
    written = [quality > 0 for quality in params.quality]
    assert 0 < sum(written) < 8
    assert all(30 <= quality <= 50 for quality in params.quality if quality)
    for photo, before, was_written in zip(noisy, plain, written, strict=True):
        assert torch.equal(photo, before) != was_written
        if was_written:
            torch.testing.assert_close(photo * 255, (photo * 255).round(), atol=1e-4, rtol=0)
            error = (photo - before.clamp(0, 1)).square().mean().sqrt()
            assert 0.02 < float(error) < 0.1, "coarse steps take part of the noise"


def test_a_flat_photo_keeps_its_colour() -> None:
    flat = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(write(flat, (95,)), flat, atol=1.5 / 255, rtol=0)


def test_the_best_quality_keeps_a_smooth_photo() -> None:
    torch.testing.assert_close(write(CLEAN, (95,) * 8), CLEAN, atol=0.02, rtol=0)


def test_noise_is_told_as_it_was_before_and_the_mask_covers_what_was_written() -> None:
    model = Compressed(GaussianNoise(sigma=(0.0, 0.0)), share=0.5)
    params = drawn(model)
    assert float(params.sigma.max()) == 0
    assert params.mask.amax((1, 2, 3)).tolist() == [float(quality > 0) for quality in params.quality]
    untouched = [quality == 0 for quality in params.quality]
    assert torch.equal(model.apply(CLEAN, params)[untouched], CLEAN[untouched])


def test_the_same_draw_gives_the_same_file() -> None:
    model = Compressed(GaussianNoise(), share=1.0)
    assert torch.equal(model.apply(CLEAN, drawn(model, 3)), model.apply(CLEAN, drawn(model, 3)))


@pytest.mark.parametrize("wrong", [{"quality": (0, 50)}, {"quality": (90, 96)}, {"quality": (90, 80)}, {"share": 1.5}])
def test_wrong_ranges_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Compressed(GaussianNoise(), **wrong)


def test_grey_images_are_refused() -> None:
    with pytest.raises(ValueError, match="3 channels, got 1"):
        Compressed(GaussianNoise()).draw((1, 1, 8, 8), torch.Generator())
