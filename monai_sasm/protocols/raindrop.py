"""``raindrop-real`` (two photographed pairs) and ``raindrop-synth`` (drops rendered on BSDS photos)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files, photo
from monai_sasm.evaluation.metrics import delta_e, gradient_ratio, luma, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.scoring import Case, Image, Method, batch_shape, score
from monai_sasm.evaluation.table import Row, Table, merged

EXPERT = "raindrop_photo_unet"
PHOTOS = 60  # of bsds500/val
WET = 0.05  # share of light from water above which a pixel counts as inside a drop
PUBLISHED = {  # PSNR Y, SSIM on 58 other pairs (test_a of Qian et al. 2018)
    "Pix2Pix": (28.02, 0.8547),
    "AttentiveGAN": (31.59, 0.917),
    "RainDropDiff128": (32.43, 0.933),
    "Defusion": (33.81, 0.967),
}
DEFINITIONS = {
    "PSNR Y": "dB, ITU-R BT.601 luma as in MATLAB, range 255, full image",
    "SSIM Y": "of that luma, Gaussian 11x11, sigma 1.5",
    "PSNR RGB": "dB, all channels, full image",
    "SSIM RGB": "mean of channels",
    "delta E": "mean CIE 1976 colour difference",
    "gradient": "mean gradient magnitude over that of the clean photo",
}


def run_real(context: Context) -> Table:
    """Both real pairs; leave-one-out and synthetic-only rows where such weights are handed over."""
    folder = context.data / "raindrop" / "pairs"
    rain, clean = files(folder / "data"), files(folder / "gt")
    cases = [
        Case(f"pair{k}", f"pair {k}", photo(b), photo(a)) for k, (a, b) in enumerate(zip(rain, clean, strict=True))
    ]
    perceptual = PerceptualDistances()
    methods = [Method("input", lambda case: case.degraded), *_our_methods(context)]
    rows = score(
        "raindrop-real",
        cases,
        methods,
        lambda case, image: {**measure(case, image), **perceptual(case.clean, image)},
        context.kept,
    )
    left_out = {name: path for name, path in context.weights.items() if name in {case.name for case in cases}}
    for case in cases:
        if case.name in left_out:
            expert = context.expert(EXPERT, left_out[case.name])
            method = Method(
                "ours, leave-one-out", lambda case, run=expert: run(case.degraded, None),  # type: ignore[misc]
                note="synthetic drops and the other pair; weights from --weights",
            )  # fmt: skip
            rows += score("raindrop-real", [case], [method], lambda case, image: measure(case, image), context.kept)
    figure = figures.comparison(
        context.output / "raindrop-real.png", cases[0], methods, _rgb_psnr, error=0.3, crop=None
    )
    published = [
        Row(
            f"{name} (published)",
            {"published, other images": {"PSNR Y": y, "SSIM Y": s}},
            {"published, other images": 58},
        )
        for name, (y, s) in PUBLISHED.items()
    ]
    flags: tuple[str, ...] = (
        _seen_pairs(context),
        "published rows are on the 58 test pairs of Qian et al. 2018, which are not these two",
    )
    if len(left_out) < len(cases):
        flags += (
            "leave-one-out rows need weights trained without that pair: --weights pair0=FILE --weights pair1=FILE",
        )
    definitions = {**DEFINITIONS, **perceptual.definitions()}
    return Table(
        "raindrop-real", data_hash([*rain, *clean]), definitions, merged([*rows, *published]), flags, (figure,)
    )


def run_synthetic(context: Context) -> Table:
    """Rendered drops, seed = number of the photo."""
    paths = files(context.data / "natural" / "bsds500" / "val", "*.jpg", context.limit or PHOTOS)
    cases = synthetic_cases(paths)

    def with_drops(case: Case, image: Image) -> dict[str, float]:
        wet = np.broadcast_to(case.facts["mask"] > WET, case.clean.shape)
        inside = {"PSNR in drops": psnr(case.clean[wet], image[wet], 1.0) if wet.any() else float("nan")}
        return {**measure(case, image), **inside, "PSNR outside": _capped(case.clean[~wet], image[~wet])}

    methods = [Method("input", lambda case: case.degraded), *_our_methods(context)]
    rows = score("raindrop-synth", cases, methods, with_drops, context.kept)
    figure = figures.comparison(
        context.output / "raindrop-synth.png", cases[0], methods, _rgb_psnr, error=0.3, crop=None
    )
    definitions = {
        **DEFINITIONS,
        "PSNR in drops": f"dB, RGB, pixels with more than {100 * WET:g} % of their light from water",
        "PSNR outside": "dB, RGB, the other pixels, at most 60 dB per photo: harm done where nothing was wrong",
    }
    flags = (
        *context.limited(),
        f"first {len(paths)} photos of bsds500/val; drops as in training, other seeds and photos",
    )
    return Table("raindrop-synth", data_hash(paths), definitions, tuple(rows), flags, (figure,))


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS`."""
    y, seen = luma(case.clean), luma(image)
    return {
        "PSNR Y": psnr(y, seen, 1.0),
        "SSIM Y": ssim(y, seen, 1.0),
        "PSNR RGB": _rgb_psnr(case, image),
        "SSIM RGB": ssim(case.clean, image, 1.0),
        "delta E": delta_e(case.clean, image),
        "gradient": gradient_ratio(case.clean, image),
    }


def synthetic_cases(paths: Sequence[Path]) -> list[Case]:
    """Drops on photos; ``facts["mask"]`` is the share of light from water ``(1, H, W)``."""
    import torch

    from monai_sasm.degradations.raindrop import Raindrop

    model, cases = Raindrop(), []
    for number, path in enumerate(paths):
        clean = torch.from_numpy(photo(path))[None]
        params = model.draw(batch_shape(clean), torch.Generator().manual_seed(number))
        wet = model.apply(clean, params)[0].numpy()
        cases.append(Case(path.stem, "", clean[0].numpy(), wet, facts={"mask": params.mask[0].numpy()}))
    return cases


def _our_methods(context: Context) -> list[Method]:
    shipped = context.expert(EXPERT)
    methods = [Method("ours, expert", lambda case: shipped(case.degraded, None), note="shipped weights")]
    synthetic = _synthetic_weights(context)
    if synthetic is not None:
        expert = context.expert(EXPERT, synthetic)
        methods.append(
            Method(
                "ours, synthetic only", lambda case: expert(case.degraded, None), note="trained on rendered drops only"
            )
        )
    if context.restorer is not None:
        methods.append(Method("ours, whole pipeline", _pipeline(context), note="gate, all photo experts, two passes"))
    return methods


def _pipeline(context: Context) -> Callable[[Case], Image]:
    from monai_sasm.io.volume import Volume
    from monai_sasm.types import Modality

    restorer = context.restorer
    if restorer is None:
        raise ValueError("the whole pipeline needs a gate bundle; none is installed")
    return lambda case: restorer(Volume(np.ascontiguousarray(case.degraded), Modality.PHOTO)).volume.array


def _synthetic_weights(context: Context) -> Path | None:
    from monai_sasm.bundles import shipped_folder

    given = context.weights.get("synthetic")
    beside = shipped_folder() / EXPERT / "models" / "model_synthetic.pt"
    return given or (beside if beside.is_file() and not context.restorers else None)


def _seen_pairs(context: Context) -> str:
    """What the bundle says about the real pairs its weights were trained on."""
    from monai_sasm.bundles import available, read_metadata

    root = None if context.restorers else available().get(EXPERT)
    seen = read_metadata(root)["sasm"].get("training_pairs") if root else None
    if seen is None:
        return (
            "shipped weights: the bundle does not say whether it was trained on these pairs (metadata: training_pairs)"
        )
    return (
        f"shipped weights were trained on pairs {seen}: on those they are not a test"
        if seen
        else "shipped weights saw neither pair"
    )


def _rgb_psnr(case: Case, image: Image) -> float:
    return psnr(case.clean, image, 1.0)


def _capped(clean: Image, image: Image) -> float:
    return min(psnr(clean, image, 1.0), 60.0) if clean.size else float("nan")
