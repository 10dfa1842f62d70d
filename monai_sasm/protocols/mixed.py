"""``mixed``: photos with drops, noise and clean regions in one picture: is soft mixing worth it?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files, photo
from monai_sasm.evaluation.metrics import mean_iou, psnr, ssim
from monai_sasm.evaluation.restoring import DEFAULT, as_volume
from monai_sasm.evaluation.scoring import Case, Gain, Image, Tally
from monai_sasm.evaluation.table import Table
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

PROTOCOL = "mixed"
PHOTOS = 60  # of bsds500/val
SIGMA = (15 / 255, 50 / 255)
WET = 0.05  # share of light from water above which a pixel is a drop's
IDENTITY, RAINDROP, NOISE = "identity", "raindrop", "noise"
FAULTS = (IDENTITY, RAINDROP, NOISE)
SOFT, ORACLE = "soft mixing, 1 pass", "oracle routing, 1 pass"
GAIN = Gain("PSNR")
DEFINITIONS = {
    "PSNR": "dB, RGB, unclipped, mean over photos",
    "SSIM": "mean of channels",
    "routing": "share of pixels whose largest weight is on the right class (clean, raindrop, noise), from the true "
    "masks",
    "mIoU": "mean intersection over union of those three classes",
    **GAIN.definition,
}


def run(context: Context) -> Table:
    """Input, every expert alone, hard gates, soft mixing in one pass, the default pipeline, and oracle routing."""
    restorer = context.restorer
    if restorer.gate is None:
        return Table(PROTOCOL, skipped="no gate bundle is installed")
    paths = files(context.data / "natural" / "bsds500" / "val", "*.jpg", context.limit or PHOTOS)
    cases = mixed_cases(paths)
    tally = Tally()
    shown: dict[str, Image] = {}
    for case in cases:
        pictures = _measure(case, restorer, tally)
        shown = shown or pictures
    return Table(
        PROTOCOL,
        data_hash=data_hash(paths),
        definitions=DEFINITIONS,
        rows=tally.rows(cases, GAIN),
        flags=(
            *context.limited(),
            f"first {len(cases)} photos of bsds500/val; three smooth regions each (seed = number of the photo): "
            "rendered drops, white noise of sigma 15 to 50 (unclipped), nothing",
            "hard gate: the one expert of largest mean weight, over the whole photo; single experts and all routings "
            f"share the same expert outputs of a first pass; only '{DEFAULT}' looks twice",
            "oracle: weights from the true masks (soft region borders; a drop is where more than "
            f"{100 * WET:g} % of the light comes from water)",
        ),
        figures=(figures.panels(context.output / f"{PROTOCOL}.png", shown),),
    )


def mixed_cases(paths: Sequence[Path]) -> list[Case]:
    """Cases with ``facts["oracle"]``: the three true weights ``(3, H, W)`` in the order of :data:`FAULTS`."""
    import torch

    from monai_sasm.degradations.mask import region_weights
    from monai_sasm.degradations.raindrop import Raindrop

    cases = []
    for number, path in enumerate(paths):
        generator = torch.Generator().manual_seed(number)
        clean = torch.from_numpy(photo(path))[None]
        shape = (1, clean.shape[1], clean.shape[2], clean.shape[3])
        regions = region_weights(shape, 3, generator)[0]  # (3, H, W): drops, noise, clean
        params = Raindrop(coverage=(0.3, 0.8)).draw(shape, generator)
        wet = Raindrop().apply(clean, params)[0]
        sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * float(torch.rand(1, generator=generator))
        noise = sigma * torch.randn(shape, generator=generator)[0]
        mixed = clean[0] + regions[0] * (wet - clean[0]) + regions[1] * noise
        drops = regions[0] * (params.mask[0, 0] > WET)
        oracle = torch.stack([1 - drops - regions[1], drops, regions[1]]).numpy()
        cases.append(
            Case(path.stem, "", clean=clean[0].numpy(), degraded=mixed.numpy(), sigma=sigma, facts={"oracle": oracle})
        )
    return cases


def routing_scores(oracle: Image, weights: Mapping[str, Image]) -> dict[str, float]:
    """``routing`` and ``mIoU`` of weights (fault -> ``(H, W)``) against the true ones ``(3, H, W)``."""
    truth = oracle.argmax(0)
    largest = np.stack([weights[fault] for fault in FAULTS]).argmax(0)
    return {"routing": float((truth == largest).mean()), "mIoU": mean_iou(truth, largest, len(FAULTS))}


def composite(image: Image, outputs: Mapping[str, Image], weights: Mapping[str, Image | float]) -> Image:
    """``x + sum_k w_k (E_k(x) - x)``, written independently of the package's own mixing."""
    mixed = image.astype(np.float64)
    for fault, output in outputs.items():
        mixed = mixed + weights[fault] * (output.astype(np.float64) - image)
    return mixed.astype(np.float32)


def _measure(case: Case, restorer: Restorer, tally: Tally) -> dict[str, Image]:
    """Score every routing of one photo; returns what is to be shown."""

    def add(method: str, image: Image, seconds: float = 0.0, **routing: float) -> Image:
        scores = {"PSNR": psnr(case.clean, image, 1.0), "SSIM": ssim(case.clean, image, 1.0), **routing}
        tally.add(method, case, scores, seconds=seconds)
        return image

    add("input", case.degraded)
    outputs = {}
    for fault, name in _experts(restorer).items():
        start = time.perf_counter()
        outputs[fault] = restorer(as_volume(case, Modality.PHOTO), expert=name).volume.array
        add(f"expert {name}", outputs[fault], time.perf_counter() - start)
    soft, weights, seconds = _pipeline(case, restorer, passes=1)
    routing = routing_scores(case.facts["oracle"], weights)
    strongest = max(outputs, key=lambda fault: float(weights[fault].mean()))
    add("hard gate (one expert per image)", outputs[strongest])
    largest = np.stack([weights[fault] for fault in FAULTS]).argmax(0)
    winner = {fault: (largest == k).astype(np.float32) for k, fault in enumerate(FAULTS)}
    add("hard gate (argmax per pixel)", composite(case.degraded, outputs, winner), **routing)
    add(SOFT, soft, seconds, **routing)
    default, _, seconds = _pipeline(case, restorer)
    add(DEFAULT, default, seconds)
    oracle = dict(zip(FAULTS, case.facts["oracle"], strict=True))
    best = add(ORACLE, composite(case.degraded, outputs, oracle), routing=1.0, mIoU=1.0)
    pictures = {"clean": case.clean, "input": case.degraded, SOFT: soft, DEFAULT: default, "oracle": best}
    pictures |= {f"true {fault}": oracle[fault][None] for fault in FAULTS[1:]}
    return pictures | {f"weight {fault}": weights[fault][None] for fault in FAULTS}


def _experts(restorer: Restorer) -> dict[str, str]:
    """Fault -> name of the photo expert that repairs it."""
    called = restorer.plan(Modality.PHOTO).experts.values()
    found = {one.degradation: one.name for one in called}
    missing = sorted(set(FAULTS[1:]) - set(found))
    if missing:
        raise ValueError(f"'mixed' needs a photo expert for each of {FAULTS[1:]}; no bundle for {missing}")
    return {fault: found[fault] for fault in FAULTS[1:]}


def _pipeline(
    case: Case, restorer: Restorer, passes: int | None = None
) -> tuple[Image, dict[str, NDArray[np.float32]], float]:
    """Restored image, fault -> weight ``(H, W)`` of the first pass, seconds."""
    start = time.perf_counter()
    done = restorer(as_volume(case, Modality.PHOTO), passes=passes, keep_maps=True)
    seconds = time.perf_counter() - start
    names = {IDENTITY: IDENTITY, **_experts(restorer)}
    return done.volume.array, {fault: done.weights[name][0] for fault, name in names.items()}, seconds
