"""``refine``: is the refined photo sharper than the mixed one, and what did that cost?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import cbsd68, data_hash, photo
from monai_sasm.evaluation.metrics import gradient_ratio, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.scoring import Case, Image, average, batch_shape
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.mixed import mixed_cases
from monai_sasm.protocols.mobilenet import DEFINITION, mobilenet_distance, mobilenet_weights

if TYPE_CHECKING:
    from monai_sasm.refine.flow import FlowRefiner

REFINER = "refine_photo_flow"
PHOTOS = 16  # of CBSD68, each with every fault; four had been too few to tell 5 % from 9 %
SIGMA = 25 / 255
STEPS = (1, 2, 4, 10)
STRENGTHS = (0.3, 0.7)
COARSE = 16.0  # pixels; standard deviation of the low-pass in which drift is looked for
GRAIN = 0.0035  # standard deviation of the noise that is given back in two of the rows
CROP = 128  # pixels
MIXED = "mixed image"
DEFINITIONS = {
    "PSNR": "dB, RGB, unclipped, mean over photos",
    "gain": "dB, PSNR less that of the mixed image, mean over photos",
    "SSIM": "mean of channels",
    "gradient ratio": "mean gradient magnitude over that of the clean photo; below 1 is too smooth",
    "MobileNetV2": DEFINITION,
    "drift": f"grey levels: root mean square of the change's low frequencies (Gaussian of {COARSE:g} pixels)",
    "trust": "mean of the trust map",
}


@dataclass
class Tally:
    """Scores per method, photo by photo.

    Args:
        distances: feature distances of (clean, image), by name.
    """

    distances: Callable[[Image, Image], dict[str, float]]
    scores: dict[str, dict[tuple[str, str], dict[str, float]]] = field(default_factory=dict)

    def add(self, method: str, case: Case, image: Image, seconds: float, trust: float = float("nan")) -> None:
        """Score one result; ``case.degraded`` is the mixed image from which the refiner started."""
        found = {
            "PSNR": psnr(case.clean, image, 1.0),
            "gain": psnr(case.clean, image, 1.0) - psnr(case.clean, case.degraded, 1.0),
            "SSIM": ssim(case.clean, image, 1.0),
            **self.distances(case.clean, image),
            "gradient ratio": gradient_ratio(case.clean, image),
            "drift": drift(image, case.degraded),
            "trust": trust,
            "seconds": seconds,
        }
        before = self.scores[MIXED][case.level, case.name] if MIXED in self.scores and method != MIXED else found
        for name in self.distances_named(found):
            found[f"{name} change, %"] = 100 * (found[name] / max(before[name], 1e-9) - 1)
        self.scores.setdefault(method, {})[case.level, case.name] = found

    @staticmethod
    def distances_named(found: Mapping[str, float]) -> list[str]:
        """Which of the scores are feature distances."""
        return [name for name in ("VGG19-n", "LPIPS", "MobileNetV2") if name in found]


def run(context: Context) -> Table:
    """Mixed image, refined with 1 to 10 steps, with several strengths, without trust, source or pinning, with grain."""
    restorer = context.restorer
    if restorer is None:
        return Table("refine", skipped="no gate bundle is installed")
    from monai_sasm.bundles import load
    from monai_sasm.io.volume import Volume
    from monai_sasm.types import Modality

    refiner: FlowRefiner = load(REFINER, restorer.device).network  # type: ignore[assignment]
    paths = cbsd68(context.data, context.limit or PHOTOS)
    perceptual, mobilenet = PerceptualDistances(), mobilenet_weights()

    def distances(clean: Image, image: Image) -> dict[str, float]:
        own = {"MobileNetV2": mobilenet_distance(clean, image, mobilenet)} if mobilenet else {}
        return perceptual(clean, image) | own

    tally = Tally(distances)
    pictures: dict[str, Image] = {}
    cases = []
    for case in degraded_cases(paths):
        start = time.perf_counter()
        mixed = restorer(Volume(case.degraded, Modality.PHOTO)).volume.array
        cases.append(replace(case, degraded=mixed, facts={"input": case.degraded}))
        tally.add(MIXED, cases[-1], mixed, time.perf_counter() - start)
        shown = measure(cases[-1], refiner, tally)
        if case.name == cases[0].name:
            pictures |= _crops(cases[-1], shown)
    rows = tuple(average(name, cases, scores) for name, scores in tally.scores.items())
    figure = figures.panels(context.output / "refine.png", pictures, columns=6)
    flags = (
        *context.limited(),
        f"first {len(paths)} photos of CBSD68, each with white noise (sigma 25), with rendered drops, and with both in "
        "regions; seconds of the mixed image: gate, experts and mixing; of the refined: the refiner alone, "
        f"{refiner.members} members of its ensemble included",
        "VGG19-n features are part of the refiner's training loss; MobileNetV2, SSIM and the gradient ratio are not",
        f"refined: strength 1 and {refiner.steps} step(s), unless said otherwise; 10 steps only show where it goes",
        f"source not shown: as for photos that come restored; grain: standard deviation {GRAIN:g} "
        "(monai_sasm.refine.grain)",
    )
    definitions = {**DEFINITIONS, **perceptual.definitions()}
    if mobilenet is None:
        definitions["MobileNetV2"] = "not available (weights not found; set SASM_WEIGHTS)"
    return Table("refine", data_hash(paths), definitions, rows, flags, (figure,))


def degraded_cases(paths: Sequence[Path]) -> list[Case]:
    """Each photo with noise, with drops, and with both in regions; the level says which."""
    import torch

    from monai_sasm.degradations.raindrop import Raindrop

    cases = []
    random = np.random.RandomState(0)
    for number, path in enumerate(paths):
        clean = photo(path)
        noisy = clean + random.normal(0, SIGMA, clean.shape).astype(np.float32)
        batch = torch.from_numpy(clean)[None]
        params = Raindrop().draw(batch_shape(batch), torch.Generator().manual_seed(number))
        cases.append(Case(path.stem, "noise 25", clean, noisy, SIGMA))
        cases.append(Case(path.stem, "raindrops", clean, Raindrop().apply(batch, params)[0].numpy()))
    regions = [replace(case, level="regions") for case in mixed_cases(paths)]
    return sorted([*cases, *regions], key=lambda case: ("noise 25", "raindrops", "regions").index(case.level))


def measure(case: Case, refiner: FlowRefiner, tally: Tally) -> dict[str, Image]:
    """Score every variant on one mixed image; returns what is to be shown."""
    shown: dict[str, Image] = {}
    mixed = case.degraded

    def add(method: str, done: Done) -> Image:
        image = mixed + done.change
        tally.add(method, case, image, done.seconds, float(done.trust.mean()))
        return image

    for steps in STEPS:
        done = refine_with(refiner, case, steps=steps)
        name = f"refined, {steps} step{'s' * (steps > 1)}"
        shown[name] = add(name, done)
        if steps != refiner.steps:
            continue
        for strength in STRENGTHS:
            tally.add(f"refined, strength {strength:g}", case, mixed + strength * done.change, done.seconds)
        tally.add("refined, without trust map", case, done.image + done.grain, done.seconds)
        shown["trust"] = done.trust
    add("refined, source not shown", refine_with(refiner, replace(case, facts={"input": mixed})))
    add("refined, without pinning", refine_with(refiner, case, pin=0.0))
    grainy = refine_with(refiner, case, grain=GRAIN)
    add("refined, with grain", grainy)
    tally.add("grain alone", case, mixed + grainy.grain, grainy.seconds)
    return shown


@dataclass(frozen=True)
class Done:
    """What a refiner did to a mixed image: its change as used, and the parts of it; all ``(C, H, W)``."""

    change: Image
    image: Image
    trust: NDArray[np.float32]
    grain: Image
    seconds: float


def refine_with(refiner: FlowRefiner, case: Case, **settings: float) -> Done:
    """The mixed image ``case.degraded`` refined with other ``settings``; ``case.facts["input"]`` is its source."""
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
    return Done(change, image, trust, grain, seconds)


def drift(image: Image, anchor: Image) -> float:
    """Root mean square of the low frequencies of ``image - anchor``, in grey levels of 255."""
    import torch

    from monai_sasm.diffusion.pinning import lowpass

    change = torch.from_numpy((image - anchor)[None])
    return 255 * float(lowpass(change, COARSE).square().mean().sqrt())


def _crops(case: Case, shown: Mapping[str, Image]) -> dict[str, Image]:
    """Titled crops of the part with the most structure."""
    box = figures.busiest_crop(case.clean, CROP)
    images = {"clean": case.clean, "input": case.facts["input"], MIXED: case.degraded, **shown}
    images = {name: image for name, image in images.items() if name not in ("refined, 2 steps", "refined, 10 steps")}
    return {f"{name}\n{case.level}": image[box] for name, image in images.items()}
