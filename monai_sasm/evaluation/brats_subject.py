"""One subject of BraTS: degraded, restored by every expert, segmented by the judge; the same here and on a cluster.

A subject becomes one row of numbers. Its images are cropped to the brain, made coarse and noisy in k-space slice by
slice, and restored as ``sasm restore --expert`` does it. Skull-stripping is then repeated on every version, since the
judge takes what is not 0 for brain, and PSNR and SSIM are of the brain alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm import __version__
from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.row import SCHEMA, Row, new_row
from monai_sasm.batch.work import MAX_DEATHS, died
from monai_sasm.datasets.brats import BratsSubject, read_labels
from monai_sasm.errors import error_name, reason_of
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.judge import Judge, Regions, agreement, judge
from monai_sasm.evaluation.metrics import SSIM_RADIUS, psnr, ssim
from monai_sasm.evaluation.named_experts import NamedExpert, open_restorer
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.files import peak_mb
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

CLEAN, INPUT = "clean", "input"
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}  # whole tumour, tumour core, enhancing tumour
CHANNELS = ("TC", "WT", "ET")  # of the judge, as MONAI orders them
MARGIN = 4  # voxels of background around the brain
FEATURE_SLICES, FEATURE_CROP = 3, 192
FRACTION = 0.02  # of a slice that must be brain for SSIM

Stack = NDArray[np.float32]
logger = logging.getLogger("monai_sasm")


@dataclass(frozen=True)
class BratsJob:
    """What all subjects of a run share; small, and the same on every worker.

    Args:
        folder: where manifest and ledger lie.
        figures: folder of the pictures.
        experts: in print order, the reference first.
        segmenter: bundle of the judge.
        overlay: its variant; ``None`` for the shipped weights.
        modalities: channels of the judge.
        models: hash of all experts and the judge.
        factors: how many times fewer k-space samples each axis of a slice has, one level each.
        sigma: of the complex noise, of the 99.5th percentile of the foreground.
        device: chosen by each worker for itself.
        picture: id of the subject that is drawn.
        run: name of this run.
    """

    folder: Path
    figures: Path
    experts: tuple[NamedExpert, ...]
    segmenter: str
    overlay: str | None
    modalities: tuple[str, ...]
    models: str = ""
    factors: tuple[int, ...] = (2, 4)
    sigma: float = 0.02
    device: str = "auto"
    picture: str | None = None
    run: str = field(default_factory=lambda: token_hex(6))

    @property
    def pictures(self) -> tuple[Path, ...]:
        """One for each factor."""
        return tuple(self.figures / f"brats-x{factor}.png" for factor in self.factors)


@dataclass(frozen=True)
class Scene:
    """A subject in working scale, cropped to the brain.

    Args:
        clean: ``(C, I, J, K)``, background 0.
        degraded: same shape; background as degraded.
        brain: ``(I, J, K)``.
        affine: voxel index of the crop to RAS mm.
        spacing: size of a voxel, mm.
        truth: regions drawn by people; empty without labels.
    """

    clean: Stack
    degraded: Stack
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    spacing: tuple[float, ...]
    truth: dict[str, NDArray[np.bool_]]


def measure_subject(subject: BratsSubject, job: BratsJob) -> Row:
    """All numbers of one subject. An error ends this subject, never the run."""
    ledger, started, row = Ledger(job.folder), time.perf_counter(), row_of(subject, job)
    try:
        if ledger.start(subject.id) > MAX_DEATHS:
            return row | died(MAX_DEATHS)
        row["key"] = key_of(subject, job)
        restorer, segmenter = _models(job)
        scores, known = {}, None
        for factor, drawing in zip(job.factors, job.pictures, strict=True):
            try:
                scene = prepare(subject, job, factor)
            except ValueError as error:
                return row | {"status": "skipped", "reason": reason_of(error)}
            measured = Measured(scene, restorer, segmenter, known=known)
            scores[f"x{factor}"], known = measured.scores(), measured.regions[CLEAN]
            if job.picture == subject.id:
                from monai_sasm.evaluation.brats_report import picture

                picture(drawing, subject.name, measured)
        return row | {
            "status": "ok",
            "scores": scores,
            "models": {name: one.sha256 for name, one in restorer.experts.items()},
            "networks": _about(restorer),
            "device": str(restorer.device),
            "seconds": round(time.perf_counter() - started, 3),
            "peak_mb": peak_mb(),
        }
    except Exception as error:  # one broken subject must not stop a night's work
        logger.debug("traceback", exc_info=True)
        return row | {"status": "failed", "reason": reason_of(error), "error": error_name(error)}
    finally:
        ledger.end(subject.id)


def row_of(subject: BratsSubject, job: BratsJob) -> Row:
    """The row of a subject before anything is done; with its name, which in BraTS is a pseudonym."""
    about = {"id": subject.id, "name": subject.name, "labels": subject.label is not None}
    row = new_row("evaluate brats", job.run, format="nifti", modality="MR", files=len(subject.modalities), **about)
    return row | {"parameters": {"factors": list(job.factors), "sigma": job.sigma}, "key": None}


def key_of(subject: BratsSubject, job: BratsJob) -> str:
    """What decides whether a row is still right: files of the subject, models, parameters, metrics, version."""
    used = [path for kind, path in subject.modalities.items() if kind in job.modalities]
    used += [path for path in (subject.label, subject.brain) if path is not None]
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in used]
    labels = [one.label for one in job.experts]
    distances = _distances()
    metrics = [distances.vgg is not None, distances.lpips]
    decisive = [SCHEMA, __version__, content, job.models, labels, job.modalities, job.factors, job.sigma, metrics]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def prepare(subject: BratsSubject, job: BratsJob, factor: int) -> Scene:
    """Read, crop to the brain, scale and degrade; the noise follows from the subject's name.

    Raises:
        ValueError: a modality that the judge needs is missing, they do not lie on one grid, or there is no brain.
    """
    import nibabel
    import torch

    from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr

    missing = [kind for kind in job.modalities if kind not in subject.modalities]
    if missing:
        raise ValueError(f"has no {', '.join(missing)}, which the judge needs")
    files: list[Any] = [nibabel.load(subject.modalities[kind]) for kind in job.modalities]
    if any(file.shape != files[0].shape or not np.allclose(file.affine, files[0].affine) for file in files):
        raise ValueError("the modalities do not lie on one grid")
    images = [np.asarray(file.dataobj, np.float32) for file in files]
    images = [image - image[0, 0, 0] for image in images]  # some copies are z-scored: their background is not 0
    brain = np.any([image != 0 for image in images], axis=0)
    if not brain.any():
        raise ValueError("there is no brain in the image")
    images = [np.where(brain, image - min(float(image[brain].min()), 0.0), 0) for image in images]
    places = np.argwhere(brain)
    low = np.maximum(places.min(0) - MARGIN, 0)
    high = np.minimum(places.max(0) + 1 + MARGIN, brain.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    affine = np.array(files[0].affine, np.float64)
    affine[:3, 3] += affine[:3, :3] @ low
    model = LowQualityMr(KspaceTruncation(factor=(factor, factor)), KspaceNoise(sigma=(job.sigma, job.sigma)))
    generator = torch.Generator().manual_seed(int(hashlib.sha256(subject.name.encode()).hexdigest()[:8], 16))
    clean, degraded = [], []
    for image in images:
        cut = np.ascontiguousarray(image[box], np.float32)
        cut = scaling_for(_volume(cut, affine)).forward(cut)
        batch = torch.from_numpy(np.ascontiguousarray(np.moveaxis(cut, 2, 0)))[:, None]
        params = model.draw((len(batch), 1, batch.shape[2], batch.shape[3]), generator)
        degraded.append(np.ascontiguousarray(np.moveaxis(model.apply(batch, params)[:, 0].numpy(), 0, 2)))
        clean.append(cut)
    truth = {}
    if subject.label is not None:
        labels = read_labels(subject)[box]
        truth = {name: np.isin(labels, members) for name, members in REGIONS.items()}
    spacing = tuple(float(size) for size in files[0].header.get_zooms()[:3])
    return Scene(np.stack(clean), np.stack(degraded), brain[box], affine=affine, spacing=spacing, truth=truth)


class Measured:
    """Every version of a subject, with what the judge finds in it.

    Args:
        scene: the subject.
        restorer: with the experts.
        segmenter: the judge.
        known: what it has found in the clean image before.
    """

    def __init__(self, scene: Scene, restorer: Restorer, segmenter: Judge, known: Regions | None = None) -> None:
        from monai_sasm.restoration.options import Options

        self.scene, self.restorer = scene, restorer
        self.images = {CLEAN: scene.clean, INPUT: scene.degraded}
        self.seconds: dict[str, float] = {}
        for name in restorer.experts:
            started = time.perf_counter()
            channels = [
                restorer(_volume(channel, scene.affine), Options(expert=name)).volume.array[0]
                for channel in scene.degraded
            ]
            self.seconds[name] = (time.perf_counter() - started) / (len(channels) * scene.clean.shape[3])
            self.images[name] = np.stack(channels)
        self.images = {name: np.where(scene.brain, image, 0) for name, image in self.images.items()}
        self.regions: dict[str, Regions] = {CLEAN: known} if known is not None else {}
        for name, image in self.images.items():
            if name not in self.regions:
                self.regions[name] = segmenter.regions(image, scene.affine) if scene.truth else {}

    def scores(self) -> dict[str, dict[str, float]]:
        """Metrics of each version; those that do not exist (PSNR of the clean image, Dice without labels) are left out.

        ``seconds`` are per slice of one modality.
        """
        return {name: self._scores(name) for name in self.images}

    def _scores(self, name: str) -> dict[str, float]:
        scene, image = self.scene, self.images[name]
        scores = {"PSNR": psnr(scene.clean[:, scene.brain], image[:, scene.brain], 1.0), "SSIM": self._ssim(image)}
        scores |= self._features(image)
        if scene.truth:
            scores |= agreement(self.regions[name], scene.truth, scene.spacing)
        if name in self.seconds:
            scores["seconds"] = self.seconds[name]
        return {metric: float(value) for metric, value in scores.items() if math.isfinite(value)}

    def _ssim(self, image: Stack) -> float:
        scene = self.scene
        if min(image.shape[1:3]) <= 2 * SSIM_RADIUS:
            return math.nan
        inside = [index for index in range(image.shape[3]) if scene.brain[..., index].mean() > FRACTION]
        found = [
            ssim(scene.clean[channel, ..., index], image[channel, ..., index], 1.0, where=scene.brain[..., index])
            for channel in range(len(image))
            for index in inside
        ]
        return float(np.nanmean(found)) if found else math.nan

    def _features(self, image: Stack) -> dict[str, float]:
        """Mean feature distance over modalities and a few slices through the tumour, or through the middle."""
        middle = self.tumour_slice()
        around = range(max(middle - FEATURE_SLICES // 2, 0), min(middle + FEATURE_SLICES // 2 + 1, image.shape[3]))
        top, left = (max(side - FEATURE_CROP, 0) // 2 for side in image.shape[1:3])
        cut = (slice(None), slice(top, top + FEATURE_CROP), slice(left, left + FEATURE_CROP))
        distances = _distances()
        found = [
            distances(self.scene.clean[..., index][cut][[channel]], image[..., index][cut][[channel]])
            for channel in range(len(image))
            for index in around
        ]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def tumour_slice(self) -> int:
        """The slice with most tumour, or with most brain."""
        counted = self.scene.truth.get("WT", self.scene.brain)
        return int(np.argmax((counted if counted.any() else self.scene.brain).sum((0, 1))))


def _about(restorer: Restorer) -> dict[str, dict[str, Any]]:
    """Expert -> number of weights, and whether it draws samples."""
    return {
        name: {"weights": sum(weight.numel() for weight in one.network.parameters()), "samples": one.samples}
        for name, one in restorer.experts.items()
    }


def _volume(image: Stack, affine: NDArray[np.float64]) -> Volume:
    return Volume(np.ascontiguousarray(image, np.float32)[None], Modality.MR, affine, slice_axis=2)


@lru_cache(maxsize=1)
def _load(
    experts: tuple[NamedExpert, ...], segmenter: str, overlay: str | None, device: str, models: str
) -> tuple[Restorer, Judge]:
    context = Context(Path(), Path(), device)
    return open_restorer(experts, device), judge(context, segmenter, CHANNELS, exclusive=False, overlay=overlay)


def _models(job: BratsJob) -> tuple[Restorer, Judge]:
    """Experts and judge, loaded once per process, and anew when their files change."""
    prints = "".join(one.fingerprint() for one in job.experts)
    return _load(job.experts, job.segmenter, job.overlay, device=job.device, models=prints)


@lru_cache(maxsize=1)
def _distances() -> PerceptualDistances:
    return PerceptualDistances()
