"""``mixed``: photos with drops, noise and clean regions in one picture: is soft mixing worth it?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files, photo
from monai_sasm.evaluation.metrics import mean_iou, psnr, ssim
from monai_sasm.evaluation.scoring import Case, Image, average, batch_shape
from monai_sasm.evaluation.table import Table

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

PHOTOS = 60  # of bsds500/val
SIGMA = (15 / 255, 50 / 255)
WET = 0.05  # share of light from water above which a pixel is a drop's
IDENTITY, RAINDROP, NOISE = "identity", "raindrop", "noise"
FAULTS = (IDENTITY, RAINDROP, NOISE)
DEFINITIONS = {
    "PSNR": "dB, RGB, unclipped, mean over photos",
    "SSIM": "mean of channels",
    "routing": "share of pixels whose largest weight is on the right class (clean, raindrop, noise), from the true "
    "masks",
    "mIoU": "mean intersection over union of those three classes",
}


@dataclass
class _Tally:
    """Results per method, photo by photo."""

    scores: dict[str, dict[tuple[str, str], dict[str, float]]] = field(default_factory=dict)

    def add(
        self, method: str, case: Case, image: Image, seconds: float, routing: Mapping[str, float] | None = None
    ) -> None:
        found = {"PSNR": psnr(case.clean, image, 1.0), "SSIM": ssim(case.clean, image, 1.0), **(routing or {})}
        self.scores.setdefault(method, {})[case.level, case.name] = {**found, "seconds": seconds}


def run(context: Context) -> Table:
    """Every single expert, image-level and per-pixel hard routing, soft mixing, and routing by the true masks."""
    restorer = context.restorer
    if restorer is None:
        return Table("mixed", skipped="no gate bundle is installed")
    paths = files(context.data / "natural" / "bsds500" / "val", "*.jpg", context.limit or PHOTOS)
    cases = mixed_cases(paths)
    tally = _Tally()
    example: dict[str, Image] = {}
    for index, case in enumerate(cases):
        shown = _measure(case, restorer, tally)
        example = shown if index == 0 else example
    rows = tuple(average(name, cases, scores) for name, scores in tally.scores.items())
    figure = figures.panels(context.output / "mixed.png", example)
    flags = (
        *context.limited(),
        f"first {len(cases)} photos of bsds500/val; three smooth regions each (seed = number of the photo): "
        "rendered drops, white "
        "noise of sigma 15 to 50 (unclipped), nothing",
        "hard gate: the one expert of largest mean weight, over the whole photo; single experts and all routings "
        "share the same "
        "expert outputs of a first pass; only '2 passes' looks again",
        "oracle: weights from the true masks (soft region borders; a drop is where more than "
        f"{100 * WET:g} % of the light comes from water)",
    )
    return Table("mixed", data_hash(paths), DEFINITIONS, rows, flags, (figure,))


def mixed_cases(paths: Sequence[Path]) -> list[Case]:
    """Cases with ``facts["oracle"]``: the three true weights ``(3, H, W)`` in the order of :data:`FAULTS`."""
    import torch

    from monai_sasm.degradations.mask import region_weights
    from monai_sasm.degradations.raindrop import Raindrop

    cases = []
    for number, path in enumerate(paths):
        generator = torch.Generator().manual_seed(number)
        clean = torch.from_numpy(photo(path))[None]
        shape = batch_shape(clean)
        regions = region_weights(shape, 3, generator)[0]  # (3, H, W): drops, noise, clean
        params = Raindrop(coverage=(0.3, 0.8)).draw(shape, generator)
        wet = Raindrop().apply(clean, params)[0]
        sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * float(torch.rand(1, generator=generator))
        noise = sigma * torch.randn(shape, generator=generator)[0]
        mixed = clean[0] + regions[0] * (wet - clean[0]) + regions[1] * noise
        drops = regions[0] * (params.mask[0, 0] > WET)
        oracle = torch.stack([1 - drops - regions[1], drops, regions[1]]).numpy()
        cases.append(Case(path.stem, "", clean[0].numpy(), mixed.numpy(), sigma, {"oracle": oracle}))
    return cases


def routing_scores(oracle: Image, weights: Mapping[str, Image]) -> dict[str, float]:
    """``routing`` and ``mIoU`` of weights (fault -> ``(H, W)``) against the true ones ``(3, H, W)``."""
    truth = oracle.argmax(0)
    chosen = np.stack([weights[fault] for fault in FAULTS]).argmax(0)
    return {"routing": float((truth == chosen).mean()), "mIoU": mean_iou(truth, chosen, len(FAULTS))}


def composite(image: Image, outputs: Mapping[str, Image], weights: Mapping[str, Image | float]) -> Image:
    """``x + sum_k w_k (E_k(x) - x)``, written independently of the package's own mixing."""
    mixed = image.astype(np.float64)
    for fault, output in outputs.items():
        mixed = mixed + weights[fault] * (output.astype(np.float64) - image)
    return mixed.astype(np.float32)


def _measure(case: Case, restorer: Restorer, tally: _Tally) -> dict[str, Image]:
    tally.add("input", case, case.degraded, 0.0)
    outputs = {}
    for fault, name in _experts(restorer).items():
        start = time.perf_counter()
        outputs[fault] = _run_expert(case.degraded, restorer, name)
        tally.add(f"expert {name} alone", case, outputs[fault], time.perf_counter() - start)
    soft, weights, seconds = _run_house(case, restorer, passes=1)
    routing = routing_scores(case.facts["oracle"], weights)
    strongest = max(outputs, key=lambda fault: float(weights[fault].mean()))
    tally.add("hard gate (one expert per image)", case, outputs[strongest], 0.0)
    stack = np.stack([weights[fault] for fault in FAULTS])
    winner = {fault: (stack.argmax(0) == k).astype(np.float32) for k, fault in enumerate(FAULTS)}
    tally.add("hard gate (argmax per pixel)", case, composite(case.degraded, outputs, winner), 0.0, routing)
    tally.add("soft mixing, 1 pass (ours)", case, soft, seconds, routing)
    twice, _, seconds = _run_house(case, restorer, passes=2)
    tally.add("soft mixing, 2 passes (ours)", case, twice, seconds)
    oracle = dict(zip(FAULTS, case.facts["oracle"], strict=True))
    best = composite(case.degraded, outputs, oracle)
    tally.add("oracle routing, 1 pass", case, best, 0.0, {"routing": 1.0, "mIoU": 1.0})
    pictures = {
        "clean": case.clean,
        "input": case.degraded,
        "soft, 1 pass": soft,
        "soft, 2 passes": twice,
        "oracle": best,
    }
    pictures |= {f"true {fault}": oracle[fault][None] for fault in FAULTS[1:]}
    return pictures | {f"weight {fault}": weights[fault][None] for fault in FAULTS}


def _experts(restorer: Restorer) -> dict[str, str]:
    """Fault -> name of the photo expert that repairs it."""
    from monai_sasm.types import Modality

    called = restorer.plan(Modality.PHOTO).experts.values()
    found = {bundle.degradation: bundle.name for bundle in called}
    missing = sorted(set(FAULTS[1:]) - set(found))
    if missing:
        raise ValueError(f"'mixed' needs a photo expert for each of {FAULTS[1:]}; no bundle for {missing}")
    return {fault: found[fault] for fault in FAULTS[1:]}


def _run_expert(image: Image, restorer: Restorer, name: str) -> Image:
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(image))[None].to(restorer.device)
    sigma = restorer.noise_estimator(batch)
    return restorer.experts[name].restore(batch, sigma)[0].float().cpu().numpy()


def _run_house(case: Case, restorer: Restorer, passes: int) -> tuple[Image, dict[str, NDArray[np.float32]], float]:
    """Restored image, fault -> weight ``(H, W)`` of the first pass, seconds."""
    from monai_sasm.io.volume import Volume
    from monai_sasm.restoration.options import Options
    from monai_sasm.types import Modality

    start = time.perf_counter()
    done = restorer(Volume(case.degraded, Modality.PHOTO), Options(passes=passes, keep_maps=True))
    seconds = time.perf_counter() - start
    names = {IDENTITY: IDENTITY, **_experts(restorer)}
    return done.volume.array, {fault: done.weights[name][0] for fault, name in names.items()}, seconds
