"""``refine``: is the refined photo sharper than the restored one, and what did that cost?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import cbsd68, data_hash
from monai_sasm.evaluation.metrics import gradient_ratio, psnr, ssim
from monai_sasm.evaluation.mobilenet import DEFINITION, mobilenet_distance, mobilenet_weights
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.raindrops import rendered_cases
from monai_sasm.evaluation.restoring import DEFAULT, as_volume
from monai_sasm.evaluation.scoring import Case, Image, Tally
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.mixed import mixed_cases
from monai_sasm.protocols.photo_awgn import noisy_cases
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.refine.flow import FlowRefiner

PROTOCOL = "refine"
REFINER = "refine_photo_flow"
PHOTOS = 16  # of CBSD68, each with every fault; four had been too few to tell 5 % from 9 %
SIGMA = 25  # of 255
STEPS = (1, 2, 4, 10)
STRENGTHS = (0.3, 0.7)
COARSE = 16.0  # pixels; standard deviation of the low-pass in which drift is looked for
GRAIN = 0.0035  # standard deviation of the noise that is given back in two of the rows
CROP = 128  # pixels
DEFINITIONS = {
    "PSNR": "dB, RGB, unclipped, mean over photos",
    "gain": "dB, PSNR less that of the default pipeline, mean over photos",
    "SSIM": "mean of channels",
    "gradient ratio": "mean gradient magnitude over that of the clean photo; below 1 is too smooth",
    "MobileNetV2": DEFINITION,
    "drift": f"grey levels: root mean square of the change's low frequencies (Gaussian of {COARSE:g} pixels)",
    "trust": "mean of the trust map",
}


@dataclass(frozen=True)
class Scorer:
    """Scores of refined photos, and how they changed by the refinement.

    Args:
        distances: feature distances of (clean, image), by name.
        tally: where the scores go.
    """

    distances: Callable[[Image, Image], dict[str, float]]
    tally: Tally

    def add(self, method: str, case: Case, image: Image, *, seconds: float, trust: float = float("nan")) -> None:
        """Score one result; ``case.degraded`` is the restored image from which the refiner started."""
        distances = self.distances(case.clean, image)
        found = {
            "PSNR": psnr(case.clean, image, 1.0),
            "gain": psnr(case.clean, image, 1.0) - psnr(case.clean, case.degraded, 1.0),
            "SSIM": ssim(case.clean, image, 1.0),
            **distances,
            "gradient ratio": gradient_ratio(case.clean, image),
            "drift": drift(image, case.degraded),
            "trust": trust,
        }
        before = found if method == DEFAULT else self.tally.scores[DEFAULT][case.level, case.name]
        for name in distances:
            found[f"{name} change, %"] = 100 * (found[name] / max(before[name], 1e-9) - 1)
        self.tally.add(method, case, found, seconds=seconds)


def run(context: Context) -> Table:
    """Default pipeline, refined with 1 to 10 steps, several strengths, without trust, source or pinning, with grain."""
    restorer = context.restorer
    if restorer.gate is None:
        return Table(PROTOCOL, skipped="no gate bundle is installed")
    # the bare refiner: its steps, pinning and trust are varied, which no option of a user does
    refiner: FlowRefiner = restorer.refiner(REFINER).network  # type: ignore[assignment]
    paths = cbsd68(context.data, context.limit or PHOTOS)
    perceptual, mobilenet = PerceptualDistances(), mobilenet_weights()

    def distances(clean: Image, image: Image) -> dict[str, float]:
        own = {"MobileNetV2": mobilenet_distance(clean, image, mobilenet)} if mobilenet else {}
        return perceptual(clean, image) | own

    scorer = Scorer(distances, Tally())
    pictures: dict[str, Image] = {}
    cases = []
    for case in degraded_cases(paths):
        start = time.perf_counter()
        restored = restorer(as_volume(case, Modality.PHOTO)).volume.array
        cases.append(replace(case, degraded=restored, facts={"input": case.degraded}))
        scorer.add(DEFAULT, cases[-1], restored, seconds=time.perf_counter() - start)
        shown = measure(cases[-1], refiner, scorer)
        if case.name == cases[0].name:
            pictures |= _crops(cases[-1], shown)
    definitions = {**DEFINITIONS, **perceptual.definitions()}
    if mobilenet is None:
        definitions["MobileNetV2"] = "not available (weights not found; set SASM_WEIGHTS)"
    return Table(
        PROTOCOL,
        data_hash=data_hash(paths),
        definitions=definitions,
        rows=scorer.tally.rows(cases),
        flags=(
            *context.limited(),
            f"first {len(paths)} photos of CBSD68, each with white noise (sigma {SIGMA}), with rendered drops, and "
            "with both in regions; seconds of the default pipeline: gate, experts and mixing; of the refined: the "
            f"refiner alone, {refiner.members} members of its ensemble included",
            "VGG19-n features are part of the refiner's training loss; MobileNetV2, SSIM and the gradient ratio are "
            "not",
            f"refined: the default pipeline's result, strength 1 and {refiner.steps} step(s), unless said otherwise; "
            "10 steps only show where it goes",
            f"source not shown: as for photos that come restored; grain: standard deviation {GRAIN:g} "
            "(monai_sasm.refine.grain)",
        ),
        figures=(figures.panels(context.output / f"{PROTOCOL}.png", pictures, columns=6),),
    )


def degraded_cases(paths: Sequence[Path]) -> list[Case]:
    """Each photo with noise, with drops, and with both in regions; the level says which."""
    return [
        *noisy_cases(paths, "noise", sigmas=(SIGMA,)),
        *(replace(case, level="raindrops") for case in rendered_cases(paths)),
        *(replace(case, level="regions") for case in mixed_cases(paths)),
    ]


def measure(case: Case, refiner: FlowRefiner, scorer: Scorer) -> dict[str, Image]:
    """Score every variant on one restored image; returns what is to be shown."""
    shown: dict[str, Image] = {}
    restored = case.degraded

    def add(method: str, done: Done) -> Image:
        image = restored + done.change
        scorer.add(method, case, image, seconds=done.seconds, trust=float(done.trust.mean()))
        return image

    for steps in STEPS:
        done = refine_with(refiner, case, steps=steps)
        name = f"refined, {steps} step{'s' * (steps > 1)}"
        shown[name] = add(name, done)
        if steps != refiner.steps:
            continue
        for strength in STRENGTHS:
            weaker = restored + strength * done.change
            scorer.add(f"refined, strength {strength:g}", case, weaker, seconds=done.seconds)
        scorer.add("refined, without trust map", case, done.image + done.grain, seconds=done.seconds)
        shown["trust"] = done.trust
    add("refined, source not shown", refine_with(refiner, replace(case, facts={"input": restored})))
    add("refined, without pinning", refine_with(refiner, case, pin=0.0))
    grainy = refine_with(refiner, case, grain=GRAIN)
    add("refined, with grain", grainy)
    scorer.add("grain alone", case, restored + grainy.grain, seconds=grainy.seconds)
    return shown


@dataclass(frozen=True)
class Done:
    """What a refiner did to a restored image: its change as used, and the parts of it; all ``(C, H, W)``."""

    change: Image
    image: Image
    trust: NDArray[np.float32]
    grain: Image
    seconds: float


def refine_with(refiner: FlowRefiner, case: Case, **settings: float) -> Done:
    """The restored image ``case.degraded`` refined with other ``settings``; ``case.facts["input"]`` is its source."""
    import torch

    changed = copy.copy(refiner)  # shares the weights
    for name, value in settings.items():
        setattr(changed, name, value)
    device = next(refiner.parameters()).device
    anchor, source = (
        torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(device)
        for image in (case.degraded, case.facts["input"])
    )
    start = time.perf_counter()
    with torch.inference_mode():
        done = changed.refine(anchor, source)
        parts = (done.change(anchor), done.image, done.trust, anchor - anchor if done.grain is None else done.grain)
    seconds = time.perf_counter() - start
    change, image, trust, grain = (part[0].cpu().numpy() for part in parts)
    return Done(change, image, trust, grain=grain, seconds=seconds)


def drift(image: Image, anchor: Image) -> float:
    """Root mean square of the low frequencies of ``image - anchor``, in grey levels of 255."""
    import torch

    from monai_sasm.diffusion.pinning import lowpass

    change = torch.from_numpy((image - anchor)[None])
    return 255 * float(lowpass(change, COARSE).square().mean().sqrt())


def _crops(case: Case, shown: Mapping[str, Image]) -> dict[str, Image]:
    """Titled crops of the part with the most structure."""
    box = figures.busiest_crop(case.clean, CROP)
    images = {"clean": case.clean, "input": case.facts["input"], DEFAULT: case.degraded, **shown}
    images = {name: image for name, image in images.items() if name not in ("refined, 2 steps", "refined, 10 steps")}
    return {f"{name}\n{case.level}": image[box] for name, image in images.items()}
