"""``gate``: accuracy, calibration and routing of the gate on CT, MR and photos, clean and degraded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import ct_pairs, data_hash, files
from monai_sasm.evaluation.data import photo as read_photo
from monai_sasm.evaluation.metrics import expected_calibration_error, reliability
from monai_sasm.evaluation.mri_noise import central_slices, noisy_cases
from monai_sasm.evaluation.raindrops import rendered_cases
from monai_sasm.evaluation.scoring import Image
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.functional.intensity import HU_PER_UNIT
from monai_sasm.protocols import ct_lowdose, mri_noise, photo_awgn
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

PROTOCOL = "gate"
CLEAN = "clean"
ACTING = 0.5  # mean weight from which an image counts as having a fault that fills it (noise, low dose)
ACTING_LOCAL = 0.22  # the same for faults that cover a part of it (drops); chosen on training and validation photos
LOCAL = ("raindrop",)  # degradations that cover a part of the image
RING = 24  # pixels around a drop where clean and drop are both right: the gate is taught to reach a little further
PIXEL_STEP = 8  # calibration is judged at the gate's own resolution
PHOTOS = 60
DEFINITIONS = {
    "accuracy": f"share of images with the right class: clean when no expert's mean weight reaches {ACTING:g} "
    f"({ACTING_LOCAL:g} for drops), else the expert with "
    "the largest mean weight",
    "foreign weight": "largest weight any expert of another modality got at any pixel (0: a CT or MR never reaches "
    "a photo expert)",
    "pixel accuracy": "share of pixels (every 8th) whose largest probability is on the right class, from the "
    "degradation's mask",
    "ECE": "expected calibration error of those pixels' probabilities, 10 bins",
}


@dataclass(frozen=True)
class Sample:
    """One image for the gate.

    Args:
        group: printed as a row.
        modality: as the file would say.
        truth: ``clean`` or an expert's degradation name.
        image: ``(C, H, W)``, working scale.
        mask: ``(H, W)``, share of degradation per pixel; ``None``: the whole image, or unknown (real raindrops) with
            ``pixels`` off.
        pixels: whether the truth is known per pixel.
    """

    group: str
    modality: Modality
    truth: str
    image: Image
    mask: Image | None = None
    pixels: bool = True


def run(context: Context) -> Table:
    """Rows per group of images and over all; confusion table and reliability diagram."""
    restorer = context.restorer
    if restorer.gate is None:
        return Table(PROTOCOL, skipped="no gate bundle is installed")
    gathered = _Gathered(restorer)
    for sample in samples(context):
        gathered.add(sample)
    names = gathered.names
    bins = reliability(np.concatenate(gathered.confidence), np.concatenate(gathered.hit))
    return Table(
        PROTOCOL,
        data_hash=data_hash(_used(context)),
        definitions=DEFINITIONS,
        rows=tuple(gathered.rows()),
        flags=(
            *context.limited(),
            "the modality is known to the gate, as it is from a file's header; it masks experts of other modalities",
            "full-dose CT and the original MR count as clean; real raindrop photos have no mask and enter only the "
            "image level",
        ),
        figures=(
            figures.confusion_table(context.output / f"{PROTOCOL}-confusion.png", gathered.confusion, names),
            figures.reliability_diagram(
                context.output / f"{PROTOCOL}-reliability.png", bins, gathered.calibration_error()
            ),
        ),
        details={"classes": names, "confusion": gathered.confusion.tolist()},
    )


def samples(context: Context) -> Iterator[Sample]:
    """Clean and degraded images of every modality; none of them was trained on."""
    root, limit = context.data, context.limit
    paths = files(root / "natural" / "bsds500" / "val", "*.jpg", limit or PHOTOS)
    yield from _photos(paths)
    rain = [
        *files(root / "raindrop" / "pairs" / "data", limit=limit),
        *files(root / "raindrop" / "unpaired", limit=limit),
    ]
    for path in rain:
        yield Sample("photo, real drops", Modality.PHOTO, "raindrop", image=read_photo(path), pixels=False)
    for path in files(root / "raindrop" / "pairs" / "gt", limit=limit):
        yield Sample("photo, clean", Modality.PHOTO, CLEAN, image=read_photo(path))
    for folder, names in (("L096_dicom", None), ("L192_nifti", ct_lowdose.VALIDATION)):
        for pair in ct_pairs(root / "ct_ldct_pairs" / folder, names=names):
            yield Sample("CT, full dose", Modality.CT, CLEAN, image=pair.full / HU_PER_UNIT)
            yield Sample("CT, quarter dose", Modality.CT, "low-dose", image=pair.quarter / HU_PER_UNIT)
    slices = [entry for volume in mri_noise.volumes(root) for entry in central_slices(volume)][:limit]
    for _, image in slices:
        yield Sample("MR, clean", Modality.MR, CLEAN, image=image)
    for case in noisy_cases(slices, mri_noise.LEVELS):
        yield Sample(f"MR, noise {case.level}", Modality.MR, "noise", image=case.degraded)


class _Gathered:
    """Votes and probabilities, image by image."""

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer
        classes = restorer.classes
        self.names = [CLEAN, *classes[1:]]
        self.thresholds = np.array([self._threshold(name) for name in classes[1:]])
        self.confusion = np.zeros((len(self.names),) * 2, int)
        self.groups: dict[str, dict[str, list[float]]] = {}
        self.confidence: list[NDArray[np.floating]] = []
        self.hit: list[NDArray[np.bool_]] = []

    def add(self, sample: Sample) -> None:
        """Ask the gate about one image."""
        weights, probabilities = self._ask(sample)
        truth = self._index(sample)
        mean = weights[1:].mean((1, 2))
        acting = np.where(mean >= self.thresholds, mean, 0)
        vote = 0 if acting.max() == 0 else 1 + int(acting.argmax())
        self.confusion[truth, vote] += 1
        group = self.groups.setdefault(sample.group, {"right": [], "foreign": [], "pixels": []})
        group["right"].append(float(vote == truth))
        group["foreign"].append(self._foreign(weights, sample.modality))
        if sample.pixels:
            confidence, hit = _pixels(probabilities, truth, sample.mask)
            self.confidence.append(confidence)
            self.hit.append(hit)
            group["pixels"].append(float(hit.mean()))

    def calibration_error(self) -> float:
        """ECE over all pixels asked."""
        return expected_calibration_error(np.concatenate(self.confidence), np.concatenate(self.hit))

    def rows(self) -> list[Row]:
        """One row per group, then all."""
        rows = [Row(name, {"": _summary(group)}, {"": len(group["right"])}) for name, group in self.groups.items()]
        everything = {
            key: [v for group in self.groups.values() for v in group[key]] for key in ("right", "foreign", "pixels")
        }
        total = {**_summary(everything), "ECE": self.calibration_error()}
        return [*rows, Row("all", {"": total}, {"": len(everything["right"])})]

    def _ask(self, sample: Sample) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Weights as used by the pipeline, and calibrated probabilities before small weights are cut, both ``(E, H,
        W)``.
        """
        import torch

        from monai_sasm.restoration.dispatch import gate_weights
        from monai_sasm.restoration.restore import mixing_weights

        plan = self.restorer.plan(sample.modality)
        gate = self.restorer.require_gate()
        image = torch.from_numpy(np.ascontiguousarray(sample.image, np.float32))[None].to(plan.device)
        sigma = plan.noise_estimator(image)
        weights = mixing_weights(image, sigma, plan)
        probabilities = gate_weights(
            image,
            sigma,
            gate.network,
            modality=sample.modality,
            allowed=torch.tensor([index == 0 or index in plan.experts for index in range(len(self.names))]),
            temperature=gate.metadata["sasm"].get("temperature", 1.0),
        )
        return weights[0].cpu().numpy(), probabilities[0].cpu().numpy()

    def _threshold(self, name: str) -> float:
        expert = self.restorer.experts.get(name)
        return ACTING_LOCAL if expert is not None and expert.degradation in LOCAL else ACTING

    def _index(self, sample: Sample) -> int:
        if sample.truth == CLEAN:
            return 0
        for index, name in enumerate(self.names):
            bundle = self.restorer.experts.get(name)
            if bundle and bundle.modality is sample.modality and bundle.degradation == sample.truth:
                return index
        raise ValueError(
            f"no expert for {sample.truth} in {sample.modality.value} is among the gate's classes {self.names}"
        )

    def _foreign(self, weights: NDArray[np.floating], modality: Modality) -> float:
        others = [
            index
            for index, name in enumerate(self.names)
            if name in self.restorer.experts and self.restorer.experts[name].modality is not modality
        ]
        return float(weights[others].max()) if others else 0.0


def _photos(paths: Sequence[Path]) -> Iterator[Sample]:
    random = np.random.RandomState(0)
    for path in paths:
        clean = read_photo(path)
        yield Sample("photo, clean", Modality.PHOTO, CLEAN, image=clean)
        sigma = random.uniform(photo_awgn.SIGMAS[0], photo_awgn.SIGMAS[-1]) / 255
        noisy = (clean + sigma * random.standard_normal(clean.shape)).astype(np.float32)
        yield Sample("photo, noise", Modality.PHOTO, "noise", image=noisy)
    for case in rendered_cases(paths):
        drops = case.facts["mask"][0]
        yield Sample("photo, rendered drops", Modality.PHOTO, "raindrop", image=case.degraded, mask=drops)


def _used(context: Context) -> list[Path]:
    root = context.data
    folders = [root / "ct_ldct_pairs" / "L096_dicom" / kind for kind in ("full", "quarter")]
    folders += [
        root / "raindrop" / "pairs" / "data",
        root / "raindrop" / "pairs" / "gt",
        root / "raindrop" / "unpaired",
    ]
    photos = files(root / "natural" / "bsds500" / "val", "*.jpg", context.limit or PHOTOS)
    validation = ct_pairs(root / "ct_ldct_pairs" / "L192_nifti", names=ct_lowdose.VALIDATION)
    pairs = [path for pair in validation for path in pair.paths]
    return [*photos, *pairs, *mri_noise.volumes(root), *(path for folder in folders for path in files(folder))]


def _pixels(
    probabilities: NDArray[np.floating], truth: int, mask: Image | None
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Confidence and correctness of every 8th pixel; pixels with a trace of water only (below 10 %), or
    beside a drop, are left out."""
    half = PIXEL_STEP // 2
    thinned = probabilities[:, half::PIXEL_STEP, half::PIXEL_STEP]
    labels = np.full(thinned.shape[1:], truth)
    known = np.ones(thinned.shape[1:], bool)
    if mask is not None:
        share = mask[half::PIXEL_STEP, half::PIXEL_STEP]
        near = maximum_filter(mask, size=2 * RING + 1)[half::PIXEL_STEP, half::PIXEL_STEP]
        labels = np.where(share >= 0.1, truth, 0)
        known = (share >= 0.1) | (near == 0)
    return thinned.max(0)[known], (thinned.argmax(0) == labels)[known]


def _summary(group: dict[str, list[float]]) -> dict[str, float]:
    pixel = {"pixel accuracy": float(np.mean(group["pixels"]))} if group["pixels"] else {}
    return {"accuracy": float(np.mean(group["right"])), "foreign weight": max(group["foreign"]), **pixel}
