"""What a validation measures and writes, while training and by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.data
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import (
    CheckpointLoader,
    HausdorffDistance,
    IgniteMetricHandler,
    MeanDice,
    MetricsSaver,
    PeakSignalToNoiseRatio,
    StatsHandler,
    TensorBoardStatsHandler,
    from_engine,
)
from monai.metrics import SSIMMetric
from torch import nn
from torch.utils.data import DataLoader, Dataset

from monai_sasm.bundles.running import warn_of_unused
from monai_sasm.datasets.draws import process
from monai_sasm.training.outputs import windowed
from monai_sasm.training.pictures import LogPictures


def image_metrics(window: Sequence[float] | None = None, ssim: bool = True) -> dict[str, Any]:
    """PSNR of restored images, the key metric, in dB; and SSIM.

    Args:
        window: values shown black and white, in working scale; images are cut to it. ``None``: they are compared
            whole, with data range 1.
        ssim: add SSIM, with a Gaussian window of 11 x 11, sigma 1.5 (Wang et al. 2004).

    Returns:
        ``val_psnr`` and ``val_ssim``, for a MONAI evaluator's ``key_val_metric``.
    """
    compared = from_engine(["pred", "label"]) if window is None else windowed(*window)
    metrics: dict[str, Any] = {"val_psnr": PeakSignalToNoiseRatio(max_val=1.0, output_transform=compared)}
    if ssim:
        metrics["val_ssim"] = IgniteMetricHandler(
            SSIMMetric(spatial_dims=2, data_range=1.0), output_transform=compared, save_details=True
        )
    return metrics


def region_metrics(include_background: bool = False, hausdorff: bool = False) -> dict[str, Any]:
    """Mean Dice of segmented regions, the key metric; and their 95 % Hausdorff distance, in voxels, on request.

    Args:
        include_background: the first channel is a region like the others.
        hausdorff: add the distance.

    Returns:
        ``val_dice`` and ``val_hd95``, for a MONAI evaluator's ``key_val_metric``.
    """
    compared = from_engine(["pred", "label"])
    metrics: dict[str, Any] = {"val_dice": MeanDice(include_background, output_transform=compared)}
    if hausdorff:
        metrics["val_hd95"] = HausdorffDistance(include_background, percentile=95, output_transform=compared)
    return metrics


def evaluator(
    device: torch.device | str,
    dataset: Dataset[Any],
    network: nn.Module,
    key_val_metric: dict[str, Any],
    output_dir: str | Path,
    batch_size: int = 1,
    window: Sequence[float] | None = None,
    pictures: bool = True,
    **engine: Any,
) -> SupervisedEvaluator:
    """MONAI's ``SupervisedEvaluator`` beside a training: metrics in the log and in TensorBoard.

    Args:
        device, network, key_val_metric: as MONAI's.
        dataset: what is validated on.
        output_dir: of TensorBoard; in a distributed run the first process writes.
        batch_size: images at a time.
        window: see :func:`image_metrics`; of the pictures.
        pictures: show restored images, too.
        engine: further arguments of MONAI's.
    """
    written: list[Any] = []
    if process() == 0:
        low, high = window or (0.0, 1.0)
        written += [
            StatsHandler(iteration_log=False),
            TensorBoardStatsHandler(log_dir=str(output_dir), iteration_log=False),
        ]
        written += [LogPictures(str(output_dir), low=low, high=high)] if pictures else []
    return _engine(
        dataset,
        batch_size,
        device=device,
        network=network,
        key_val_metric=key_val_metric,
        val_handlers=written,
        **engine,
    )


def evaluation(
    device: torch.device | str,
    dataset: Dataset[Any],
    network: nn.Module,
    key_val_metric: dict[str, Any],
    output_dir: str | Path,
    weights: str | Path,
    batch_size: int = 1,
    names: str | None = "name",
    window: Sequence[float] | None = None,
    pictures: bool = False,
    **engine: Any,
) -> SupervisedEvaluator:
    """In place of :func:`evaluator`, to measure weights by themselves.

    Args:
        device, dataset, network, key_val_metric, batch_size, engine: see there.
        output_dir: folder for ``metrics.csv`` (means) and, with ``names``, one ``<metric>_raw.csv`` per metric.
        weights: state dict that ``network`` is filled from.
        names: key under which a batch holds each image's name, or the image whose metadata hold it.
        window, pictures: taken so that an overlay need only exchange the ``_target_``; they do nothing.
    """
    warn_of_unused()
    details = None if names is None else "*"
    measured = [
        CheckpointLoader(str(weights), {"model": network}),
        StatsHandler(iteration_log=False),
        MetricsSaver(str(output_dir), metric_details=details, batch_transform=_named(names)),
    ]
    return _engine(
        dataset,
        batch_size,
        device=device,
        network=network,
        key_val_metric=key_val_metric,
        val_handlers=measured,
        **engine,
    )


def _engine(dataset: Dataset[Any], batch_size: int, **engine: Any) -> SupervisedEvaluator:
    loader = monai.data.DataLoader if isinstance(dataset, monai.data.Dataset) else DataLoader  # it collates metadata
    return SupervisedEvaluator(val_data_loader=loader(dataset, batch_size=batch_size), **engine)


def _named(key: str | None) -> Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]:
    """``batch_transform`` that gives MONAI's ``MetricsSaver`` the metadata in which it looks for file names."""

    def metadata(batch: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        if key is None:
            return batch
        return [getattr(item[key], "meta", None) or {"filename_or_obj": item[key]} for item in batch]

    return metadata
