"""``raindrop-real``: photographed pairs, with drops on the pane and without."""

from __future__ import annotations

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files, photo
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.raindrops import DEFINITIONS, EXPERT, measure, methods, rgb_psnr
from monai_sasm.evaluation.restoring import expert_with_weights
from monai_sasm.evaluation.scoring import Case, Image, score
from monai_sasm.evaluation.table import Row, Table, merged
from monai_sasm.types import Modality

PROTOCOL = "raindrop-real"
LABELS = r"synthetic|pair\d+"  # of the further weights that are compared
LEAVE_ONE_OUT = f"expert {EXPERT}, leave-one-out"
PUBLISHED = {  # PSNR Y, SSIM on 58 other pairs (test_a of Qian et al. 2018)
    "Pix2Pix": (28.02, 0.8547),
    "AttentiveGAN": (31.59, 0.917),
    "RainDropDiff128": (32.43, 0.933),
    "Defusion": (33.81, 0.967),
}
PUBLISHED_LEVEL = "published, other images"


def run(context: Context) -> Table:
    """The real pairs, numbered as their files; leave-one-out and synthetic-only rows where such weights are given."""
    folder = context.data / "raindrop" / "pairs"
    rain, clean = files(folder / "data"), files(folder / "gt")
    cases = [
        Case(f"pair{number}", f"pair {number}", clean=photo(dry), degraded=photo(wet))
        for wet, dry in zip(rain, clean, strict=True)
        for number in [wet.name.split("_")[0]]
    ]
    absent = sorted(set(context.weights) - {case.name for case in cases} - {"synthetic"})
    if absent:
        raise ValueError(f"no {', '.join(absent)} in {folder}; pairs: {', '.join(case.name for case in cases)}")
    cases, used = cases[: context.limit], [*rain[: context.limit], *clean[: context.limit]]
    perceptual = PerceptualDistances()

    def measure_more(case: Case, image: Image) -> dict[str, float]:
        return {**measure(case, image), **perceptual(case.clean, image)}

    shipped = methods(context)
    rows = score(PROTOCOL, cases, shipped, measure=measure_more, cache=context.cache)
    left_out = [case for case in cases if case.name in context.weights]
    for case in left_out:
        method = expert_with_weights(
            context.restorer,
            Modality.PHOTO,
            EXPERT,
            weights=context.weights[case.name],
            name=LEAVE_ONE_OUT,
            note="synthetic drops and the other pair; weights from --weights",
        )
        rows += score(PROTOCOL, [case], [method], measure=measure, cache=context.cache)
    published = [
        Row(f"{name} (published)", {PUBLISHED_LEVEL: {"PSNR Y": y, "SSIM Y": s}}, {PUBLISHED_LEVEL: 58})
        for name, (y, s) in PUBLISHED.items()
    ]
    flags: tuple[str, ...] = (
        *context.limited(),
        _trained_on(context),
        "the pairs were looked at while the weights of expert and gate were chosen: a development set",
        "published rows are on the 58 test pairs of Qian et al. 2018, which are others",
    )
    if len(left_out) < len(cases):
        flags += (
            "leave-one-out rows need weights trained without that pair: --weights pair0=FILE --weights pair1=FILE",
        )
    path = context.output / f"{PROTOCOL}.png"
    return Table(
        PROTOCOL,
        data_hash=data_hash(used),
        definitions={**DEFINITIONS, **perceptual.definitions()},
        rows=merged([*rows, *published]),
        flags=flags,
        figures=(figures.comparison(path, cases[0], shipped, quality=rgb_psnr, error=0.3, crop=None),),
    )


def _trained_on(context: Context) -> str:
    """What the bundle says about the real pairs its weights were trained on."""
    pairs = context.restorer.experts.sections[EXPERT].get("training_pairs")
    if pairs is None:
        return (
            "shipped weights: the bundle does not say whether it was trained on these pairs (metadata: training_pairs)"
        )
    if pairs:
        return f"shipped weights were trained on pairs {pairs}: on those they are not a test"
    return "shipped weights were trained on none of the pairs"
