"""``superres-photo``: CBSD68 at half and a quarter of its resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import cbsd68, data_hash, photo
from monai_sasm.evaluation.metrics import as_8_bit, gradient_ratio, luma, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.sampling_steps import Enhancer, enhancers, methods_over_steps, step_figure
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, score
from monai_sasm.evaluation.table import Table, merged

PROTOCOL = "superres-photo"
FACTORS = (2, 4)
MULTIPLE = 4  # photos are cropped to sides that all factors divide
SWEEP = 6  # photos on which the number of steps is varied, at the largest factor: minutes per photo
ROUNDS = 10  # of back-projection
SHOWN = ("ours, 1 step", "ours, 10 steps", "ours, latent, 1 step")
GAIN = Gain("PSNR RGB", "bicubic")
DEFINITIONS = {
    "PSNR RGB": "dB, all channels, of the 8-bit result without a border as wide as the factor",
    "PSNR Y": "dB, of ITU-R BT.601 luma as in MATLAB, range 255, the same pixels",
    "SSIM Y": "of that luma, Gaussian 11x11, sigma 1.5",
    "gradient": "mean gradient magnitude over that of the photo",
    "consistency": "mean |downsampled result - input|, grey levels of 255; of the photos themselves 0.25, by rounding",
    "consistency max": "largest such difference in a photo, mean over the photos",
    "seconds": "median wall clock per photo on this machine, which may be busy",
    **GAIN.definition,
}


def run(context: Context) -> Table:
    """Levels ``x2``, ``x4`` on all photos, and ``x4`` again on the few on which the number of steps is varied."""
    paths = cbsd68(context.data, context.limit)
    model, latent = enhancers(context)
    perceptual = PerceptualDistances()
    cases = low_resolution_cases(paths)
    hardest = [case for case in cases if case.level == cases[-1].level][:SWEEP]
    few = f"{hardest[0].level}, {len(hardest)} photos"
    swept = [replace(case, level=few) for case in hardest]

    def measure_more(case: Case, image: Image) -> dict[str, float]:
        gradient = {"gradient": gradient_ratio(case.clean, image)}
        return {**measure(case, image), **gradient, **perceptual(case.clean, as_8_bit(image))}

    peers = [Method("bicubic", lambda case: upsampled(case.degraded, case.facts["factor"]))]
    if context.peers:
        peers += [
            Method("Lanczos", lambda case: lanczos(case.degraded, case.facts["factor"]), note="Pillow"),
            Method(
                "bicubic, back-projected",
                lambda case: back_projected(case.degraded, case.facts["factor"]),
                note=f"{ROUNDS} rounds (Irani & Peleg 1991): what consistency gives without a network",
            ),
        ]
    # the bare network: a restorer keeps the size of its image, and takes no number of steps
    over_steps = [
        *(method for method in peers if method.name != "Lanczos"),
        *methods_over_steps(_restore, model, latent),
    ]
    once = [*peers, *methods_over_steps(_restore, model, latent, most=1)]
    rows = merged(
        [
            *score(PROTOCOL, cases, once, measure=measure, cache=context.cache, gain=GAIN),
            *score(PROTOCOL, swept, over_steps, measure=measure_more, cache=context.cache, gain=GAIN),
        ]
    )
    shown = [method for method in over_steps if method.name in ("bicubic", *SHOWN)]
    path = context.output / f"{PROTOCOL}.png"
    return Table(
        PROTOCOL,
        data_hash=data_hash(paths),
        definitions={**DEFINITIONS, **perceptual.definitions()},
        rows=rows,
        flags=(
            *context.limited(),
            f"input: the photo cropped to multiples of {MULTIPLE}, downsampled by antialiased bicubic interpolation "
            "(a = -1/2, weights made to sum to 1 at the border), rounded to 8 bit",
            f"steps are varied on the first {len(swept)} photos; one step gives the mean of what fits, with the best "
            "PSNR, more steps draw one of them",
            "no published rows: those are on other photos (BSD100, Set5) with MATLAB's border",
            *(() if latent else ("the latent variant has no weights yet",)),
        ),
        figures=(
            figures.comparison(path, swept[:4][-1], shown, quality=_luma_psnr, error=0.2),
            step_figure(
                path.with_name(f"{PROTOCOL}-steps.png"),
                rows,
                levels=[few],
                metrics=("PSNR Y", "VGG19-n", "LPIPS"),
                peers=("bicubic", "ours, latent, 1 step"),
            ),
        ),
    )


def low_resolution_cases(paths: Sequence[Path]) -> list[Case]:
    """Photos and their small versions in 8 bit, at each factor of :data:`FACTORS`."""
    import torch

    from monai_sasm.degradations.downsampling import downsample

    cases = []
    for factor in FACTORS:
        for path in paths:
            whole = photo(path)
            height, width = (side - side % MULTIPLE for side in whole.shape[1:])
            clean = np.ascontiguousarray(whole[:, :height, :width])
            low = as_8_bit(downsample(torch.from_numpy(clean)[None], factor)[0].numpy())
            cases.append(
                Case(path.stem, f"x{factor}", clean=clean, degraded=low.astype(np.float32), facts={"factor": factor})
            )
    return cases


def measure(case: Case, image: Image) -> dict[str, float]:
    """PSNR and SSIM of the 8-bit result without its border; consistency of the result as it came."""
    import torch

    from monai_sasm.degradations.downsampling import downsample

    factor = case.facts["factor"]
    inner = (slice(None), slice(factor, -factor), slice(factor, -factor))
    clean, rounded = case.clean[inner], as_8_bit(image)[inner]
    again = downsample(torch.from_numpy(image)[None], factor)[0].numpy()
    error = 255 * np.abs(again - case.degraded)
    return {
        "PSNR RGB": psnr(clean, rounded, 1.0),
        "PSNR Y": psnr(luma(clean), luma(rounded), 1.0),
        "SSIM Y": ssim(luma(clean), luma(rounded), 1.0),
        "consistency": float(error.mean()),
        "consistency max": float(error.max()),
    }


def upsampled(low: Image, factor: int) -> Image:
    """Bicubic enlargement of ``(C, h, w)``."""
    import torch

    from monai_sasm.degradations.downsampling import upsample

    enlarged: Image = upsample(torch.from_numpy(low)[None], factor)[0].numpy()
    return enlarged


def lanczos(low: Image, factor: int) -> Image:
    """Enlargement of ``(C, h, w)`` by Pillow's Lanczos kernel of three lobes."""
    from PIL import Image as PillowImage

    size = (low.shape[2] * factor, low.shape[1] * factor)
    return np.stack(
        [np.asarray(PillowImage.fromarray(part).resize(size, PillowImage.Resampling.LANCZOS)) for part in low]
    )


def back_projected(low: Image, factor: int, rounds: int = ROUNDS) -> Image:
    """Bicubic enlargement of ``(C, h, w)``, corrected ``rounds`` times by what it lacks when downsampled again."""
    import torch

    from monai_sasm.degradations.downsampling import downsample, upsample

    small = torch.from_numpy(low)[None]
    large = upsample(small, factor)
    for _ in range(rounds):
        large = large + upsample(small - downsample(large, factor), factor)
    result: Image = large[0].numpy()
    return result


def _restore(model: Enhancer, steps: int, case: Case) -> Image:
    return model.superresolve(case.degraded, case.facts["factor"], steps)


def _luma_psnr(case: Case, image: Image) -> float:
    return measure(case, image)["PSNR Y"]
