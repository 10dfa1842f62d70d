"""The trainer of a bundle with what every training here does beside its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from ignite.handlers import EMAHandler
from monai.engines import AdversarialTrainer, SupervisedTrainer, default_prepare_batch
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler
from monai.inferers import Inferer
from monai.networks.nets import MultiScalePatchDiscriminator
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from monai_sasm.bundles.running import warn_of_unused
from monai_sasm.datasets.draws import process, processes
from monai_sasm.errors import RefusedError
from monai_sasm.recipes.processes import spread
from monai_sasm.training.adversarial import GeneratorLoss, JudgeInferer, JudgeLoss, RestorationRules
from monai_sasm.training.budget import TimeBudget
from monai_sasm.training.checkpoints import Checkpoints, keep_earlier
from monai_sasm.training.handlers import (
    Attach,
    AverageWeights,
    BestMetric,
    ClipGradientNorm,
    ExportWeights,
    LogMeanLoss,
    SeedEpochs,
    ShowProgress,
    StopWithoutLoss,
)
from monai_sasm.training.precision import Autocast


def trainer(
    device: torch.device | str,
    max_epochs: int,
    train_data_loader: Iterable[Any],
    network: nn.Module,
    optimizer: Optimizer,
    loss_function: Callable[..., Any],
    inferer: Inferer,
    output_dir: str | Path,
    prepare_batch: Callable[..., Any] = default_prepare_batch,
    precision: str = "float32",
    channels_last: bool = True,
    train_handlers: Sequence[Any] = (),
    **around: Any,
) -> SupervisedTrainer:
    """MONAI's ``SupervisedTrainer`` in mixed precision, over all processes of a distributed run.

    Args:
        device, max_epochs, train_data_loader, optimizer, loss_function, inferer, prepare_batch: as MONAI's.
        network: what a batch is run through.
        output_dir: folder for ``model.pt``, checkpoints and TensorBoard.
        precision: see :class:`~monai_sasm.training.precision.Autocast`.
        channels_last: likewise; 2-D networks only.
        train_handlers: further handlers; what they have to keep, a ``state_dict``, goes into checkpoints.
        around: further arguments of :func:`handlers`.

    Raises:
        RefusedError: an epoch has no batch; or as for :func:`handlers`.
    """
    _check_batches(train_data_loader)
    model = around.get("model")
    around["saved"] = stateful(train_handlers) | dict(around.get("saved") or {})
    clip = ClipGradientNorm(network if model is None else model)
    return SupervisedTrainer(
        device=device,
        max_epochs=max_epochs,
        train_data_loader=train_data_loader,
        network=spread(Autocast(network, precision, channels_last), device),
        optimizer=optimizer,
        loss_function=loss_function,
        prepare_batch=prepare_batch,
        inferer=inferer,
        train_handlers=[clip, *handlers(output_dir, network, optimizer, **around), *train_handlers],
        decollate=False,
    )


def adversarial_trainer(
    device: torch.device | str,
    max_epochs: int,
    train_data_loader: Iterable[Any],
    network: nn.Module,
    optimizer: Optimizer,
    loss_function: Callable[..., Any],
    inferer: Inferer,
    output_dir: str | Path,
    discriminator: nn.Module,
    d_optimizer: Optimizer,
    weight: float,
    prepare_batch: Callable[..., Any] = default_prepare_batch,
    precision: str = "float32",
    train_handlers: Sequence[Any] = (),
    **around: Any,
) -> AdversarialTrainer:
    """MONAI's ``AdversarialTrainer``; arguments as for :func:`trainer`, whose place it takes in an overlay.

    Args:
        discriminator: a ``MultiScalePatchDiscriminator``, on its device.
        d_optimizer: its optimizer.
        weight: of the loss of not passing as clean, beside ``loss_function``.

    Raises:
        RefusedError: as for :func:`trainer`; or there are several processes.
    """
    if processes() > 1:  # each would train a generator of its own, and all but the first for nothing
        raise RefusedError("adversarial training runs in one process: leave torchrun and multi_gpu_train.yaml out")
    _check_batches(train_data_loader)
    saved = {"judge": discriminator, "judge_optimizer": d_optimizer, **stateful(train_handlers)}
    attached = handlers(output_dir, network, optimizer, saved=saved, **around)
    return AdversarialTrainer(
        device=device,
        max_epochs=max_epochs,
        train_data_loader=train_data_loader,
        g_network=Autocast(network, precision),
        g_optimizer=optimizer,
        g_loss_function=GeneratorLoss(weight),
        recon_loss_function=loss_function,
        d_network=discriminator,
        d_optimizer=d_optimizer,
        d_loss_function=JudgeLoss(),
        d_inferer=JudgeInferer(),
        prepare_batch=prepare_batch,
        g_inferer=inferer,
        train_handlers=[Attach(RestorationRules()), *attached, *train_handlers],
        decollate=False,
    )


def patch_discriminator(device: torch.device | str, minimum_size_im: int, channels: int = 24) -> nn.Module:
    """Tells restored from clean grey slices at two scales, patch by patch (Wang et al. 2018, pix2pixHD).

    Args:
        device: where it goes.
        minimum_size_im: side of the crops in pixels.
        channels: of its first layer; the finer scale has one layer, the coarser one two.
    """
    return MultiScalePatchDiscriminator(
        num_d=2,
        num_layers_d=1,
        spatial_dims=2,
        channels=channels,
        in_channels=1,
        norm="INSTANCE",
        minimum_size_im=minimum_size_im,
    ).to(device)


def handlers(
    output_dir: str | Path,
    network: nn.Module,
    optimizer: Optimizer,
    model: nn.Module | None = None,
    lr_scheduler: Any = None,
    budget: TimeBudget | None = None,
    ema: EMAHandler | None = None,
    checkpoint_interval: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    evaluator: Any = None,
    val_interval: int = 1,
    saved: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Learning rate, average of the weights, checkpoints, validation; export, losses and a bar in the first process.

    Args:
        output_dir: see :func:`trainer`.
        network: what is trained.
        optimizer: of it.
        model: what is saved, where ``network`` is only a part or a view of it.
        lr_scheduler: steps after every batch; its length is that of this run, not of the one that is resumed.
        budget: sets the learning rate by the clock instead.
        ema: running average of the weights: what is validated and exported; the weights themselves without.
        checkpoint_interval: epochs between checkpoints, and between exports.
        resume: go on from the newest checkpoint, see :class:`~monai_sasm.training.checkpoints.Checkpoints`.
        overwrite: start afresh in a folder that holds an earlier training.
        evaluator: runs every ``val_interval`` epochs; no validation without.
        val_interval: epochs.
        saved: name -> what else a checkpoint holds.

    Raises:
        RefusedError: ``output_dir`` holds an earlier training that is neither resumed nor to be overwritten.
    """
    weights = Path(output_dir) / "model.pt"
    if not overwrite:
        keep_earlier(weights, resume)
    model = network if model is None else model
    averaged = model if ema is None else ema.ema_model
    objects = {
        "network": model,
        "ema": ema and averaged,
        "optimizer": optimizer,
        "lr_scheduler": lr_scheduler,
        "budget": budget,
        "validation": evaluator and BestMetric(evaluator),
        **(saved or {}),
    }
    attached: list[Any] = [SeedEpochs(), StopWithoutLoss(model)]
    if lr_scheduler is not None:
        attached.append(LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False))
    if budget is not None:
        attached.append(Attach(budget))
    if ema is not None:
        attached.append(AverageWeights(ema))
    objects = {name: part for name, part in objects.items() if part is not None}
    attached.append(Checkpoints(output_dir, objects, interval=checkpoint_interval, resume=resume, overwrite=overwrite))
    if evaluator is not None:
        attached.append(ValidationHandler(val_interval, evaluator, epoch_level=True))
    if process() == 0:
        warn_of_unused()
        attached += [
            ExportWeights(averaged, weights, interval=checkpoint_interval),
            LogMeanLoss(),
            ShowProgress(),
            TensorBoardStatsHandler(
                log_dir=str(output_dir), tag_name="train_loss", output_transform=itemgetter("loss")
            ),
        ]
    return attached


def _check_batches(loader: Iterable[Any]) -> None:
    """MONAI would warn, train nothing and write no weights."""
    if isinstance(loader, Sized) and not len(loader):
        examples, size = getattr(loader, "dataset", ()), getattr(loader, "batch_size", None)
        raise RefusedError(
            f"an epoch has no batch: {len(examples)} examples are fewer than batch_size={size}; give more images or "
            "crops (crops_per_epoch), or take a smaller batch_size"
        )


def stateful(train_handlers: Sequence[Any]) -> dict[str, Any]:
    """Those handlers that a checkpoint holds, by their place and class."""
    return {
        f"{number}_{type(handler).__name__}": handler
        for number, handler in enumerate(train_handlers)
        if hasattr(handler, "state_dict")
    }


def shuffled_loader(dataset: Dataset[Any], batch_size: int, seed: int = 0) -> DataLoader[Any]:
    """Batches of one size in random order; in a distributed run each process sees its own share of ``dataset``."""
    sampler: DistributedSampler[Any] | None = DistributedSampler(dataset, seed=seed) if processes() > 1 else None
    return DataLoader(dataset, batch_size, shuffle=sampler is None, sampler=sampler, drop_last=True)
