"""Protocol ``mri-heads`` on small volumes made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from monai_sasm.errors import BundleError
from monai_sasm.evaluation.context import Context
from monai_sasm.protocols import mri_heads
from monai_sasm.protocols.evaluate import evaluate_in
from monai_sasm.types import Modality
from tests.evaluation.networks import blurring, named


class Identity(torch.nn.Module):
    """Stands in for a network with two neighbours on each side."""

    neighbours = 2

    def forward(self, slabs: torch.Tensor) -> torch.Tensor:
        """The middle slice."""
        assert slabs.shape[1] == 5
        return slabs[:, 2:3]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Two brains, smooth but for some texture."""
    random = np.random.default_rng(0)
    folder = tmp_path / "mri_whole_head" / "ds002748"
    folder.mkdir(parents=True)
    for name in ("sub-61_T1w", "sub-62_T1w", "sub-01_T1w"):
        array = 200 + 800 * gaussian_filter(random.random((40, 44, 48)), 2)
        nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), np.eye(4)), folder / f"{name}.nii.gz")
    networks = {f"superres_mri_{kind}": Identity() for kind in ("unet", "esrgan", "dit", "sit")}
    return Context(
        tmp_path, tmp_path / "docs" / "results", "cpu", bundles=blurring() | named(networks, modality=Modality.MR)
    )


def test_what_returns_its_input_gains_nothing(context: Context) -> None:
    table = evaluate_in(context, "mri-heads")
    networks = ["U-Net", "ESRGAN", "DiT, 1 step", "SiT, 1 step"]
    assert [row.method for row in table.rows] == ["zero-filled", "cubic", *networks, "default pipeline"]
    assert list(table.row("U-Net").scores) == ["brains x2", "brains x4"]
    assert table.row("U-Net").n["brains x4"] == 2, "sub-01 is a training subject"
    assert table.row("U-Net").scores["brains x2"]["gain"] == pytest.approx(0, abs=1e-4)
    assert table.row("default pipeline").scores["brains x2"]["gain"] != pytest.approx(0, abs=0.01)
    two, four = (table.row("zero-filled").scores[f"brains x{factor}"]["PSNR"] for factor in (2, 4))
    assert two > four


def test_blocks_lie_along_all_axes(context: Context) -> None:
    found = [case.clean for case in mri_heads.block_cases(next((context.data / "mri_whole_head").rglob("sub-61*")), 2)]
    depth = mri_heads.DEPTH + 2 * mri_heads.REACH
    assert [block.shape for block in found[::3]] == [(depth, 44, 48), (depth, 40, 48), (depth, 40, 44)]


def test_noise_is_another_one_in_each_block(context: Context) -> None:
    first, second = ((context.data / "mri_whole_head" / "ds002748" / f"sub-6{k}_T1w.nii.gz") for k in (1, 2))
    second.write_bytes(first.read_bytes())
    blocks = [list(mri_heads.block_cases(path, 2)) for path in (first, second)]
    for one, other in zip(*blocks, strict=True):
        np.testing.assert_array_equal(one.clean, other.clean)
        assert float((one.degraded - other.degraded).std()) > mri_heads.SIGMA / 4


def test_further_weights_are_those_of_the_expert_they_are_labelled_for(context: Context, tmp_path: Path) -> None:
    class Scaling(torch.nn.Module):
        neighbours = 2

        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, slabs: torch.Tensor) -> torch.Tensor:
            return self.factor * slabs[:, 2:3]

    torch.save({"factor": torch.tensor(0.9)}, tmp_path / "a.pt")
    torch.save({"other": torch.zeros(3)}, tmp_path / "b.pt")
    bundles = {**(context.bundles or {}), **named({"superres_mri_unet": Scaling()}, modality=Modality.MR)}
    given = {"superres_mri_unet/0.1": tmp_path / "a.pt", "noise_mri_unet/0.1": tmp_path / "b.pt"}
    one = replace(context, bundles=bundles, weights=given)
    methods, _ = mri_heads._methods(one)
    assert [method.name for method in methods if "U-Net" in method.name] == ["U-Net", "U-Net 0.1"]
    with pytest.raises(
        ValueError, match=r"nothing compares the weights noise_mri_unet/0.1 \(mri-heads: LABEL=FILE, of"
    ):
        evaluate_in(one, "mri-heads")
    with pytest.raises(BundleError, match=r"b.pt does not fit superres_mri_unet: .*factor"):
        mri_heads._methods(replace(one, weights={"new": tmp_path / "b.pt"}))


def test_absent_data_are_said(tmp_path: Path) -> None:
    table = evaluate_in(Context(tmp_path, tmp_path / "out", "cpu"), "mri-heads")
    assert str(table.skipped).startswith(f"data not found: {tmp_path / 'mri_whole_head'}; name the folder")
