"""The gate's bundle runs: weight maps on the image's grid, training that learns, evaluation that counts rightly."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, run
from monai.data import MetaTensor
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_sasm.optional import torchvision
from monai_sasm.restoration.inferers import WeightInferer
from monai_sasm.training.gate_bank import Example
from monai_sasm.training.gate_copy import REHEARSAL_FILE
from monai_sasm.types import Modality
from tests.bundle_cases import AFFINE, ROOT, clean_image, degraded_image, save
from tests.toy_gate import copy_bundle

CONFIGS = ROOT / "bundles" / "gate_mobilenet" / "configs"
TINY = {"counts": [4, 2, 2], "crop_size": 96, "batch_size": 4, "max_epochs": 1, "experts": {}, "network_def::width": 8}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gate's bundle, with fresh weights while there are no others."""
    return copy_bundle("gate_mobilenet", tmp_path_factory.mktemp("gate"))


def maps(gate: Path, modality: str, source: Path, output: Path, **options: Any) -> dict[str, Path]:
    """Run ``inference.yaml``; class name -> file."""
    config = str(gate / "configs" / "inference.yaml")
    settings = {"bundle_root": str(gate), "dataset_dir": str(source), "output_dir": str(output), "modality": modality}
    run(config_file=config, **settings, **options)
    return {path.name.split("_weight-")[1].split(".")[0]: path for path in sorted(output.iterdir())}


def dataset(folder: Path, *prefixes: str) -> Path:
    """Photos, CT pairs, an MR volume and a trunk, as ``train.yaml`` and ``evaluate.yaml`` expect them."""
    for prefix in prefixes:
        save(clean_image("PHOTO"), "PHOTO", folder / f"{prefix}photos")
        clean = clean_image("CT")
        save(clean, "CT", folder / f"{prefix}ct" / "full")
        save(degraded_image("CT", "low-dose", clean), "CT", folder / f"{prefix}ct" / "quarter")
        save(clean_image("MR"), "MR", folder / f"{prefix}mr", slices=2)
    torch.manual_seed(0)
    torch.save(torchvision().models.mobilenet_v2(weights=None).state_dict(), folder / "mobilenet_v2.pth")
    return folder


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_volumes_get_float_maps_on_their_grid(gate: Path, tmp_path: Path, modality: str) -> None:
    source = save(clean_image(modality), modality, tmp_path / "in", slices=2)
    found = maps(gate, modality, source.parent, tmp_path / "out")
    expert = {"CT": "lowdose_ct_unet", "MR": "noise_mri_unet"}[modality]
    assert found.keys() <= {"clean", expert}
    images = [nibabel.load(path) for path in found.values()]
    for image in images:
        assert image.shape == (128, 128, 2)
        assert image.get_data_dtype() == np.float32
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(sum(image.get_fdata() for image in images), 1, atol=1e-5)


def test_photos_get_grey_maps(gate: Path, tmp_path: Path) -> None:
    source = save(clean_image("PHOTO")[:, :100], "PHOTO", tmp_path / "in")
    found = maps(gate, "PHOTO", source, tmp_path / "out", floor=0.0)
    assert found.keys() == {"clean", "noise_photo_unet", "raindrop_photo_unet"}
    levels = [np.asarray(Image.open(path)).astype(float) for path in found.values()]
    assert {level.shape for level in levels} == {(100, 128)}
    np.testing.assert_allclose(sum(levels), 255, atol=2)


def test_existing_maps_stay(gate: Path, tmp_path: Path) -> None:
    source = save(clean_image("PHOTO"), "PHOTO", tmp_path / "in")
    maps(gate, "PHOTO", source, tmp_path / "out")
    with pytest.raises(RuntimeError) as caught:
        maps(gate, "PHOTO", source, tmp_path / "out")
    causes = [caught.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], FileExistsError)
    maps(gate, "PHOTO", source, tmp_path / "out", overwrite=True)


def test_inference_has_the_properties_monai_asks_for(gate: Path, tmp_path: Path) -> None:
    save(clean_image("MR"), "MR", tmp_path)
    workflow = ConfigWorkflow(
        config_file=str(CONFIGS / "inference.yaml"), workflow_type="infer", dataset_dir=str(tmp_path), modality="MR"
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 1


class BySlice(torch.nn.Module):
    """Gives the second class a weight that tells the slice's brightness."""

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        height, width = (-(-side // 8) for side in image.shape[-2:])
        odds = image.mean((1, 2, 3)).logit().view(-1, 1, 1, 1)
        return torch.cat([0 * odds, odds], 1).expand(-1, -1, height, width)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_maps_keep_slices_and_time_points_apart(axis: int, times: int) -> None:
    slices = torch.tensor([0.3, 0.6, 0.9])[None] * torch.linspace(0.5, 1, times)[:, None]  # (T, N), MR working scale
    level = slices.view(times, 3, 1, 1).expand(-1, -1, 16, 24).movedim(1, axis + 1)
    grain = 1e-6 * (torch.arange(16 * 24).view(16, 24) - 191.5)  # slices of one value have no weight
    volume = level + grain.expand(times, 3, -1, -1).movedim(1, axis + 1)
    inferer = WeightInferer("MR", lambda x: 0 * x, [True, True], floor=0.0)
    weights = inferer(MetaTensor(volume[None], meta={"slice_axis": torch.tensor([axis])}), BySlice())
    assert weights.shape == (1, 2, *volume.shape)
    torch.testing.assert_close(weights[0, 1], level / 1.2, atol=1e-5, rtol=0)


def test_photos_share_one_weight_for_all_colours() -> None:
    inferer = WeightInferer("PHOTO", lambda x: 0 * x[:, :1], [True, True], floor=0.0)
    assert inferer(torch.full((1, 3, 20, 30), 0.25), BySlice()).shape == (1, 2, 1, 20, 30)
    with pytest.raises(ValueError, match="expected one photo"):
        inferer(torch.zeros(2, 3, 8, 8), BySlice())


@pytest.mark.slow
def test_training_learns_and_leaves_what_a_new_expert_needs(tmp_path: Path) -> None:
    data = dataset(tmp_path, "")
    settings = {**TINY, "max_epochs": 8, "lr": 0.01, "dataset_dir": str(data), "output_dir": str(tmp_path / "run")}
    white = {"_target_": "monai_sasm.degradations.gaussian.GaussianNoise", "sigma": [0.02, 0.2], "uneven": 0.3}
    settings["photo_noise"] = white  # learnt in sixteen steps, which the noise of cameras is not
    workflow = ConfigWorkflow(config_file=str(CONFIGS / "train.yaml"), workflow_type="train", **settings)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    board = EventAccumulator(str(tmp_path / "run"))
    board.Reload()
    losses = [event.value for event in board.Scalars("train_loss")]
    assert len(losses) == 16
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), "two epochs each: single steps differ by a half"
    exported = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert exported.keys() == workflow.parser.get_parsed_content("network").state_dict().keys()
    rehearsal = torch.load(tmp_path / "run" / REHEARSAL_FILE, weights_only=True)
    assert rehearsal["features"].shape[1] == 8 + 96
    torch.testing.assert_close(
        rehearsal["target"].float().sum(1), torch.ones(len(rehearsal["target"])), atol=2e-3, rtol=0
    )


@pytest.mark.slow
def test_training_spreads_over_two_processes(tmp_path: Path) -> None:
    data = dataset(tmp_path, "")
    settings: dict[str, Any] = {**TINY, "batch_size": 2, "dataset_dir": data, "output_dir": tmp_path / "run"}
    settings["config_file"] = [str(CONFIGS / "train.yaml"), str(CONFIGS / "multi_gpu_train.yaml")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [
        "-m",
        "monai.bundle",
        "run",
        *(part for key, value in settings.items() for part in (f"--{key}", str(value))),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    board = EventAccumulator(str(tmp_path / "run"))
    board.Reload()
    assert len(board.Scalars("train_loss")) == 2, "each process takes half of the 8 examples, 2 at a time"
    assert (tmp_path / "run" / "model.pt").is_file()


class AlwaysNoise(torch.nn.Module):
    """Says "noise" to photos, CT and MR alike, with equal doubt about everything else."""

    def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        height, width = (-(-side // 8) for side in image.shape[-2:])
        return torch.tensor([0.0, 0, 1, 1, 1]).view(1, 5, 1, 1).expand(len(image), -1, height, width)


class Halves:
    """Sources whose even examples are noisy all over and whose odd ones are clean."""

    def __init__(self) -> None:
        self.number = 0

    def draw(self, generator: torch.Generator) -> Example:
        self.number += 1
        faulty = float(self.number % 2)
        clean = torch.full((3, 32, 32), 0.4)
        return Example(
            clean, clean + 0.1 * faulty, {"noise_photo_unet": torch.full((1, 32, 32), faulty)}, Modality.PHOTO
        )


def test_evaluation_counts_rightly(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / "train.yaml"), str(CONFIGS / "evaluate.yaml")],
        workflow_type="train",
        dataset_dir=str(tmp_path),
        output_dir=str(tmp_path / "result"),
        weights=str(tmp_path / "model.pt"),
        counts=[5],
    )
    workflow.parser["network_def"] = AlwaysNoise()
    workflow.parser["sources"] = [Halves()]
    workflow.initialize()
    workflow.run()
    with open(tmp_path / "result" / "metrics.csv") as file:
        table = {row[0]: float(row[1]) for row in csv.reader(file) if len(row) == 2}
    assert table["val_accuracy"] == pytest.approx(3 / 5)
    # softmax of 0 and 1 (raindrops are not among these examples' faults): 0.3133 when noisy, 1.3133 when clean
    assert table["val_cross_entropy"] == pytest.approx((3 * 0.3133 + 2 * 1.3133) / 5, abs=1e-3)


def test_evaluation_reads_its_own_images(tmp_path: Path) -> None:
    data = dataset(tmp_path, "val_")
    weights = copy_bundle("gate_mobilenet", tmp_path / "copy") / "models" / "model.pt"
    settings = {"counts": [2, 2, 2], "crop_size": 96, "weights": str(weights), "dataset_dir": str(data)}
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / "train.yaml"), str(CONFIGS / "evaluate.yaml")],
        workflow_type="train",
        output_dir=str(tmp_path / "result"),
        **settings,
    )
    workflow.initialize()
    workflow.run()
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert 0 <= metrics["val_accuracy"] <= 1
    assert np.isfinite(metrics["val_cross_entropy"])


@pytest.mark.parametrize("overlays", [(), ("refit_rows",), ("refit_rows", "refit_mr_rows"), ("train_camera",)])
def test_a_further_round_begins_with_trained_weights(overlays: tuple[str, ...]) -> None:
    files = [str(CONFIGS / f"{name}.yaml") for name in ("train", "train_second_pass", *overlays)]
    workflow = ConfigWorkflow(files, workflow_type="train", bundle_root="gate")
    assert workflow.parser.get_parsed_content("initial_weights") == "gate/models/model.pt"
