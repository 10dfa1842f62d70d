"""Images to train on, clean ones or measured pairs, and what becomes of them on the way into a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from monai_sasm.bundles.running import check_modality
from monai_sasm.datasets.images import paired, photos, slices
from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr
from monai_sasm.errors import RefusedError
from monai_sasm.losses.restoration import RestorationLoss
from monai_sasm.training.batches import Prepared, PrepareDegraded, PreparePaired
from monai_sasm.training.precision import reduced
from monai_sasm.training.simulated import simulated_pairs
from monai_sasm.types import ImageBatch, NoiseMap

logger = logging.getLogger(__name__)
Images = Sequence[NDArray[Any] | tuple[NDArray[Any], ...]]


def has_pairs(folder: str | Path) -> bool:
    """Whether measured degraded images, ``<folder>/noisy``, lie beside the clean ones."""
    return (Path(folder) / "noisy").is_dir()


def _instead_of(folders: Sequence[str | Path], pairs: str | Path) -> None:
    """Say that measured pairs take the place of clean images, and refuse clean images that somebody chose."""
    if [Path(folder) for folder in folders] != [Path(pairs) / "clean"]:
        raise RefusedError(
            f"{pairs} holds measured pairs, which are used instead of {', '.join(map(str, folders))}: pass "
            "paired=False to degrade the clean images of those, or leave them out"
        )
    logger.info("measured pairs of %s are used: nothing is degraded, and the settings of that have no effect", pairs)


def low_dose_pairs(
    folders: Sequence[str | Path],
    clean_name: str,
    noisy_name: str,
    stems: Sequence[str] = (),
    exclude: Sequence[str] = (),
    simulated: Sequence[str | Path] = (),
    **simulation: Any,
) -> Images:
    """Measured pairs of CT slices, and simulated ones.

    Args:
        folders, clean_name, noisy_name, stems, exclude: see :func:`monai_sasm.datasets.images.paired`.
        simulated: clean CT, see :func:`monai_sasm.training.simulated.simulated_pairs`.
        simulation: further arguments of it.

    Raises:
        BundleError: the bundle whose configuration is run is for another modality.
    """
    check_modality("CT")
    measured = paired(folders, "CT", clean_name=clean_name, noisy_name=noisy_name, stems=stems, exclude=exclude)
    return [*measured, *simulated_pairs(simulated, **simulation)] if simulated else measured


def clean_photos(
    folders: Sequence[str | Path],
    pairs: str | Path,
    measured: bool,
    exclude: Iterable[str] = (),
    limit: int | None = None,
) -> Images:
    """Clean photos of ``folders``, or the ``measured`` pairs of the folder ``pairs``.

    Args:
        folders, exclude, limit: see :func:`monai_sasm.datasets.images.photo_files`.
        pairs: see :func:`monai_sasm.datasets.images.paired`.
        measured: which of the two.

    Raises:
        RefusedError: pairs are used, and ``folders`` are others than their clean images.
        BundleError: the bundle whose configuration is run is for another modality.
    """
    check_modality("PHOTO")
    if measured:
        _instead_of(folders, pairs)
        return paired([pairs], "PHOTO", exclude=tuple(exclude))
    return photos(folders, exclude, limit)


def with_measured(
    clean: Sequence[NDArray[Any]], pairs: Sequence[tuple[NDArray[Any], ...]], share: float
) -> list[tuple[NDArray[Any], ...]]:
    """Clean images with measured pairs among them, for :class:`~monai_sasm.training.batches.PrepareDegraded`.

    Args:
        clean: images ``(C, H, W)``; each is its own partner and so will be degraded.
        pairs: ``(clean, noisy)``, see :func:`monai_sasm.datasets.images.paired`.
        share: of the pairs among all draws, 0 to below 1; the pairs are listed as often as it takes.

    Raises:
        ValueError: a share outside [0, 1), or one without pairs.
    """
    if not 0 <= share < 1 or (share and not pairs):
        raise ValueError(f"share must be in [0, 1) and needs pairs, got {share} and {len(pairs)} pairs")
    alone: list[tuple[NDArray[Any], ...]] = [(image, image) for image in clean]
    wanted = round(len(alone) * share / (1 - share))
    return alone + [pairs[index % len(pairs)] for index in range(wanted)]


def clean_slices(
    folders: Sequence[str | Path],
    pairs: str | Path,
    measured: bool,
    min_std: float,
    all_planes: bool = False,
    neighbours: int = 0,
    exclude: Sequence[str] = (),
) -> Images:
    """Clean MR slices of ``folders``, or the ``measured`` pairs of the folder ``pairs``.

    Args:
        folders: see :func:`monai_sasm.datasets.images.slices`.
        min_std, all_planes, neighbours: see there; for pairs, too.
        pairs, exclude: see :func:`monai_sasm.datasets.images.paired`.
        measured: which of the two.

    Raises:
        RefusedError: pairs are used, and ``folders`` are others than their clean images.
        BundleError: the bundle whose configuration is run is for another modality.
    """
    check_modality("MR")
    if measured:
        _instead_of(folders, pairs)
        further: dict[str, Any] = {"min_std": min_std, "all_planes": all_planes, "neighbours": neighbours}
        return paired([pairs], "MR", exclude=exclude, **further)
    return slices(folders, "MR", min_std=min_std, all_planes=all_planes, neighbours=neighbours)


def truncations(factors: Sequence[float], sigma: tuple[float, float]) -> list[LowQualityMr]:
    """One degradation of MR slices per factor, each with noise: k-space truncated ``factor`` times along both axes."""
    noise = KspaceNoise(sigma)
    return [LowQualityMr(KspaceTruncation((factor, factor)), noise) for factor in factors]


def scanner_truncations(
    factor: tuple[float, float], sigma: tuple[float, float], apodisation: float = 0.4, fermi: float = 0.06
) -> list[LowQualityMr]:
    """Truncation of k-space as scanners do it, with noise: a hard edge (twice), a Tukey and a Fermi window.

    Args:
        factor: range of how many times fewer samples each axis has.
        sigma: range of the noise, of the image's white.
        apodisation, fermi: of the windows, see :class:`~monai_sasm.degradations.kspace.KspaceTruncation`.
    """
    noise = KspaceNoise(sigma)
    hard = LowQualityMr(KspaceTruncation(factor), noise)
    tukey = LowQualityMr(KspaceTruncation(factor, apodisation=apodisation), noise)
    return [hard, hard, tukey, LowQualityMr(KspaceTruncation(factor, fermi=fermi), noise)]


def prepare(
    measured: bool,
    degradation: DegradationModel,
    noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
    change_weight: float = 0.0,
    seed: int = 0,
    **degrading: Any,
) -> Callable[..., Prepared]:
    """``prepare_batch`` of an engine that is shown ``measured`` pairs, or clean images to degrade.

    Args:
        measured: see :func:`clean_photos`.
        degradation, change_weight, seed: see :class:`~monai_sasm.training.batches.PrepareDegraded`.
        noise_estimator: gives the noise map of pairs, and of a share ``estimated`` of degraded images.
        degrading: further arguments of :class:`~monai_sasm.training.batches.PrepareDegraded`.
    """
    if measured:
        return PreparePaired(noise_estimator, change_weight=change_weight, seed=seed)
    return PrepareDegraded(
        degradation, noise_estimator=noise_estimator, change_weight=change_weight, seed=seed, **degrading
    )


def image_loss(l1: float, l2: float, perceptual: float, low: float, precision: str) -> nn.Module | None:
    """:class:`~monai_sasm.losses.restoration.RestorationLoss`, or ``None`` where all its weights are 0.

    Args:
        l1, l2, perceptual, low: see there.
        precision: of the training; the feature network follows it.
    """
    if l1 == l2 == perceptual == 0:
        return None
    return RestorationLoss(perceptual, low=low, reduced=reduced(precision), l2=l2, l1=l1)
