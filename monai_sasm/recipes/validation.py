"""What a validation measures and writes, while training and by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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

from monai_sasm.training.draws import process
from monai_sasm.training.outputs import windowed
from monai_sasm.training.pictures import LogPictures


def image_metrics(window: Sequence[float] | None = None, ssim: bool = False) -> dict[str, Any]:
    """PSNR of restored images, the key metric, in dB; and SSIM on request.

    Args:
        window: values shown black and white, in working scale; images are cut to it. ``None``: they are compared
            whole, with data range 1.
        ssim: add SSIM with a Gaussian window of 11 x 11, sigma 1.5 (Wang et al. 2004).

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


def validation_handlers(
    output_dir: str | Path, window: Sequence[float] | None = None, pictures: bool = True
) -> list[Any]:
    """Metrics in the log and in TensorBoard, in the first process of a distributed run.

    Args:
        output_dir: of TensorBoard.
        window: see :func:`image_metrics`.
        pictures: show images restored in validation, too.
    """
    if process() > 0:
        return []
    written: list[Any] = [
        StatsHandler(iteration_log=False),
        TensorBoardStatsHandler(log_dir=str(output_dir), iteration_log=False),
    ]
    low, high = window or (0.0, 1.0)
    return [*written, LogPictures(str(output_dir), low=low, high=high)] if pictures else written


def evaluation_handlers(
    network: nn.Module, weights: str | Path, output_dir: str | Path, name: str | None = "name"
) -> list[Any]:
    """In place of :func:`validation_handlers`, to measure weights by themselves.

    Args:
        network: is filled from ``weights`` first.
        weights: state dict.
        output_dir: folder for ``metrics.csv`` (means) and, with ``name``, one ``<metric>_raw.csv`` per metric.
        name: key under which a batch holds each image's name, or the image whose metadata hold it.
    """
    return [
        CheckpointLoader(str(weights), {"model": network}),
        StatsHandler(iteration_log=False),
        MetricsSaver(
            str(output_dir),
            metric_details=None if name is None else "*",
            batch_transform=_named("" if name is None else name),
        ),
    ]


def _named(key: str) -> Callable[[Sequence[Mapping[str, Any]]], list[Mapping[str, Any]]]:
    """``batch_transform`` that gives MONAI's ``MetricsSaver`` the metadata in which it looks for file names."""

    def metadata(batch: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        if not key:
            return list(batch)
        return [getattr(item[key], "meta", None) or {"filename_or_obj": item[key]} for item in batch]

    return metadata
