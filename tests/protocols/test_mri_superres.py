"""The judged protocol on blobs: a judge that thresholds, a restorer that knows the answer, one that invents."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import nn

from monai_sasm.bundles import Bundle
from monai_sasm.degradations.kspace import KspaceTruncation, to_image, to_kspace
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.evaluate import evaluate_in
from monai_sasm.protocols.mri_superres import coarse_cases, cubic, hippocampus_pairs
from monai_sasm.types import Modality
from tests.evaluation.networks import blurring, bundle, named

SHAPE = (24, 28, 12)


class Threshold(nn.Module):
    """Anterior above 0.5 standard deviations of what it is given, posterior above 2."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(image, 0.5), image, 3 * image - 4], 1)


class Sharpen(nn.Module):
    """Stands for a network: undoes a little blur."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        smooth = nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        return image + self.amount * (image - smooth)


class Inventor(Sharpen):
    """Stands for a diffusion network: the fewer steps, the more of the image is thrown away."""

    steps = 1

    def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(image) * (1 - 0.5 / self.steps)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two test cases and one training case with blobs as hippocampi."""
    folder = tmp_path / "seg_hippocampus"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    for number in (255, 260, 12):
        field = gaussian_filter(np.random.default_rng(number).random(SHAPE), 1.5)
        image = 400 * (field - field.min()) / np.ptp(field)
        scaled = (image - image.mean()) / image.std()
        labels = (scaled > 0.5).astype(np.uint8) + (scaled > 2)
        for kind, array in (("images", image.astype(np.float32)), ("labels", labels.astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, affine), folder / kind / f"hippocampus_{number:03d}.nii.gz")
    return tmp_path


@pytest.fixture
def table(data: Path, tmp_path: Path) -> Table:
    networks = {"superres_mri_unet": Sharpen(0.3), "superres_mri_sit": Inventor(0.3)}
    return evaluate_in(Context(data, tmp_path / "docs" / "results", "cpu", bundles=bundles(networks)), "mri-superres")


def bundles(networks: dict[str, nn.Module]) -> dict[str, Bundle]:
    """Judge, gate, the experts it calls, and the networks that are compared."""
    judge = {"segment_hippocampus_unet": bundle("segment_hippocampus_unet", Threshold(), "segmenter", Modality.MR)}
    return judge | blurring(0.5) | named(networks, modality=Modality.MR)


def test_rows_and_flags(table: Table, tmp_path: Path) -> None:
    assert [row.method for row in table.rows] == [
        "clean", "zero-filled", "cubic", "U-Net", *(f"SiT, {k} step{'s' * (k > 1)}" for k in (1, 2, 4, 10)),
        "default pipeline",
    ]  # fmt: skip
    assert table.row("clean").n == {"x2": 2, "x4": 2}, "case 12 is no test case"
    assert any("ESRGAN, Restormer, DiT left out" in flag for flag in table.flags)
    assert any(flag.startswith("**SiT, 1 step is") and flag.endswith("below the U-Net at x2**") for flag in table.flags)
    sizes = [(tmp_path / "docs" / "results" / name).stat().st_size for name in table.figures]
    assert len(sizes) == 4
    assert all(size > 0 for size in sizes)
    page = (tmp_path / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    assert "## mri-superres" in page
    assert "### x4" in page


def test_the_judge_is_right_on_clean_images(table: Table) -> None:
    clean, coarse = (table.row(name).scores["x2"] for name in ("clean", "zero-filled"))
    assert clean["Dice"] == 1
    assert clean["HD95"] == 0
    assert coarse["Dice"] < 0.95
    assert "recovered" not in coarse


def test_the_border_is_left_out_of_one_of_the_numbers(table: Table) -> None:
    scores = table.row("zero-filled").scores["x4"]
    assert scores["PSNR inside"] != pytest.approx(scores["PSNR"], abs=0.01)
    assert math.isinf(table.row("clean").scores["x4"]["PSNR inside"])


def test_recovery_and_losses_follow_from_dice(table: Table) -> None:
    low = table.row("zero-filled").scores["x4"]["Dice"]
    restored = table.row("U-Net").scores["x4"]
    assert restored["recovered"] == pytest.approx((restored["Dice"] - low) / (1 - low))
    assert table.row("U-Net").interval("x4", "Dice") is None, "two cases are too few"
    gained = restored["PSNR inside"] - table.row("zero-filled").scores["x4"]["PSNR inside"]
    assert restored["PSNR inside gain"] == pytest.approx(gained)
    assert restored["M params"] == 1e-6
    assert "p Dice (against U-Net)" in table.row("SiT, 4 steps").scores["x4"]
    assert math.isinf(table.row("clean").scores["x4"]["PSNR"])


def test_without_the_judge_there_is_nothing_to_measure(data: Path, tmp_path: Path) -> None:
    context = Context(data, tmp_path / "results", "cpu", bundles=blurring())
    assert "no judge" in str(evaluate_in(context, "mri-superres").skipped)


def test_cases_are_the_stated_degradation(data: Path) -> None:
    case = coarse_cases(hippocampus_pairs(data / "seg_hippocampus", 1), 2)[0]
    assert case.clean.shape == SHAPE[::-1]
    model = KspaceTruncation(factor=(2.0, 2.0))
    batch = torch.from_numpy(case.clean)[:, None]
    truncated = model.apply(batch, model.draw(tuple(batch.shape), torch.Generator()))[:, 0].numpy()
    tissue = truncated > 0.3
    assert (case.degraded - truncated)[tissue].std() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("size", [(24, 28), (35, 50)])
def test_cubic_neither_shifts_nor_scales(size: tuple[int, int]) -> None:
    """A smooth image that lies within the kept k-space comes back."""
    rows, columns = (np.arange(n) - n // 2 for n in size)
    image = 1 + 0.3 * np.cos(2 * np.pi * 2 * rows / size[0])[:, None] * np.cos(2 * np.pi * columns / size[1] + 0.7)
    result = cubic(image[None].astype(np.float32), 2)[0]
    inner = (slice(4, -4), slice(4, -4))
    assert np.abs(result - image)[inner].max() < 0.01
    kspace = to_kspace(torch.from_numpy(image))
    assert np.abs(to_image(kspace).numpy() - image).max() < 1e-12
    assert map_coordinates(image, np.mgrid[: size[0], : size[1]], order=3) == pytest.approx(image)


def test_the_table_says_who_sees_neighbours(data: Path, tmp_path: Path) -> None:
    class Middle(Sharpen):
        neighbours = 1

        def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
            assert image.shape[1] == 3
            return super().forward(image[:, 1:2])

    networks = {"superres_mri_unet": Middle(0.3), "superres_mri_unet/single_slice": Sharpen(0.3)}
    table = evaluate_in(Context(data, tmp_path / "results", "cpu", bundles=bundles(networks)), "mri-superres")
    assert "U-Net: see 1 slices on each side" in table.flags
    near, alone = (table.row(name).scores["x4"]["PSNR"] for name in ("U-Net", "U-Net, single slice"))
    assert near == pytest.approx(alone)
