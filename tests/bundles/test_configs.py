"""The experts' configs run: training learns, resumes and spreads over processes; evaluation counts rightly."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from scipy.ndimage import gaussian_filter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_sasm.bundles.running import unused
from monai_sasm.training.checkpoints import latest_checkpoint
from tests.bundle_cases import BUNDLES, ROOT, clean_image, paired_folder, save

CONFIGS = [*sorted((ROOT / "bundles").glob("*/configs/*.yaml")), *sorted((ROOT / "configs").glob("*.yaml"))]
SECTIONS = {path.name: json.loads((path / "configs" / "metadata.json").read_text())["sasm"] for path in BUNDLES}
EXPERTS = sorted(name for name, section in SECTIONS.items() if section["role"] == "expert")
TINY = {
    "crops_per_epoch": 32,
    "batch_size": 8,
    "crop_size": 48,
    "val_limit": 2,
    "max_epochs": 1,
    "checkpoint_interval": 1,
    "val_interval": 1,
    "precision": "float32",
    "validate::dataset::size": 64,
}
TRANSFORMER = {"network_def::depth": 2, "network_def::width": 32, "network_def::heads": 2, "last": 1.0}
DIFFUSION = {  # and their small networks
    "noise_photo_ddpm": {
        "unet::network::block_out_channels": [8, 16, 16],
        "unet::network::attention_head_dim": 8,
        "perceptual": 0.0,  # VGG19's weights are not everywhere
    },
    "enhance_photo_diffusion": {"unet::network::channels": [8, 16, 16], "unet::network::num_head_channels": 8},
    "lowdose_ct_dit": TRANSFORMER,
    "lowdose_ct_sit": TRANSFORMER,
    "superres_mri_dit": TRANSFORMER,
    "superres_mri_sit": TRANSFORMER,
}
RRDB = {"network_def::features": 8, "network_def::blocks": 1, "network_def::growth": 4}
CONVOLUTIONAL = {"superres_mri_esrgan": RRDB, "lowdose_ct_esrgan": RRDB}  # those that are no U-Nets
# diffusion models trained on pairs; the others on clean images
ON_PAIRS = {"superres_mri_dit", "superres_mri_sit", "lowdose_ct_dit", "lowdose_ct_sit"}
WHOLE = {"superres_mri_unet"}  # validated on whole slices
# their recipe is that of the diffusion models they are compared with
MODERN = {"superres_mri_unet", "superres_mri_esrgan", "lowdose_ct_esrgan"}


def config(name: str, *files: str) -> list[str]:
    """Paths of config files of a bundle; a member of a family is trained by the overlay of its head."""
    trainer = SECTIONS[name].get("trained_by")
    if trainer is not None:
        bundle, overlay = trainer["bundle"], trainer["overlay"]
        files = tuple(part for file in files for part in ((file, overlay) if file == "train.yaml" else (file,)))
        return [str(ROOT / "bundles" / bundle / "configs" / file) for file in files]
    return [str(ROOT / "bundles" / name / "configs" / file) for file in files]


def tiny(name: str) -> dict[str, Any]:
    """Settings that make a bundle's training small."""
    settings = TINY | (DIFFUSION | CONVOLUTIONAL).get(name, {"network_def::channels": [8, 16]})
    return {key: value for key, value in settings.items() if name not in WHOLE or key != "validate::dataset::size"}


def training(name: str, data: Path, output: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    """A small training run, initialized."""
    settings = {**tiny(name), "dataset_dir": str(data), "output_dir": str(output), **overrides}
    workflow = ConfigWorkflow(config_file=config(name, "train.yaml", *overlays), workflow_type="train", **settings)
    workflow.initialize()
    return workflow


def dataset(name: str, root: Path) -> Path:
    """Clean images for training on the fly, or pairs for an expert that needs them."""
    modality = SECTIONS[name]["modality"]
    if modality == "CT":
        return paired_folder(root, modality, SECTIONS[name]["degradation"])
    for split in ("train", "val"):
        save(clean_image(modality), modality, root / split / "clean")
    return root


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_config_is_a_mapping_without_machine_paths(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    assert content
    assert "/home/" not in path.read_text()


@pytest.mark.parametrize("name", EXPERTS)
def test_training_learns(name: str, tmp_path: Path) -> None:
    data = dataset(name, tmp_path)
    # no zero_init: learning from zero takes longer than a test may
    settings = {"lr": 0.004, "max_epochs": 3, "crops_per_epoch": 64, "zero_init": False}
    if name in DIFFUSION or name in MODERN:
        settings |= {"minutes": None, "network_def::zero_init": False}  # the rate would rise over a minute first
    if name in ON_PAIRS:
        settings |= {"lr": 0.01, "crops_per_epoch": 160}  # gates that start at zero open slowly
    workflow = training(name, data, tmp_path / "run", "train_cpu.yaml", **settings)
    assert workflow.check_properties() == []
    get = workflow.parser.get_parsed_content
    batch = next(iter(get("train::dataloader")))
    image, target, arguments, keywords = get("train::prepare")(batch, "cpu")

    def loss() -> float:
        with torch.no_grad():
            network = get("train::trainer").network
            return float(get("loss")(get("train::inferer")(image, network, *arguments, **keywords), target))

    before = loss()
    workflow.run()
    assert loss() < 0.97 * before
    assert get("validate::evaluator").state.metrics["val_psnr"] > 0
    exported = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert exported.keys() == get("network").state_dict().keys()
    board = EventAccumulator(str(tmp_path / "run"))
    board.Reload()
    assert {"val_psnr", "train_loss"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["validation/0", "validation/1"]


@pytest.mark.parametrize("name", [name for name in EXPERTS if SECTIONS[name]["modality"] != "CT"])
def test_measured_pairs_are_used_when_they_are_there(name: str, tmp_path: Path) -> None:
    data = paired_folder(tmp_path, SECTIONS[name]["modality"], SECTIONS[name]["degradation"])
    workflow = training(name, data, tmp_path / "run")
    workflow.run()
    get = workflow.parser.get_parsed_content
    assert get("paired") is True
    used = "train" if name in ON_PAIRS or name not in DIFFUSION else "validate"
    assert set(get(f"{used}::dataset")[0]) == {"clean", "noisy"}
    assert get("train::dataset")[0]["clean" if used == "train" else "image"].shape[-1] == get("crop_size")
    assert latest_checkpoint(tmp_path / "run") is not None


@pytest.mark.parametrize("name", ["superres_mri_unet", "superres_mri_dit", "superres_mri_sit"])
def test_measured_pairs_come_with_neighbours(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, kind in itertools.product(("train", "val"), ("clean", "noisy")):
        (tmp_path / split / kind).mkdir(parents=True)
        array = 100 + 800 * gaussian_filter(random.random((64, 64, 4)), 2)
        scan = nibabel.Nifti1Image(array.astype(np.int16), np.eye(4))
        nibabel.save(scan, tmp_path / split / kind / "head.nii.gz")
    workflow = training(name, tmp_path, tmp_path / "run", batch_size=2, alone=0.0, min_std=0.0)
    batch = next(iter(workflow.parser.get_parsed_content("train::dataloader")))
    validated = workflow.parser.get_parsed_content("validate::dataset")[0]["noisy"]
    for noisy in (*batch["noisy"], validated):
        assert len(noisy) == 5
        assert not torch.equal(noisy[0], noisy[4])


@pytest.mark.parametrize("overlay", ["train_cpu.yaml", "train_gpu.yaml", "evaluate.yaml", "multi_gpu_train.yaml"])
@pytest.mark.parametrize("name", EXPERTS)
def test_overlay_changes_what_is_there(name: str, overlay: str) -> None:
    """A misspelt key in an overlay would be added beside the one it means, and change nothing."""
    base, *_, changes = (yaml.safe_load(Path(path).read_text()) for path in config(name, "train.yaml", overlay))
    new = {"finalize", "weights", "validate::evaluator::weights"}
    for key in changes.keys() - new:
        *parents, last = key.split("::")
        part = base
        for parent in parents:
            part = part[parent]
        assert last in part, key


def test_defaults_are_the_classic_recipe() -> None:
    for name in set(EXPERTS) - set(DIFFUSION) - MODERN:
        recipe = yaml.safe_load((ROOT / "bundles" / name / "configs" / "train.yaml").read_text())
        assert (recipe["lr"], recipe["max_epochs"], recipe["checkpoint_interval"]) == (1e-4, 100, 5)
        assert recipe["optimizer"]["_target_"] == "torch.optim.Adam"
        assert recipe["loss"]["_target_"] == "torch.nn.L1Loss"


def run_with(path: Path) -> list[str]:
    """The config files of the command in the head of an overlay, or the overlay on the recipe that it goes with."""
    if path.name in ("train.yaml", "inference.yaml"):
        return [str(path)]
    head = re.search(r"\[('[^]]+\.yaml')\]", re.sub(r"\\\n#\s*", "", path.read_text()))
    names = [path.name, "train.yaml"][::-1] if head is None else re.findall(r"'(.+?)'", head[1])
    return [str(path.with_name(name)) for name in names]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("bundles/*/configs/*.yaml")), ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_every_setting_has_an_effect(path: Path) -> None:
    """Those of another recipe are set to null."""
    parser = ConfigParser()
    parser.read_config(run_with(path))
    assert unused(parser.get()) == []


def test_settings_without_effect_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset("noise_photo_unet", tmp_path)
    with caplog.at_level(logging.WARNING):
        wrong = {"epochs": 3, "all_planes": True, "logging_file": False}
        size = {"validate::dataset::size": "@val_crop_size", "val_crop_size": 64}
        workflow = training("noise_photo_unet", data, tmp_path / "run", uneven=0.5, **size, **wrong)
        workflow.run()
    told = [line for line in caplog.messages if "no effect" in line]
    assert told == [
        f"nothing in this configuration refers to {key}: it has no effect" for key in ("epochs", "all_planes")
    ]


@pytest.mark.parametrize("overlays", [(), ("train_cpu.yaml",)], ids=["train", "train_cpu"])
def test_training_resumes_where_it_stopped(overlays: tuple[str, ...], tmp_path: Path) -> None:
    data = dataset("noise_photo_unet", tmp_path)
    # iterations: a schedule for two epochs of four, of which the first run does one
    first = training("noise_photo_unet", data, tmp_path / "run", *overlays, iterations=8)
    first.run()
    second = training("noise_photo_unet", data, tmp_path / "run", *overlays, iterations=8, max_epochs=2, resume=True)
    get = second.parser.get_parsed_content
    get("train::trainer")  # attaching the handlers loads the checkpoint
    weights = first.parser.get_parsed_content("network").state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in get("network").state_dict().items())
    assert get("lr_scheduler").last_epoch == 4
    second.run()
    trainer = get("train::trainer")
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 8)
    assert {int(state["step"]) for state in get("optimizer").state.values()} == {8}


def test_training_starts_afresh_where_it_is_told_to(tmp_path: Path) -> None:
    data = dataset("noise_photo_unet", tmp_path)
    for overwrite in (False, True):
        workflow = training("noise_photo_unet", data, tmp_path / "run", overwrite=overwrite)
        workflow.run()
        assert workflow.parser.get_parsed_content("train::trainer").state.iteration == 4


@pytest.mark.parametrize("path", sorted(ROOT.glob("bundles/*/configs/train.yaml")), ids=lambda path: path.parts[-3])
def test_every_training_knows_minutes(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    assert recipe["budget"]["minutes"] == "@minutes"
    assert recipe["train"]["trainer"]["budget"] == "@budget"
    assert "minutes" in recipe


@pytest.mark.parametrize("path", sorted(ROOT.glob("bundles/*/configs/train.yaml")), ids=lambda path: path.parts[-3])
def test_every_training_can_be_resumed_or_replaced(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    assert (recipe["resume"], recipe["overwrite"]) == (False, False)
    assert recipe["train"]["trainer"]["resume"] == "@resume"
    assert recipe["train"]["trainer"]["overwrite"] == "@overwrite"


@pytest.mark.parametrize("overlays", [(), ("train_cpu.yaml",)], ids=["train", "train_cpu"])
@pytest.mark.parametrize("name", EXPERTS)
def test_minutes_end_a_training(name: str, overlays: tuple[str, ...], tmp_path: Path) -> None:
    """And set the learning rate from that of the config on, whatever schedule there is without them."""
    workflow = training(name, dataset(name, tmp_path), tmp_path / "run", *overlays, minutes=60, lr=0.01)
    get = workflow.parser.get_parsed_content
    trainer, budget = get("train::trainer"), get("budget")
    budget.spent = 30.6  # half of what follows the warm-up
    rates: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: rates.append(get("optimizer").param_groups[0]["lr"]))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: setattr(budget, "spent", 60.0))
    workflow.run()
    assert rates == pytest.approx([0.005, 0.005, 0.0], abs=2e-4)


@pytest.mark.slow
def test_training_spreads_over_two_processes(tmp_path: Path) -> None:
    data = dataset("noise_photo_unet", tmp_path)
    files = config("noise_photo_unet", "train.yaml", "multi_gpu_train.yaml")
    settings = {**tiny("noise_photo_unet"), "dataset_dir": data, "output_dir": tmp_path / "run", "config_file": files}
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
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    state = torch.load(newest, weights_only=True)["trainer"]
    assert state["iteration"] == 2, "each process takes half of the 32 crops, 8 at a time"
    assert (tmp_path / "run" / "model.pt").is_file()


@pytest.mark.parametrize("name", EXPERTS)
def test_evaluation_counts_rightly(name: str, tmp_path: Path) -> None:
    """With weights that change nothing, the table must show the PSNR of the degraded images themselves."""
    modality, degradation = SECTIONS[name]["modality"], SECTIONS[name]["degradation"]
    data = paired_folder(tmp_path, modality, degradation)
    settings = {"dataset_dir": str(data), "output_dir": str(tmp_path / "result"), "weights": str(tmp_path / "model.pt")}
    files = config(name, "train.yaml", "evaluate.yaml")
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", **settings, **{"network_def::zero_init": True})
    workflow.initialize()
    get = workflow.parser.get_parsed_content
    torch.save(get("network_def").state_dict(), tmp_path / "model.pt")
    workflow.run()
    with open(tmp_path / "result" / "metrics.csv") as file:
        table = {row[0]: float(row[1]) for row in csv.reader(file) if len(row) == 2}
    clean, noisy = get("validate::images")[0]
    low, high = (-0.16, 0.24) if modality == "CT" else (0.0, 1.0)
    if modality == "CT":
        clean, noisy = clean.clip(low, high), noisy.clip(low, high)
    expected = 10 * torch.log10((high - low) ** 2 / torch.tensor(((clean - noisy) ** 2).mean()))
    assert table["val_psnr"] == pytest.approx(float(expected), abs=0.01)
    assert 0 < table["val_ssim"] < 1
    assert (tmp_path / "result" / "val_psnr_raw.csv").is_file()


@pytest.mark.parametrize("name", EXPERTS)
def test_evaluation_of_some_images(name: str, tmp_path: Path) -> None:
    """Measured pairs, too."""
    modality = SECTIONS[name]["modality"]
    data = paired_folder(tmp_path, modality, SECTIONS[name]["degradation"])
    for kind in ("clean", "noisy"):
        (scan,) = (data / "val" / kind).iterdir()
        shutil.copy(scan, scan.with_name(f"second_{scan.name}"))
    settings = {"dataset_dir": str(data), "output_dir": str(tmp_path / "result")}
    files = config(name, "train.yaml", "evaluate.yaml")
    for limit, count in ((None, 2), (1, 1)):
        workflow = ConfigWorkflow(config_file=files, workflow_type="train", **settings, val_limit=limit)
        workflow.initialize()
        assert len(workflow.parser.get_parsed_content("validate::dataset")) == count


def test_evaluation_degrades_clean_images(tmp_path: Path) -> None:
    data = dataset("noise_photo_unet", tmp_path)
    settings = {"dataset_dir": str(data), "output_dir": str(tmp_path / "result"), "weights": str(tmp_path / "model.pt")}
    files = config("noise_photo_unet", "train.yaml", "evaluate.yaml")
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", **settings, **{"network_def::zero_init": True})
    workflow.initialize()
    torch.save(workflow.parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    workflow.run()
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert metrics["val_psnr"] == pytest.approx(20.17, abs=0.1), "noise of 25/255 is 20.17 dB"
