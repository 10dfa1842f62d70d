"""The labelled diffusion bundle: training learns, resumes and draws; its overlays classify, generate and measure."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_sasm.training.checkpoints import latest_checkpoint
from tests.bundle_cases import ROOT
from tests.labelled_folder import COLOURS, write_labelled

CONFIGS = ROOT / "bundles" / "cifar10_diffusion" / "configs"
TINY = {
    "channels": [8, 16],
    "unet::network::norm_num_groups": 4,
    "unet::network::num_head_channels": 8,
    "precision": "float32",
    "minutes": None,
    "batch_size": 15,
    "checkpoint_interval": 1,
    "val_interval": 1,
    "picture_interval": 0,
    "shift": 1,
}


def files(*names: str) -> list[str]:
    """Paths of configs of the bundle."""
    return [str(CONFIGS / name) for name in names]


def training(data: Path, output: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    """A small training run, initialized."""
    settings = {**TINY, "dataset_dir": str(data), "output_dir": str(output), **overrides}
    workflow = ConfigWorkflow(
        config_file=files("train.yaml", "train_cpu.yaml", *overlays), workflow_type="train", **settings
    )
    workflow.initialize()
    return workflow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of evenly coloured images."""
    return write_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> ConfigWorkflow:
    """Noise prediction for 24 steps."""
    alone = {"wrong": 0, "contrast": 0.0, "skew": 1.0}
    workflow = training(data, tmp_path_factory.mktemp("run"), max_epochs=4, lr=0.004, **alone)
    workflow.run()
    return workflow


def test_training_learns_and_draws(trained: ConfigWorkflow) -> None:
    assert trained.check_properties() == []
    get = trained.parser.get_parsed_content
    folder = Path(get("output_dir"))
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    board.Reload()
    losses = [event.value for event in board.Scalars("train_loss")]
    assert len(losses) == 24
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    assert {"forward", "reverse", "samples"} <= set(board.Tags()["images"])
    assert {"noise/true, t = 200", "noise/predicted, t = 200"} <= set(board.Tags()["histograms"])
    pictures = {path.name: Image.open(path).size for path in (folder / "pictures").glob("*.png")}
    assert set(pictures) == {"forward.png", "loss.png", "noise_0004.png", "reverse_0004.png", "samples_0004.png"}
    assert pictures["samples_0004.png"] == (2 * (8 * 18 - 2), 2 * (10 * 18 - 2)), "eight samples of ten classes"
    exported = torch.load(folder / "model.pt", weights_only=True)
    assert exported.keys() == get("network").state_dict().keys()
    assert 0 <= get("validate::evaluator").state.metrics["val_accuracy"] <= 1


def test_training_sets_the_labels_apart(data: Path, tmp_path: Path) -> None:
    settings = {"max_epochs": 24, "lr": 0.006, "times": [0, 300], "ema::momentum": 0.2}
    settings |= {"checkpoint_interval": 24, "val_interval": 24}
    settings |= {"validate::images::part": "train"}  # ten images for validation would be too few to tell
    workflow = training(data, tmp_path, **settings)
    get = workflow.parser.get_parsed_content
    assert (get("wrong"), get("network_def").passes) == (9, 12)
    workflow.run()
    assert get("validate::evaluator").state.metrics["val_accuracy"] >= 0.3, "chance is 0.1"


def test_a_label_may_be_embedded_instead(data: Path, tmp_path: Path) -> None:
    workflow = training(data, tmp_path, "label_embedding.yaml", max_epochs=1)
    get = workflow.parser.get_parsed_content
    assert (get("wrong"), get("network_def").passes) == (3, 10 * 4 + 4 * 4 + 2 * 4)
    workflow.run()
    assert 0 <= get("validate::evaluator").state.metrics["val_accuracy"] <= 1


def test_training_resumes(data: Path, tmp_path: Path) -> None:
    training(data, tmp_path, max_epochs=1).run()
    second = training(data, tmp_path, max_epochs=2, resume=True)
    second.run()
    state = second.parser.get_parsed_content("train::trainer").state
    assert (state.epoch, state.iteration) == (2, 12)
    assert latest_checkpoint(tmp_path) is not None


@pytest.mark.parametrize(
    ("base", "overlay"),
    [
        *(
            ("train.yaml", name)
            for name in ("train_cpu.yaml", "label_embedding.yaml", "train_gpu.yaml", "evaluate.yaml")
        ),
        ("train.yaml", "multi_gpu_train.yaml"),
        ("inference.yaml", "classify.yaml"),
        ("inference.yaml", "generate.yaml"),
    ],
)
def test_overlay_changes_what_is_there(base: str, overlay: str) -> None:
    new = {"finalize", "weights", "part", "per_class", "guidance", "seed", "trained", "samples"}
    new |= {"preprocessing::further", "validate::evaluator::weights", "validate::evaluator::names"}
    new |= {"unet::network::num_class_embeds"}
    before, changes = (yaml.safe_load((CONFIGS / name).read_text()) for name in (base, overlay))
    for key in changes.keys() - new:
        part = before
        for step in key.split("::"):
            assert step in part, key
            part = part[step]


def test_training_and_inference_build_the_same_network() -> None:
    states = []
    for name in ("train.yaml", "inference.yaml"):
        parser = ConfigParser()
        parser.read_config(str(CONFIGS / name))
        parser["bundle_root"] = str(CONFIGS.parent)
        states.append(parser.get_parsed_content("network_def").state_dict())
    assert {key: value.shape for key, value in states[0].items()} == {
        key: value.shape for key, value in states[1].items()
    }
    assert sum(value.numel() for value in states[0].values()) * 2 <= 5.3e6, "float16 on disk"


def fresh_weights(folder: Path) -> str:
    """Weights of an untrained network of the shipped size."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.yaml"))
    parser["bundle_root"] = str(CONFIGS.parent)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    return str(folder / "model.pt")


def test_classify_writes_a_line_per_photo(data: Path, tmp_path: Path) -> None:
    run(
        config_file=files("inference.yaml", "classify.yaml"),
        dataset_dir=str(data / "test" / "cat"),
        output_dir=str(tmp_path / "out"),
        weights=fresh_weights(tmp_path),
        rounds=[[10, 1]],
    )
    with (tmp_path / "out" / "classes.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["file", "class", *COLOURS]
    assert [line[0] for line in table[1:]] == ["0000.png", "0001.png"]
    assert all(line[1] in COLOURS for line in table[1:])


def test_generate_draws_a_row_per_class(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "weights": fresh_weights(tmp_path), "steps": 1, "per_class": 2}
    run(config_file=files("inference.yaml", "generate.yaml"), **settings)
    assert Image.open(tmp_path / "samples.png").size == (2 * (2 * 34 - 2), 2 * (10 * 34 - 2))


def test_evaluation_counts_rightly(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_sasm.experts.diffusion_classifier import DiffusionClassifier

    def always_cat(self: DiffusionClassifier, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.full((len(image),), 3), 10).float()

    monkeypatch.setattr(DiffusionClassifier, "classify", always_cat)
    settings = {"dataset_dir": str(data), "output_dir": str(tmp_path), "weights": fresh_weights(tmp_path)}
    workflow = ConfigWorkflow(config_file=files("train.yaml", "evaluate.yaml"), workflow_type="train", **settings)
    workflow.initialize()
    workflow.run()
    assert workflow.parser.get_parsed_content("validate::evaluator").state.metrics["val_accuracy"] == 0.1
    assert (tmp_path / "metrics.csv").is_file()
