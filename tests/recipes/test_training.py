"""The recipes' trainers: what they save and write, in the first process and in the others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.handlers import EMAHandler
from monai.bundle import ConfigWorkflow
from monai.inferers import SimpleInferer
from torch import distributed, nn
from torch.utils.data import DataLoader

from monai_sasm.datasets import draws
from monai_sasm.datasets.crops import CropDataset
from monai_sasm.errors import RefusedError
from monai_sasm.recipes import processes, training
from monai_sasm.training.batches import PreparePaired
from monai_sasm.training.checkpoints import latest_checkpoint
from monai_sasm.training.handlers import StopWithoutLoss
from tests.bundle_cases import BUNDLES
from tests.ports import free_port

TRAINED = [bundle for bundle in BUNDLES if (bundle / "configs" / "train.yaml").is_file()]


BATCH = {"clean": torch.zeros(2, 1, 8, 8), "noisy": torch.ones(2, 1, 8, 8)}


def run(folder: Path, batches: Iterable[Any] = (BATCH,), **settings: Any) -> nn.Module:
    """Two epochs with a convolution."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 3, padding=1)
    trainer = training.trainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=nn.MSELoss(),
        inferer=SimpleInferer(),
        prepare_batch=PreparePaired(),
        output_dir=folder,
        **settings,
    )
    trainer.run()
    return network


def test_a_run_leaves_weights_checkpoints_and_losses(tmp_path: Path) -> None:
    network = run(tmp_path)
    exported = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(exported["bias"].float(), network.bias.detach(), atol=1e-3, rtol=0)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert set(torch.load(newest, weights_only=True)) == {"network", "optimizer", "trainer"}
    assert list(tmp_path.glob("events*"))


def test_the_average_is_what_is_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ema = EMAHandler(nn.Conv2d(1, 1, 3, padding=1), momentum=1e-9)
    run(tmp_path, ema=ema)
    exported = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(exported["bias"].float(), ema.ema_model.bias.detach(), atol=1e-3, rtol=0)


def test_a_training_without_a_loss_ends_and_exports_nothing(tmp_path: Path) -> None:
    lost = {"clean": torch.zeros(2, 1, 8, 8), "noisy": torch.full((2, 1, 8, 8), torch.nan)}
    with pytest.raises(FloatingPointError, match=r"no finite number in the last 10 batches, up to the 15th.*rate"):
        run(tmp_path, batches=[BATCH] * 5 + [lost] * 20)
    assert not (tmp_path / "model.pt").exists()
    assert latest_checkpoint(tmp_path) is None


def test_one_batch_that_ruins_the_weights_costs_no_earlier_ones(tmp_path: Path) -> None:
    """Epochs of one batch: the weights would be saved ten times before the loss is missed."""
    lost = {"clean": torch.zeros(2, 1, 8, 8), "noisy": torch.full((2, 1, 8, 8), torch.nan)}

    class Batches(list[Any]):
        epoch = 0

        def __iter__(self) -> Any:
            self.epoch += 1
            return iter([BATCH if self.epoch == 1 else lost])

    with pytest.raises(FloatingPointError, match=r"after batch 2 the weights are no finite numbers, and are not saved"):
        run(tmp_path, batches=Batches([BATCH]))
    assert [path.name for path in tmp_path.glob("checkpoint_*.pt")] == ["checkpoint_1.pt"]
    exported = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(weight.isfinite().all() for weight in exported.values())


def test_a_training_without_a_batch_is_refused(tmp_path: Path) -> None:
    few = DataLoader(CropDataset([np.zeros((1, 8, 8), np.float32)], 8, length=3), batch_size=4, drop_last=True)
    with pytest.raises(RefusedError, match=r"no batch: 3 examples are fewer than batch_size=4; .*crops_per_epoch"):
        run(tmp_path, batches=few)
    assert not list(tmp_path.iterdir())


def test_adversarial_training_is_refused_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "processes", lambda: 2)
    settings: dict[str, Any] = dict.fromkeys(("loss_function", "inferer", "discriminator", "d_optimizer", "optimizer"))
    with pytest.raises(RefusedError, match=r"runs in one process: leave torchrun and multi_gpu_train\.yaml out"):
        training.adversarial_trainer("cpu", 1, [BATCH], nn.Identity(), output_dir=tmp_path, weight=1.0, **settings)


def test_one_batch_without_a_loss_is_passed_over(tmp_path: Path) -> None:
    handler = StopWithoutLoss()
    engine = SimpleNamespace(state=SimpleNamespace(iteration=1, output=None))
    for value in (torch.inf, torch.nan, *[torch.inf] * 7, 1.0, *[torch.nan] * 9):
        engine.state.output = {"loss": torch.tensor(value)}
        handler(engine)
    with pytest.raises(FloatingPointError):
        handler(engine)


def test_an_earlier_training_is_kept(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(RefusedError, match=r"holds checkpoint_2\.pt .* resume it .* \(overwrite=True\)"):
        run(tmp_path)
    for checkpoint in tmp_path.glob("checkpoint_*.pt"):
        checkpoint.unlink()
    for resume in (False, True):  # there is nothing to go on from
        with pytest.raises(RefusedError, match=r"holds model\.pt of an earlier training: .* output_dir, or replace it"):
            run(tmp_path, resume=resume)
    assert (tmp_path / "model.pt").read_bytes() == before
    run(tmp_path, overwrite=True)
    run(tmp_path, resume=True)


def test_other_processes_write_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "process", lambda: 1)
    run(tmp_path)
    assert not (tmp_path / "model.pt").exists()
    assert not list(tmp_path.glob("events*"))


def test_one_process_needs_no_wrapping() -> None:
    network = nn.Identity()
    assert processes.spread(network, "cpu") is network
    assert processes.default_device().type in ("cpu", "cuda")


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=["name", "device"])
def test_processes_join_and_leave(device: torch.device | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of the command line is a name."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    processes.join(device, seed=0)
    try:
        assert distributed.get_backend() == "gloo"
        assert (draws.process(), draws.processes()) == (0, 1)
    finally:
        processes.leave()


@pytest.mark.parametrize(("device", "number"), [("cuda", 3), ("cuda:1", torch.device("cuda:1"))])
def test_each_process_has_a_gpu(device: str, number: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one: NCCL and CUDA are stand-ins."""
    chosen: list[Any] = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(distributed, "init_process_group", chosen.append)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    processes.join(device, seed=0)
    assert chosen == ["nccl", number]


@pytest.mark.parametrize("bundle", TRAINED, ids=lambda path: path.name)
def test_training_has_the_properties_monai_asks_for(bundle: Path) -> None:
    """Ids alone: no data are read."""
    config = str(bundle / "configs" / "train.yaml")
    workflow = ConfigWorkflow(config_file=config, workflow_type="train")
    workflow.initialize()
    properties = workflow.properties or {}
    required = {item["id"] for item in properties.values() if item["required"]}
    assert [name for name in required if name not in workflow.parser] == []
    wrong = [
        name
        for name, item in properties.items()
        if not item["required"] and not workflow._check_optional_id(name=name, property=item)
    ]
    assert wrong == []
