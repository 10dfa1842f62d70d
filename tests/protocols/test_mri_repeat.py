"""Protocol ``mri-repeat``: what went of a scan's own noise, told by a second scan with noise of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from monai_sasm.datasets.registration import registered
from monai_sasm.evaluation.context import Context
from monai_sasm.protocols import mri_repeat
from monai_sasm.protocols.evaluate import evaluate_in
from tests.evaluation.networks import blurring

NOISE = 40.0
MOVED = (0.0, 2.5, -1.5)  # voxels of 1 mm


def anatomy() -> np.ndarray:
    """A head ``(24, 64, 64)`` of smooth tissue in air, about 600."""
    z, y, x = np.mgrid[:24, :64, :64]
    texture = gaussian_filter(np.random.default_rng(0).standard_normal((24, 64, 64)), (1, 3, 3))
    inside = ((y - 32) / 25) ** 2 + ((x - 32) / 22) ** 2 + ((z - 12) / 30) ** 2 < 1
    return np.where(inside, 600 + 150 * texture / texture.std(), 0)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Two scans of one head, the second moved and brighter on one side, noise in both."""
    folder = tmp_path / "mri_repeat" / "patient12"
    folder.mkdir(parents=True)
    random, moved = np.random.default_rng(1), shift(anatomy(), MOVED, order=3)
    coil = 1 + 0.3 * np.linspace(-1, 1, 64)
    for name, head in (("study1", anatomy()), ("study2", moved * coil)):
        real, imaginary = NOISE * random.standard_normal((2, *head.shape))
        scan = np.hypot(head + real, imaginary).transpose(2, 1, 0)
        nibabel.save(
            nibabel.Nifti1Image(scan.astype(np.float32), np.diag([1, 1, 3.0, 1])), folder / f"{name}_FLAIR.nii.gz"
        )
    return Context(tmp_path, tmp_path / "docs" / "results", "cpu", bundles=blurring())


def test_the_second_scan_lies_on_the_first(context: Context) -> None:
    one, two = sorted((context.data / "mri_repeat" / "patient12").iterdir())
    first, second, tissue = registered(one, two)
    assert first.shape == second.shape == tissue.shape == (24, 64, 64)
    inner = (slice(6, 18), slice(16, 48), slice(18, 46))
    assert tissue[inner].all()
    assert not tissue[:, :4].any()
    apart = float((first - second)[inner].std())
    assert apart < 1.6 * NOISE, "noise of both, and little else"
    assert float(second[inner].mean()) == pytest.approx(float(first[inner].mean()), rel=0.03)


def test_a_registration_is_the_same_every_time(context: Context) -> None:
    one, two = sorted((context.data / "mri_repeat" / "patient12").iterdir())
    (_, first, _), (_, again, _) = registered(one, two), registered(one, two)
    np.testing.assert_array_equal(first, again)


def test_what_is_measured_is_the_noise_that_went(context: Context) -> None:
    table = evaluate_in(replace(context, peers=False), "mri-repeat")
    assert [row.method for row in table.rows] == [
        "input",
        "expert noise_mri_unet",
        "expert noise_mri_unet, sigma given",
        "default pipeline",
    ]
    scores = {row.method: row.scores["FLAIR"] for row in table.rows}
    assert table.row("input").n["FLAIR"] == 2 * mri_repeat.SLICES
    assert table.row("input").patients["FLAIR"] == 1
    assert scores["input"]["noise removed"] == 0
    assert scores["input"]["gradient"] == 1
    assert 1.5 < scores["expert noise_mri_unet"]["noise removed"] < 4, "of 4.2, less what a blur damages"
    assert scores["default pipeline"]["PSNR gain"] > 0.5
    told = next(flag for flag in table.flags if flag.startswith("in tissue the scans differ by"))
    whole, noise = (float(part) for part in re.findall(r"(\d+\.\d) %", told))
    assert noise < whole < 1.5 * noise, "the scans of this phantom differ by little but noise"


def test_truth_takes_all_noise_away_and_damage_counts_against_it(context: Context) -> None:
    one, two = sorted((context.data / "mri_repeat" / "patient12").iterdir())
    case = mri_repeat.cases_of(one, two)[0]
    index = int(case.name.rsplit("_", 1)[1])
    white = float(case.facts["white"])
    truth = np.hypot(anatomy()[index], NOISE)[None].astype(np.float32) / white  # a magnitude is biased
    assert mri_repeat.measure(case, truth)["noise removed"] == pytest.approx(100 * NOISE / white, rel=0.2)
    flat = np.full_like(case.degraded, case.degraded[case.facts["tissue"]].mean())
    assert mri_repeat.measure(case, flat)["noise removed"] < -5
    assert case.sigma == pytest.approx(NOISE / white, rel=0.4)


def test_patients_that_were_trained_on_are_left_out(context: Context) -> None:
    folder = context.data / "mri_repeat"
    (folder / "patient12").rename(folder / "patient03")
    assert "mri_repeat" in str(evaluate_in(context, "mri-repeat").skipped)


def test_without_data_it_is_skipped(tmp_path: Path) -> None:
    assert "mri_repeat" in str(evaluate_in(Context(tmp_path, tmp_path / "out", "cpu"), "mri-repeat").skipped)
