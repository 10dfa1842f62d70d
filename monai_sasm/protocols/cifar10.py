"""``cifar10``: a labelled diffusion model predicts noise, denoises and classifies; beside it a plain CNN."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from monai_sasm.datasets.labelled import LabelledImages, labelled_images, source_files
from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context, torch_device
from monai_sasm.evaluation.data import DataAbsentError, data_hash
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import ResultCache, fingerprint
from monai_sasm.evaluation.table import Row, Table

if TYPE_CHECKING:
    import torch

    from monai_sasm.experts.diffusion_classifier import DiffusionClassifier
    from monai_sasm.types import ImageBatch

PROTOCOL = "cifar10"
BUNDLE = "cifar10_diffusion"
SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)  # of images in [0, 1]
ESTIMATED = (0.0, 0.2)  # levels at which the noise level is also estimated from the image
NOISY_IMAGES = 1000  # test images per noise level; all are used without noise
TIMES = (10, 50, 100, 200, 400, 700)
STEPS = (1, 2, 4, 10, 25, 50)
DENOISED = (0.1, 0.2)
DENOISED_IMAGES = 40
CNN_EPOCHS = 10
GUIDANCE = (1.0, 3.0)
BATCH = 50
TOP1 = "top-1 accuracy"
DEFINITIONS = {
    "clean ... 0.5": "share of images with the right class; the number is the standard deviation of white Gaussian "
    "noise added to the image in [0, 1], not clipped",
    "all, clean": "the same on all test images, without noise",
    "passes": "network passes per image",
    "MSE, label": "mean squared error of the predicted noise (variance 1) at time t, given the right label",
    "MSE, no label": "the same without a label",
    "PSNR": "dB, all channels, range 1, of the result clipped to [0, 1] (mean of per-image values)",
    "s/image": "wall clock of a whole row divided by its images, in batches; this machine may be busy",
}


def run(context: Context) -> Table:
    """Rows: accuracy under noise, noise prediction at several t, denoising by number of steps."""
    source = context.data / "cifar10"
    paths = source_files(source)
    if not paths:
        raise DataAbsentError(source)
    training, test = labelled_images(source, "train"), _shuffled(labelled_images(source, "test"), context.limit)
    # the bare network: it classifies, and predicts noise at a time of its schedule
    network = cast("DiffusionClassifier", context.bundle(BUNDLE).network)
    some = test[slice(NOISY_IMAGES)]
    accuracies = [
        _with_all(_classified("ours", network, some, sigmas=SIGMAS), _accuracy(network, test, 0.0)),
        _classified("ours, sigma estimated", network, some, sigmas=ESTIMATED, estimated=True),
    ]
    if context.peers:
        plain = PlainCnnPeer(
            training, some, test, device=context.device, cache=ResultCache(context.output / "cifar10-cnn.json")
        )
        accuracies += [plain.row("plain CNN", 0.0), plain.row("plain CNN, trained with noise", SIGMAS[-1])]
    rows = [*accuracies, *_noise_prediction(network, some), *_denoising(network, test[slice(DENOISED_IMAGES)])]
    flags = (
        *context.limited(),
        f"pixels: {test.origin}" + ("; not the benchmark's bytes" if "JPEG" in test.origin else ""),
        f"trained on {len(training)} images; {len(test)} test images, the first {len(some)} of them (shuffled, seed 0) "
        f"under noise, {min(DENOISED_IMAGES, len(test))} for denoising",
        "sigma is given to ours where the row does not say otherwise; CNNs are not told it",
        f"both CNNs are trained here, {CNN_EPOCHS} epochs each, on the same images with the same augmentation; ours "
        "took far more computing (see the bundle's README)",
        "sampling in more steps than one moves from the mean of the possible images to one of them: PSNR falls",
    )
    return Table(
        PROTOCOL,
        data_hash=data_hash(paths),
        definitions=DEFINITIONS,
        rows=tuple(rows),
        flags=flags,
        figures=(
            _accuracy_curves(context.output / f"{PROTOCOL}.png", accuracies),
            *_diffusion_figures(context.output, network, test),
        ),
    )


def noisy(images: NDArray[np.uint8], sigma: float) -> torch.Tensor:
    """Images ``(N, 3, H, W)`` in [0, 1] with unclipped white noise from ``RandomState(0)``."""
    import torch

    noise = np.random.RandomState(0).standard_normal(images.shape).astype(np.float32)
    return torch.from_numpy(images.astype(np.float32) / 255 + np.float32(sigma) * noise)


def _shuffled(data: LabelledImages, limit: int | None) -> LabelledImages:
    return data[np.random.RandomState(0).permutation(len(data))[:limit]]


def _running(network: Any, function: Callable[[ImageBatch, slice], torch.Tensor], images: ImageBatch) -> torch.Tensor:
    """Results of a function of ``(some images, where they lie)``, a batch at a time, in bfloat16 where it is fast."""
    import torch

    from monai_sasm.evaluation.plain_cnn import reduced_precision

    place = next(network.parameters()).device
    results = []
    with torch.inference_mode(), reduced_precision(place):
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            results.append(function(images[part].to(place), part).float().cpu())
    return torch.cat(results)


def _accuracy(network: DiffusionClassifier, data: LabelledImages, sigma: float, *, estimated: bool = False) -> float:
    import torch

    def scores(images: ImageBatch, _: slice) -> torch.Tensor:
        return network.classify(images, None if estimated else torch.full_like(images[:, :1], sigma))

    return float(np.mean(_running(network, scores, noisy(data.images, sigma)).argmax(1).numpy() == data.labels))


def _classified(
    name: str, network: DiffusionClassifier, data: LabelledImages, *, sigmas: Sequence[float], estimated: bool = False
) -> Row:
    start = time.perf_counter()
    scores = {_column(sigma): _accuracy(network, data, sigma, estimated=estimated) for sigma in sigmas}
    seconds = (time.perf_counter() - start) / (len(data) * len(sigmas))
    return Row(name, {TOP1: {**scores, "passes": float(network.passes)}}, {TOP1: len(data)}, seconds=seconds)


def _with_all(row: Row, accuracy: float) -> Row:
    return replace(row, scores={TOP1: {**row.scores[TOP1], "all, clean": accuracy}})


@dataclass(frozen=True)
class PlainCnnPeer:
    """A CNN trained here; its results are kept, because training takes minutes.

    Args:
        training: images to train on.
        some: test images under noise.
        test: all test images, without noise.
        device: where to train.
        cache: results of earlier runs.
    """

    training: LabelledImages
    some: LabelledImages
    test: LabelledImages
    device: str
    cache: ResultCache

    def row(self, name: str, noise: float) -> Row:
        """Accuracy after training with noise of up to ``noise``."""
        from monai_sasm.evaluation.plain_cnn import WIDTHS, predict, train

        parts = (self.training, self.some, self.test)
        given = fingerprint(SIGMAS, *(array for part in parts for array in (part.images, part.labels)))
        key = f"{name}|{noise}|{CNN_EPOCHS}|{WIDTHS}|{given}"
        scores = self.cache.get(key)
        if scores is None:
            network = train(self.training, CNN_EPOCHS, noise, device=torch_device(self.device))

            def accuracy(data: LabelledImages, sigma: float) -> float:
                return float(np.mean(predict(network, noisy(data.images, sigma)).numpy() == data.labels))

            scores = {_column(sigma): accuracy(self.some, sigma) for sigma in SIGMAS}
            scores["all, clean"] = accuracy(self.test, 0)
            self.cache.put(key, scores)
        note = f"noise of 0 to {noise} in training" if noise else ""
        return Row(name, {TOP1: {**scores, "passes": 1.0}}, {TOP1: len(self.some)}, note=note)


def _column(sigma: float) -> str:
    return f"{sigma:g}" if sigma else "clean"


def _predicted_noise(
    network: DiffusionClassifier, data: LabelledImages, t: int, *, labelled: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """True and predicted noise ``(N, 3, H, W)`` at time ``t``."""
    import torch

    noise = torch.randn(data.images.shape, generator=torch.Generator().manual_seed(0))
    kept = network.denoiser.schedule[t]
    labels = torch.from_numpy(data.labels)

    def predict(x: ImageBatch, part: slice) -> torch.Tensor:
        asked = labels[part].to(x.device) if labelled else None
        return network.denoiser.network(x, timesteps=torch.full((len(x),), t, device=x.device), class_labels=asked)

    clean = 2 * noisy(data.images, 0.0) - 1
    return noise, _running(network, predict, kept.sqrt() * clean + (1 - kept).sqrt() * noise)


def _noise_prediction(network: DiffusionClassifier, data: LabelledImages) -> list[Row]:
    rows, level = [], "noise prediction"
    for t in TIMES:
        scores = {}
        for name, labelled in (("MSE, label", True), ("MSE, no label", False)):
            noise, predicted = _predicted_noise(network, data, t, labelled=labelled)
            scores[name] = float((noise - predicted).square().mean())
        rows.append(Row(f"t = {t}", {level: scores}, {level: len(data)}))
    return rows


def _denoising(network: DiffusionClassifier, data: LabelledImages) -> list[Row]:
    import torch

    clean = data.images.astype(np.float32) / 255
    levels = {f"denoising, sigma {sigma:g}": sigma for sigma in DENOISED}

    def measured(images: torch.Tensor) -> dict[str, float]:
        pairs = zip(clean, images.clamp(0, 1).numpy(), strict=True)
        return {"PSNR": float(np.mean([psnr(truth, image, 1.0) for truth, image in pairs]))}

    counts = dict.fromkeys(levels, len(data))
    rows = [Row("input", {level: measured(noisy(data.images, sigma)) for level, sigma in levels.items()}, counts)]
    configured = network.steps
    for steps in STEPS:
        network.steps = steps
        start = time.perf_counter()
        scores = {}
        for level, sigma in levels.items():

            def denoise(images: ImageBatch, _: slice, sigma: float = sigma) -> torch.Tensor:
                return network(images, torch.full_like(images[:, :1], sigma))

            scores[level] = measured(_running(network, denoise, noisy(data.images, sigma)))
        seconds = (time.perf_counter() - start) / (len(levels) * len(data))
        rows.append(Row(f"ours, {steps} step{'s' * (steps > 1)}", scores, counts, seconds=seconds))
    network.steps = configured
    return rows


def _accuracy_curves(path: Path, accuracies: Sequence[Row]) -> str:
    lines = {}
    for row in accuracies:
        measured = row.scores.get(TOP1, {})
        x = [sigma for sigma in SIGMAS if _column(sigma) in measured]
        if x:
            lines[row.method] = (x, [measured[_column(sigma)] for sigma in x])
    return figures.curves(path, lines, labels=("standard deviation of the noise", TOP1))


def _diffusion_figures(output: Path, network: DiffusionClassifier, test: LabelledImages) -> tuple[str, ...]:
    import torch

    from monai_sasm.diffusion.strips import Recorder, forward_strip, noise_histograms, save_png, tiled

    paths = {kind: output / f"{PROTOCOL}-{kind}.png" for kind in ("forward", "reverse", "samples", "noise")}
    images = 2 * noisy(test.images[:4], 0.0) - 1
    forward = forward_strip(images, network.denoiser.schedule, (-1, 50, 100, 200, 300, 500, 700, 999))
    save_png(tiled(forward.flatten(0, 1), forward.shape[1]), paths["forward"])
    labels = torch.arange(network.classes).repeat_interleave(4)
    reverse, samples = [], []
    for guidance in GUIDANCE:
        recorder = Recorder(25)

        def draw(asked: Any, _: slice, guidance: float = guidance, recorder: Recorder = recorder) -> torch.Tensor:
            return network.generate(asked, guidance, 25, observe=recorder)

        samples.append(_running(network, draw, labels).clamp(0, 1))
        reverse.append(recorder.strip().float().cpu()[::4])
    side_by_side = torch.cat([part.unflatten(0, (-1, 4)) for part in samples], 1)
    save_png(tiled(side_by_side.flatten(0, 1), 4 * len(GUIDANCE)), paths["samples"])
    save_png(tiled(reverse[-1].flatten(0, 1), reverse[-1].shape[1]), paths["reverse"])
    noise = {t: _predicted_noise(network, test[slice(64)], t, labelled=True) for t in (50, 200, 700)}
    noise_histograms(paths["noise"], noise)
    return tuple(path.name for path in paths.values())
