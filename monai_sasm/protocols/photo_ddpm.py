"""``photo-ddpm``: the diffusion denoiser on CBSD68 with white noise of 25: texture, colour, and quality over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context, torch_device
from monai_sasm.evaluation.data import cbsd68, data_hash, files
from monai_sasm.evaluation.metrics import as_8_bit, colour_shift, delta_e, gradient_ratio, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.scoring import Case, Image, Method, score
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols import peers, photo
from monai_sasm.protocols.enhancer import STEPS_OF, step_figure

PROTOCOL = "photo-ddpm"
BUNDLE = "noise_photo_ddpm"
ALL = "CBSD68 25"
SWEPT, SIDE = 10, 128  # crops on which the number of steps is varied: 50 steps of a photo take most of a minute
NOISY_STEPS = (4, 10, 50)  # numbers of steps that are also taken with fresh noise
UNPINNED_STEPS = (1, 10)
PHOTOS_SHOWN = 4
DEFINITIONS = {
    "PSNR": "dB, all channels, range 1, of the unclipped result (mean of per-image values)",
    "PSNR 8-bit": "dB, of the result clipped to [0, 1] and rounded to 8 bit",
    "SSIM": "Gaussian 11x11, sigma 1.5, mean of channels",
    "gradient": "mean gradient magnitude over that of the clean photo: 1 is as sharp; noise left over counts, too",
    "delta E": "mean CIE 1976 colour difference of the 8-bit result",
    "colour shift": "the same after a Gaussian blur of 8 pixels: colours that moved, without noise and detail",
    "seconds": "median wall clock per photo or crop on this machine, which may be busy",
}


def run(context: Context) -> Table:
    """All photos in one step; on crops of the first few, every number of steps, with and without noise and pinning."""
    paths = cbsd68(context.data, context.limit)
    every = [case for case in photo.noisy_cases(paths, "CBSD68") if case.level == ALL]
    few = [_cropped(case, f"{ALL}, {min(SWEPT, len(every))} crops") for case in every[:SWEPT]]
    perceptual = PerceptualDistances()

    def measure_more(case: Case, image: Image) -> dict[str, float]:
        return {**measure(case, image), **perceptual(case.clean, image)}

    unet = context.expert(photo.EXPERT)
    others = [Method("input", lambda case: case.degraded)]
    if context.peers:
        chosen = files(context.data / "natural" / "bsds500" / "test", limit=1)
        validation = [case for case in photo.noisy_cases(chosen, "CBSD68") if case.level == ALL]
        others += peers.methods(("NLM fast",), validation, context.kept)
    others += [Method(photo.EXPERT, lambda case: unet(case.degraded, case.sigma), note="sigma given")]
    ours = _methods(context.network(BUNDLE), torch_device(context.device))
    rows = (
        *score(PROTOCOL, every, [*others, ours["ours, 1 step"]], measure, context.kept),
        *score(PROTOCOL, few, [*others, *ours.values()], measure_more, context.kept),
    )
    level = few[0].level
    return Table(
        PROTOCOL,
        data_hash(paths),
        {**DEFINITIONS, **perceptual.definitions()},
        rows,
        (
            *context.limited(),
            f"noise: that of {ALL} in `photo-awgn`, unclipped; sigma is given unless the row says otherwise",
            f"crops: the central {SIDE} x {SIDE} pixels of the first {len(few)} photos; seconds there are per crop",
            "one step gives the mean of the photos that fit, with the best PSNR; more steps draw one of them",
        ),
        (
            figures.comparison(
                context.output / f"{PROTOCOL}.png",
                few[min(3, len(few) - 1)],
                [*others, ours["ours, 1 step"], ours["ours, 10 steps"]],
                psnr_text=lambda case, image: psnr(case.clean, image, 1.0),
                crop=None,
            ),
            _triptychs(context.output / f"{PROTOCOL}-triptychs.png", every, ours["ours, 1 step"]),
            step_figure(
                context.output / f"{PROTOCOL}-steps.png",
                rows,
                [level],
                ("PSNR", "gradient", "VGG19-n", "colour shift"),
                tuple(method.name for method in others if method.name != "input"),
            ),
        ),
    )


def measure(case: Case, image: Image) -> dict[str, float]:
    """Fidelity, sharpness and colour."""
    seen = as_8_bit(image)
    return {
        "PSNR": psnr(case.clean, image, 1.0),
        "PSNR 8-bit": psnr(case.clean, seen, 1.0),
        "SSIM": ssim(case.clean, image, 1.0),
        "gradient": gradient_ratio(case.clean, image),
        "delta E": delta_e(case.clean, seen),
        "colour shift": colour_shift(case.clean, seen),
    }


def _methods(network: Any, device: str) -> Mapping[str, Method]:
    """Every variant of the network of :class:`monai_sasm.experts.ddpm.DdpmExpert` that is measured, by name."""
    variants: dict[str, dict[str, float]] = {name: {"steps": steps} for name, steps in STEPS_OF.items()}
    for name, steps in STEPS_OF.items():
        if steps in NOISY_STEPS:
            variants[f"{name}, eta 1"] = {"steps": steps, "eta": 1.0}
        if steps in UNPINNED_STEPS:
            variants[f"{name}, not pinned"] = {"steps": steps, "pin": 0.0}

    def restore(case: Case, options: Mapping[str, float], given: bool = True) -> Image:
        import torch

        noisy = torch.from_numpy(np.ascontiguousarray(case.degraded, np.float32))[None].to(device)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        sigma = torch.full_like(noisy[:, :1], case.sigma) if given else None
        with torch.inference_mode():
            result: Image = network(noisy, sigma, **options)[0].float().cpu().numpy()
        return result

    methods = [Method(name, partial(restore, options=options)) for name, options in variants.items()]
    methods.insert(1, Method("ours, 1 step, sigma estimated", partial(restore, options={"steps": 1}, given=False)))
    return {method.name: method for method in methods}


def _cropped(case: Case, level: str) -> Case:
    top, left = ((side - min(SIDE, side)) // 2 for side in case.clean.shape[1:])
    box = (slice(None), slice(top, top + SIDE), slice(left, left + SIDE))
    return replace(case, level=level, clean=case.clean[box], degraded=case.degraded[box])


def _triptychs(path: Path, cases: Sequence[Case], ours: Method) -> str:
    """Clean, noisy and denoised crops of photos from all over the set, a line each."""
    images: dict[str, Image] = {}
    for case in cases[:: max(1, len(cases) // PHOTOS_SHOWN)][:PHOTOS_SHOWN]:
        box = figures.busiest_crop(case.clean, figures.CROP)
        cut = replace(case, clean=case.clean[box], degraded=case.degraded[box])
        denoised = ours.restore(cut)
        images[f"{case.name}, clean"] = cut.clean
        images[f"{case.name}, noisy: {psnr(cut.clean, cut.degraded, 1.0):.2f} dB"] = cut.degraded
        images[f"{case.name}, {ours.name.removeprefix('ours, ')}: {psnr(cut.clean, denoised, 1.0):.2f} dB"] = denoised
    return figures.panels(path, images, columns=3)
