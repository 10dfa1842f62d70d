"""Protocol ``photo-ddpm`` on small photos made here, with a diffusion model that blurs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.networks.schedulers import DDIMScheduler
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.evaluation.context import Context
from monai_sasm.experts.ddpm import DdpmExpert
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.protocols import photo_ddpm
from monai_sasm.protocols.evaluate import evaluate_in
from tests.evaluation.networks import blurring, bundle


class Blur(nn.Module):
    """Stands in for a trained network: takes what a small blur removes for noise."""

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return (x - lowpass(x, 1.5)) / 0.2


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Three photos, the size of a phone's icon, as CBSD68."""
    folder = tmp_path / "data" / "natural" / "bsds500" / "val"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in "abc":
        scene = gaussian_filter(random.random((144, 160, 3)), (4, 4, 0))
        Image.fromarray((255 * (scene - scene.min()) / np.ptp(scene)).astype(np.uint8)).save(folder / f"{name}.jpg")
    (tmp_path / "data/natural/cbsd68_ids.txt").write_text("c\nb\na\n")
    scheduler = DDIMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)
    return Context(
        tmp_path / "data",
        tmp_path / "docs" / "results",
        "cpu",
        peers=False,
        bundles=blurring(2.0)
        | {photo_ddpm.BUNDLE: bundle(photo_ddpm.BUNDLE, DdpmExpert(Blur(), scheduler, NoiseEstimator()))},
    )


def test_photo_ddpm(context: Context) -> None:
    table = evaluate_in(context, "photo-ddpm")
    every, few = "CBSD68 25", "CBSD68 25, 3 crops"
    whole = {row.method: row.scores[every] for row in table.rows if every in row.scores}
    crops = {row.method: row.scores[few] for row in table.rows if few in row.scores}
    assert list(whole) == [
        "input",
        "expert noise_photo_unet",
        "expert noise_photo_unet, sigma given",
        "default pipeline",
        "ours, 1 step",
    ]
    assert {f"ours, {n} step{'s' * (n > 1)}" for n in (1, 2, 4, 10, 25, 50)} <= set(crops)
    assert {"ours, 10 steps, eta 1", "ours, 1 step, not pinned", "ours, 1 step, sigma estimated"} <= set(crops)
    assert whole["input"]["PSNR"] == pytest.approx(20.17, abs=0.1)
    assert whole["input"]["gradient"] > 3
    assert whole["ours, 1 step"]["PSNR"] > 28
    assert whole["ours, 1 step"]["gradient"] < whole["input"]["gradient"]
    for scores in (*whole.values(), *crops.values()):
        assert {"PSNR", "PSNR 8-bit", "SSIM", "gradient", "delta E", "colour shift"} <= set(scores)
    for name in table.figures:
        assert (context.output / name).stat().st_size > 0
    assert len(table.figures) == 3


def test_crops_are_the_middle_of_photos(context: Context) -> None:
    case = photo_ddpm.noisy_cases(photo_ddpm.cbsd68(context.data)[:1], "CBSD68")[1]
    cut = photo_ddpm._cropped(case, "x")
    np.testing.assert_array_equal(cut.clean, case.clean[:, 8:136, 16:144])
    np.testing.assert_array_equal(cut.degraded, case.degraded[:, 8:136, 16:144])


def test_measures_tell_texture_from_colour() -> None:
    clean = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32) * 0.5 + 0.2
    case = photo_ddpm.Case("a", "", clean, clean)
    blurred = photo_ddpm.measure(case, gaussian_filter(clean, (0, 1, 1)))
    cast = photo_ddpm.measure(case, clean + np.float32([0.05, 0, -0.05])[:, None, None])
    assert blurred["gradient"] < 0.5 < 0.99 < cast["gradient"] < 1.01
    assert cast["colour shift"] > 5 * blurred["colour shift"]
