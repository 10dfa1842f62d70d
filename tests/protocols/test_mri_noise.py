"""Protocol ``mri-noise``: stacks between their neighbours, of which only the inner slices count."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_sasm.evaluation import mri_noise as mri_noise_shared
from monai_sasm.evaluation import peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.scoring import Case, Image
from monai_sasm.protocols import mri_noise
from monai_sasm.protocols.mri_noise import DEPTH, LEVELS, REACH


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A head of even tissue, ``(20, 24, 28)`` voxels of 2 x 1 x 1 mm."""
    array = np.full((20, 24, 28), 600, np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 1.0, 1.0, 1.0])), tmp_path / "sub-61_T1w.nii.gz")
    return tmp_path / "sub-61_T1w.nii.gz"


def test_stacks_have_neighbours_and_their_noise(path: Path) -> None:
    stacks = mri_noise.noisy_stacks(path)
    assert [case.level for case in stacks] == ["stacks, 3 %", "stacks, 6 %", "stacks, 12 %"]
    for case, level in zip(stacks, LEVELS, strict=True):
        assert case.clean.shape[0] == case.degraded.shape[0] == DEPTH + 2 * REACH
        assert float((case.degraded - case.clean).std()) == pytest.approx(level, rel=0.05)
    sides = sorted(np.diag(stacks[0].facts["affine"])[:3].tolist())
    assert sides == [1.0, 1.0, 2.0]


def test_filtered_noise_is_compared_with_the_filtered_slice(path: Path) -> None:
    name, clean = mri_noise.middle_slice(path)
    assert (name, clean.shape[0]) == ("sub-61_T1w", 1)
    texture = clean + 0.05 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    cases = mri_noise_shared.filtered_cases([(name, texture)], mri_noise.FILTERED)
    assert [case.level for case in cases] == ["filtered, 3 %", "filtered, 6 %"]
    for case in cases:
        assert float((case.degraded - case.clean).std()) == pytest.approx(case.sigma, rel=0.2)
        assert float(np.abs(case.clean - texture).mean()) > 0.01, "what was not measured is in no reference"


def test_only_inner_slices_count_and_peers_see_one_at_a_time(path: Path) -> None:
    case = mri_noise.noisy_stacks(path)[0]
    spoilt = case.clean.copy()
    spoilt[:REACH] = spoilt[-REACH:] = 0
    assert mri_noise.measure(case, spoilt)["PSNR"] > 100, "what lies outside does not count"
    seen: list[tuple[int, ...]] = []

    def peer(one: Case) -> Image:
        seen.append(one.degraded.shape)
        return one.clean

    restored = peers.slice_by_slice(peer, REACH)(case)
    assert seen == [(1, *case.clean.shape[1:])] * DEPTH
    np.testing.assert_array_equal(restored[REACH:-REACH], case.clean[REACH:-REACH])
    np.testing.assert_array_equal(restored[:REACH], case.degraded[:REACH])
    single = replace(case, clean=case.clean[:1], degraded=case.degraded[:1])
    np.testing.assert_array_equal(peers.slice_by_slice(peer, REACH)(single), case.clean[:1])


def test_noise_is_another_one_in_each_volume_and_level(path: Path) -> None:
    other = path.with_name("sub-62_T1w.nii.gz")
    other.write_bytes(path.read_bytes())
    cases = mri_noise.noisy_stacks(path) + mri_noise.noisy_stacks(other)
    noises = [((case.degraded - case.clean) / case.sigma).ravel() for case in cases]
    again = [((case.degraded - case.clean) / case.sigma).ravel() for case in mri_noise.noisy_stacks(path)]
    np.testing.assert_array_equal(noises[:3], again)
    alike = np.abs(np.corrcoef(noises) - np.eye(len(noises)))
    assert alike.max() < 0.1


def test_peers_have_the_strength_of_the_level_on_stacks(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    file = tmp_path / mri_noise_shared.TUNING
    file.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    scene = 200 + 800 * gaussian_filter(random.random((40, 40, 30)), 1)
    nibabel.save(nibabel.Nifti1Image(scene.astype(np.int16), np.eye(4)), file)
    context = Context(tmp_path, tmp_path / "out", "cpu")
    noises = {"3 %": 0.03, "stacks, 3 %": 0.03, "12 %": 0.12, "stacks, 12 %": 0.12}
    (flow,) = mri_noise_shared.tuned_peers(context, ["curvature flow"], noises)
    weak, _, strong = (case for case in mri_noise.noisy_stacks(path))
    used = re.search(r"iterations (\d+) at 3 %, (\d+) at 12 %", flow.settings)
    assert used is not None
    assert int(used[1]) < int(used[2])
    for case, count in ((weak, int(used[1])), (strong, int(used[2]))):
        found = peers.slice_by_slice(flow.restore, REACH)(case)[REACH]
        expected = peers.PEERS["curvature flow"].denoise(case.degraded[REACH][None], case.sigma, count)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_slices_know_their_patient(path: Path) -> None:
    used = []
    for patient in ("ms_patient04", "ms_patient20"):
        used.append(path.parent / patient / f"{patient}_T1W.nii.gz")
        used[-1].parent.mkdir()
        shutil.copy(path, used[-1])
    cases = mri_noise.single_cases(used)
    assert len(cases) == 2 * 5 * len(LEVELS)
    assert {case.group for case in cases} == {"ms_patient04", "ms_patient20"}
    assert {case.patient for case in mri_noise.noisy_stacks(path)} == {""}, "one stack of each head"
