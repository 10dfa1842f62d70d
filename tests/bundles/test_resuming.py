"""Recipes of bundles, stopped after an epoch and resumed: the same batches, weights and curves as without a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

from tests.bundle_cases import ROOT
from tests.bundles import test_cifar10_bundle as cifar10
from tests.bundles.test_configs import dataset, training
from tests.labelled_folder import write_labelled

Recipe = Callable[..., ConfigWorkflow]


def crops(folder: Path) -> Recipe:
    """Crops and their noise, in a cycle of learning rates."""
    data = dataset("noise_photo_unet", folder)
    return lambda output, **settings: training("noise_photo_unet", data, output, "train_cpu.yaml", **settings)


def workers(folder: Path) -> Recipe:
    """The same in workers of the loader."""
    recipe = crops(folder)
    return lambda output, **settings: recipe(output, **settings, **{"train::dataloader::num_workers": 2})


def labelled(folder: Path) -> Recipe:
    """Images in random order, with labels dropped and noise at random times."""
    data = write_labelled(folder)
    return lambda output, **settings: cifar10.training(data, output, lr=0.004, train_limit=45, **settings)


def augmented(folder: Path) -> Recipe:
    """Slices in random order, through the random transforms of MONAI."""
    random = np.random.default_rng(0)
    for patient in ("SC-N-01", "SC-N-05"):
        image = random.random((4, 192, 192), np.float32)
        np.savez(folder / f"{patient}.npz", image=image, label=(image > 0.5).astype(np.uint8))
    settings = {
        "dataset_dir": str(folder), "val_patients": ["SC-N-05"], "test_patients": [], "batch_size": 2, "minutes": None,
        "network_def::channels": [4, 8], "network_def::strides": [2], "precision": "float32",
        "checkpoint_interval": 1, "val_interval": 1,
    }  # fmt: skip

    def recipe(output: Path, **further: Any) -> ConfigWorkflow:
        config = ROOT / "bundles" / "segment_cardiac_unet" / "configs" / "train.yaml"
        given = {**settings, "output_dir": str(output), **further}
        workflow = ConfigWorkflow(config_file=str(config), workflow_type="train", **given)
        workflow.initialize()
        return workflow

    return recipe


def run(workflow: ConfigWorkflow, stop: int | None = None) -> tuple[list[bytes], dict[str, torch.Tensor], Any]:
    """Train to the end, or to that of an epoch: inputs, averaged weights and the evaluator's state."""
    get, inputs = workflow.parser.get_parsed_content, []
    trainer = get("train::trainer")

    def note(engine: Engine) -> None:
        output: Any = engine.state.output
        inputs.append(torch.as_tensor(output["image"]).numpy().tobytes())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    if stop is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop), lambda engine: engine.terminate())
    workflow.run()
    state = {**get("network").state_dict(), **{f"ema {k}": v for k, v in get("ema").ema_model.state_dict().items()}}
    return inputs, state, get("validate::evaluator").state


@pytest.mark.parametrize("recipe", [crops, workers, labelled, augmented])
def test_a_stop_changes_nothing(recipe: Callable[[Path], Recipe], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    start = recipe(tmp_path / "data")
    drawn, weights, validation = run(start(tmp_path / "whole", max_epochs=2))
    before, _, first = run(start(tmp_path / "parts", max_epochs=2), stop=1)
    resumed = start(tmp_path / "parts", max_epochs=2, resume=True)
    after, found, second = run(resumed)
    assert before + after == drawn
    assert len(set(drawn)) == len(drawn)
    assert weights.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in weights.items())
    assert second.metrics == validation.metrics
    assert (second.best_metric, second.best_metric_epoch) == (validation.best_metric, validation.best_metric_epoch)
    assert first.best_metric_epoch == 1


def test_the_curve_of_losses_goes_on(tmp_path: Path) -> None:
    start = labelled(tmp_path / "data")
    start(tmp_path / "run", max_epochs=1).run()
    resumed = start(tmp_path / "run", max_epochs=2, resume=True)
    resumed.run()
    (pictures,) = resumed.parser.get_parsed_content("train::handlers")
    assert len(pictures.means) == 2
