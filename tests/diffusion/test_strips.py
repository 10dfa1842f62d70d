"""Strips show what they say: the right images in the right places, at the right noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_sasm.diffusion.strips import Recorder, forward_strip, noise_histograms, save_png, tiled

SCHEDULE = torch.linspace(0.999, 0.01, 100)


def test_tiles_lie_in_rows_with_white_between() -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(-1, 3, 4, 6) / 10
    picture = tiled(images, 3, gap=2)
    assert picture.shape == (3, 4 + 2 + 4, 3 * 6 + 2 * 2)
    assert float(picture[0, 0, 8]) == pytest.approx(0.1)
    assert float(picture[0, 6, 0]) == pytest.approx(0.3)
    assert float(picture[:, 4:6].min()) == 1
    assert float(picture[:, 6:, 16:].min()) == 1, "the place of the missing sixth image"
    with pytest.raises(ValueError, match="at least one column"):
        tiled(images, 0)


def test_forward_strip_goes_from_the_image_to_noise() -> None:
    images = torch.full((2, 3, 32, 32), 0.2)
    strip = forward_strip(images, SCHEDULE, (-1, 20, 99))
    assert strip.shape == (2, 3, 3, 32, 32)
    torch.testing.assert_close(strip[:, 0], torch.full((2, 3, 32, 32), 0.6))
    kept = float(SCHEDULE[20])
    assert float(strip[:, 1].mean()) == pytest.approx((kept**0.5 * 0.2 + 1) / 2, abs=0.01)
    assert float(strip[:, 1].std()) == pytest.approx((1 - kept) ** 0.5 / 2, rel=0.1)
    assert 0 <= float(strip.min()) < float(strip.max()) <= 1


def test_recorder_keeps_evenly_spaced_steps_and_the_result() -> None:
    recorder = Recorder(steps=10, frames=5)
    for step in range(10):
        recorder(torch.full((1, 3, 2, 2), step / 10), torch.full((1, 3, 2, 2), -1.0))
    strip = recorder.strip()
    assert strip.shape == (1, 5, 3, 2, 2)
    torch.testing.assert_close(strip[0, :, 0, 0, 0], torch.tensor([0.55, 0.65, 0.75, 0.85, 0.0]))
    assert Recorder(steps=2, frames=8).wanted == {1, 2}


def test_files_show_every_pixel_enlarged(tmp_path: Path) -> None:
    save_png(torch.rand(3, 4, 5), tmp_path / "new" / "a.png", scale=3)
    pixels = np.asarray(Image.open(tmp_path / "new" / "a.png").convert("RGB"))
    assert pixels.shape == (12, 15, 3)
    assert (pixels[:3, :3] == pixels[0, 0]).all()
    save_png(torch.rand(3, 40, 50), tmp_path / "noise.png")
    assert len(Image.open(tmp_path / "noise.png").getcolors(1 << 24) or []) > 1000, "no palette: it hides noise"
    noise_histograms(tmp_path / "b.png", {5: (torch.randn(100), torch.randn(100)), 9: (torch.zeros(9), torch.ones(9))})
    assert Image.open(tmp_path / "b.png").size == (512, 208)
