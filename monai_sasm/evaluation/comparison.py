"""``compare``: any experts side by side on a user's own images, paired or clean only."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import reason_of
from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import DataAbsentError, data_hash
from monai_sasm.evaluation.judged_figures import quality_against_time
from monai_sasm.evaluation.metrics import SSIM_RADIUS, bias, psnr, rmse, ssim
from monai_sasm.evaluation.named_experts import NamedExpert, open_restorer
from monai_sasm.evaluation.own_folder import OwnImage, own_images, reasons_in_words
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.scoring import Case, Compared, Image, Method, Results, average, compare, values_of
from monai_sasm.evaluation.simulated import Simulation
from monai_sasm.evaluation.statistics import losses
from monai_sasm.evaluation.table import FEW, Row, Table
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.volume import Volume, files_of
from monai_sasm.types import Modality

PROTOCOL = "compare"
INPUT = "input"
FEATURE_SLICES, FEATURE_CROP = 3, 192  # slices around the middle of a volume, and pixels in their middle
COMPARED = ("PSNR", "SSIM", "RMSE", "VGG19-n", "LPIPS")

logger = logging.getLogger("monai_sasm")
_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True)
class Pair:
    """Clean and degraded image, in the unit of the image.

    Args:
        name: of the image.
        level: ``""`` for measured pairs, else what was simulated.
        clean: reference.
        degraded: same grid.
    """

    name: str
    level: str
    clean: Volume
    degraded: Volume


def run(context: Context, experts: Sequence[NamedExpert]) -> Table:
    """Rows ``input`` and one per expert, which is applied as ``sasm restore --expert`` applies it.

    Args:
        context: ``data`` is the user's folder, see :mod:`monai_sasm.evaluation.own_folder`.
        experts: of one modality; the others are compared with the first.

    Raises:
        BundleError: clean images only, and nothing is known that would make the fault which an expert repairs.
    """
    from monai_sasm.restoration.options import Options

    modality = experts[0].modality
    found, passed_over = own_images(context.data, modality)
    found = found[: context.limit]
    simulations = [] if found[0].degraded else _simulations(experts)
    distances = PerceptualDistances()
    measured = _Measured(modality, distances, by_slice=len(found) == 1)
    restorer = open_restorer(experts, context.device)
    for pair in _pairs(found, simulations, passed_over):
        measured.add(pair, INPUT, pair.degraded, seconds=None)
        for expert in experts:
            result = restorer(pair.degraded, Options(expert=expert.label))
            measured.add(pair, expert.label, result.volume, seconds=result.summary["seconds"])
        logger.info("%s measured", pair.name)
    if not measured.cases:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        raise DataAbsentError(f"nothing to measure in {context.data}: {reasons}")
    rows = measured.rows(experts)
    flags = (
        *([f"limited to the first {context.limit} images"] if context.limit else []),
        *(f"simulated: {simulation.description}, seed = number of the image" for simulation in simulations),
        *([] if simulations else ["degraded images are the measured ones of the folder"]),
        *reasons_in_words(passed_over),
        *measured.flags(),
        *harm_flags(rows, experts, [name for name, one in restorer.experts.items() if one.samples]),
    )
    write_rows(context.output / f"{PROTOCOL}.csv", measured.images)
    return Table(
        PROTOCOL,
        data_hash([path for one in found for path in one.paths]),
        _definitions(modality, experts[0].label) | distances.definitions(),
        rows=rows,
        flags=flags,
        figures=measured.figures(context.output, rows, [INPUT, *(one.label for one in experts)]),
        details={"images": measured.images},
    )


def _simulations(experts: Sequence[NamedExpert]) -> list[Simulation]:
    """One per degradation that the experts declare; all experts meet all of them."""
    kinds = dict.fromkeys((one.modality, one.degradation) for one in experts)
    return [Simulation(modality, degradation) for modality, degradation in kinds]


def _pairs(found: Sequence[OwnImage], simulations: Sequence[Simulation], passed_over: dict[str, str]) -> Iterator[Pair]:
    """One after the other, so that one image at a time is in memory; what fails is noted in ``passed_over``."""
    for number, one in enumerate(found):
        try:
            clean, degraded = one.load()
        except (ValueError, OSError) as error:  # RefusedError is a ValueError
            passed_over[one.name] = reason_of(error)
            continue
        if degraded is not None:
            yield Pair(one.name, "", clean, degraded=degraded)
        for simulation in simulations:
            level = simulation.degradation if len(simulations) > 1 else ""
            try:
                faulty = simulation(clean, number)
            except ValueError as error:
                passed_over[f"{one.name} at {level}" if level else one.name] = reason_of(error)
                continue
            yield Pair(one.name, level, clean, degraded=faulty)


class _Measured:
    """What was measured so far: scores of each image, and the middle slices of the first one."""

    def __init__(self, modality: Modality, distances: PerceptualDistances, by_slice: bool) -> None:
        self.modality, self.distances, self.by_slice = modality, distances, by_slice
        self.cases: list[Case] = []  # without their pixels: rows need names and levels only
        self.results: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
        self.images: list[dict[str, str | float]] = []
        self.shown: dict[str, tuple[Case, dict[str, Image], float]] = {}  # level -> example, results, white
        self.files: dict[str, tuple[Path, ...]] = {}  # level -> those of the example

    def add(self, pair: Pair, method: str, image: Volume, seconds: float | None) -> None:
        """Measure one result; the first method of each image must be the input."""
        clean, restored = pair.clean.as_slices(), image.as_slices()
        white = scaling_for(pair.clean).scale if self.modality.profile.percentile is not None else 1.0
        stacks = {pair.name: slice(None)}
        if self.by_slice and len(clean) > 1:
            stacks = {f"{pair.name}, slice {index + 1}": slice(index, index + 1) for index in range(len(clean))}
        for name, chosen in stacks.items():
            if method == INPUT:
                patient = pair.name if len(stacks) > 1 else ""
                self.cases.append(Case(name, pair.level, _NOTHING, degraded=_NOTHING, patient=patient))
            scores = self._scores(clean[chosen], restored[chosen], white)
            each = 0.0 if seconds is None else seconds / len(stacks)
            self.results.setdefault(method, {})[pair.level, name] = scores | {"seconds": each}
            self.images.append({"image": name, "level": pair.level, "method": method, **scores, "seconds": each})
        middle = len(clean) // 2
        if method == INPUT and pair.level not in self.shown:
            seen = self._clipped(clean[middle], white).copy()
            self.files[pair.level] = (*files_of(pair.clean), *files_of(image))
            self.shown[pair.level] = (Case(pair.name, pair.level or pair.name, seen, degraded=_NOTHING), {}, white)
        example, results, _ = self.shown[pair.level]
        if example.name == pair.name:
            results[method] = restored[middle].copy()

    def _window(self, white: float) -> tuple[float, float]:
        """Ends of the range of the metrics, in the unit of the image."""
        low, high = self.modality.profile.metric_window
        return low * white, high * white

    def _clipped(self, image: Image, white: float) -> Image:
        return np.clip(image, *self._window(white)) if self.modality.profile.metric_clips else image

    def _scores(self, clean: Image, restored: Image, white: float) -> dict[str, float]:
        """All metrics of stacks ``(N, c, H, W)`` in the unit of the image."""
        low, high = self._window(white)
        span, seen, shown = high - low, self._clipped(clean, white), self._clipped(restored, white)
        large = min(clean.shape[2:]) > 2 * SSIM_RADIUS
        each = [ssim(a, b, span) for a, b in zip(seen, shown, strict=True)] if large else []
        scores = {"PSNR": psnr(seen, shown, span), "SSIM": float(np.mean(each)) if each else math.nan}
        if not self.modality.profile.is_picture:
            scores |= {"RMSE": rmse(seen, shown), "bias": bias(clean, restored)}
        middle = len(clean) // 2
        around = range(max(middle - FEATURE_SLICES // 2, 0), min(middle + FEATURE_SLICES // 2 + 1, len(clean)))
        features = [
            self.distances(*((_middle(part[index]) - low) / span for part in (seen, shown))) for index in around
        ]
        return scores | {name: float(np.mean([one[name] for one in features])) for name in features[0]}

    def rows(self, experts: Sequence[NamedExpert]) -> tuple[Row, ...]:
        """Means with intervals, tests against the first expert, and how often an image was made worse."""
        compared = Compared(experts[0].label, COMPARED, f"against {experts[0].label}")
        by_label = {one.label: one for one in experts}
        found, perfect = [], self._perfect()
        measured = {
            method: {key: {**scores, "PSNR": math.nan} if key in perfect else scores for key, scores in results.items()}
            for method, results in self.results.items()
        }
        for method, results in measured.items():
            row = average(method, self.cases, results, note=_note(by_label[method]) if method in by_label else "")
            reference = measured[experts[0].label] if method != INPUT else None
            row = compare(row, self.cases, results, reference=reference, compared=compared)
            found.append(row if method == INPUT else self._with_losses(row, self.results[method]))
        return tuple(found)

    def _perfect(self) -> dict[tuple[str, str], list[str]]:
        """(level, case) -> methods whose image is the clean one, so that its PSNR is no number to average."""
        found: dict[tuple[str, str], list[str]] = {}
        for method, results in self.results.items():
            for key, scores in results.items():
                if math.isinf(scores["PSNR"]):
                    found.setdefault(key, []).append(method)
        return found

    def _with_losses(self, row: Row, results: Results) -> Row:
        scores = {}
        for level, kept in row.scores.items():
            own, before = (values_of(self.cases, part, level)["PSNR"] for part in (results, self.results[INPUT]))
            scores[level] = {**kept, **losses(own, before)}
        return replace(row, scores=scores)

    def flags(self) -> tuple[str, ...]:
        """Which images have no PSNR or SSIM, and what the numbers of subjects mean for intervals and tests."""
        return (*self._perfect_flags(), *self._small_flags(), *self._count_flags())

    def _small_flags(self) -> Iterator[str]:
        small = dict.fromkeys(name for (_, name), scores in self.results[INPUT].items() if math.isnan(scores["SSIM"]))
        if small:
            side = 2 * SSIM_RADIUS + 1
            yield f"{'; '.join(small)}: below {side} x {side} pixels, left out of means, intervals and tests of SSIM"

    def _perfect_flags(self) -> Iterator[str]:
        names: dict[tuple[str, ...], list[str]] = {}
        for (level, name), methods in self._perfect().items():
            names.setdefault(tuple(methods), []).append(f"{name} at {level}" if level else name)
        for same, found in names.items():
            yield (
                f"{', '.join(same)} equal{'s' * (len(same) == 1)} the clean image, PSNR infinite: {'; '.join(found)}: "
                "left out of means, intervals and tests of PSNR"
            )

    def _count_flags(self) -> tuple[str, ...]:
        count = len({case.name for case in self.cases})
        if self.by_slice and count > 1:
            return ("one image only: no interval and no test over its slices, which are alike",)
        if count < FEW:
            return (
                f"{count} image{'s' * (count > 1)}: no interval and no test below {FEW}, which cannot reach p = 0.05",
            )
        return ()

    def figures(self, folder: Path, rows: Sequence[Row], order: Sequence[str]) -> tuple[str, ...]:
        """Slices with errors per level, the change of each image, and quality against time."""
        names = []
        for level, (case, results, white) in self.shown.items():
            window = self._window(white)
            methods = [Method(name, _always(results[name])) for name in order if name in results]
            suffix = f"-{level}" if level else ""
            path, quality = folder / f"{PROTOCOL}{suffix}.png", self._psnr(white)
            made_of = self.files[level]
            names.append(
                figures.comparison(path, case, methods, quality=quality, window=window, error=0.2, sources=made_of)
            )
        names.append(differences(folder / f"{PROTOCOL}-images.png", self.cases, self.results))
        metrics = [name for name in ("PSNR", "SSIM") if name in rows[0].scores[self.cases[0].level]]
        names.append(
            quality_against_time(folder / f"{PROTOCOL}-time.png", rows, metrics=metrics, before=INPUT, per="image")
        )
        return tuple(names)

    def _psnr(self, white: float) -> Callable[[Case, Image], float]:
        return lambda case, image: self._scores(case.clean[None], image[None], white)["PSNR"]


def differences(path: Path, cases: Sequence[Case], results: Mapping[str, Results]) -> str:
    """What each expert does to the PSNR of each image: a point below 0 is an image made worse."""
    levels = list(dict.fromkeys(case.level for case in cases))
    plot, axes = figures.grid(1, len(levels), size=4.2)
    for axis, level in zip(axes[0], levels, strict=True):
        before = values_of(cases, results[INPUT], level)["PSNR"]
        for method in (name for name in results if name != INPUT):
            with np.errstate(invalid="ignore"):  # infinite for an image that is its own reference
                gain = np.subtract(values_of(cases, results[method], level)["PSNR"], before)
            axis.plot(range(1, len(gain) + 1), np.sort(gain), "o-", markersize=3, linewidth=1, label=method)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.axhline(0, linewidth=1, color="0.5")
        axis.set(xlabel="images, sorted for each expert", ylabel="gain in PSNR over the input, dB", title=level)
        axis.legend(fontsize=7)
    return figures.save(plot, path)


def write_rows(path: Path, images: Sequence[Mapping[str, str | float]]) -> None:
    """One line per image and method, for spreadsheets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(images[0]))
        writer.writeheader()
        writer.writerows(images)


def harm_flags(rows: Sequence[Row], experts: Sequence[NamedExpert], sampled: Sequence[str]) -> Iterator[str]:
    """Who is worse than doing nothing, and which expert that draws samples is less faithful than the first."""
    by_name = {row.method: row for row in rows}
    first = experts[0].label
    for one in experts:
        for level, scores in by_name[one.label].scores.items():
            place = f" at {level}" if level else ""
            harm = by_name[INPUT].scores[level]["PSNR"] - scores["PSNR"]
            if harm > 0:
                yield f"**{one.label} is {harm:.2f} dB below its input{place}**"
            short = by_name[first].scores[level]["PSNR"] - scores["PSNR"]
            if one.label in sampled and short > 0:
                yield f"**{one.label} is {short:.2f} dB below {first}{place}: what it adds may be invented**"


def _note(one: NamedExpert) -> str:
    return f"{one.modality.value}, {one.degradation}, sha256 {one.fingerprint()[:16]} of configuration and weights"


def _always(image: Image) -> Callable[[Case], Image]:
    return lambda case: image


def _middle(image: Image) -> NDArray[np.float32]:
    """The central pixels of ``(c, H, W)``."""
    top, left = (max(side - FEATURE_CROP, 0) // 2 for side in image.shape[1:])
    return image[:, top : top + FEATURE_CROP, left : left + FEATURE_CROP]


def _range_of(modality: Modality) -> str:
    profile = modality.profile
    low, high = profile.metric_window
    if profile.percentile is not None:
        return f"{high:g} = {profile.percentile:g}th percentile of the foreground of the clean image"
    return f"[{low:g}, {high:g}] {profile.unit}, {'images clipped to it' if profile.metric_clips else 'not clipped'}"


def _definitions(modality: Modality, first: str) -> dict[str, str]:
    medical = {} if modality.profile.is_picture else {
        "RMSE": "in the unit of the image, in that range",
        "bias": "mean of restored minus clean, all pixels, in the unit of the image",
    }  # fmt: skip
    return {
        "PSNR": f"dB, all slices of an image together, range {_range_of(modality)}",
        "SSIM": "same range, Gaussian 11x11, sigma 1.5, mean over slices",
        **medical,
        "worse": "number of images whose PSNR fell below that of the input; 'loss' is the mean fall among them, dB, "
        "'largest loss' the worst",
        f"p (against {first})": "two-sided Wilcoxon signed-rank test over images; [low, high] are 95 % bootstrap "
        "intervals of the mean over images (percentiles of 2000 resamples)",
        "s/image": "median seconds per image in the network and around it",
    }
