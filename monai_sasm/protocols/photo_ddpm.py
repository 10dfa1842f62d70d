"""``photo-ddpm``: the diffusion denoiser on CBSD68 with white noise of 25: texture, colour, and quality over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.evaluation import figures, peers
from monai_sasm.evaluation.context import Context, torch_device
from monai_sasm.evaluation.data import cbsd68, data_hash, files
from monai_sasm.evaluation.metrics import as_8_bit, colour_shift, delta_e, gradient_ratio, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.restoring import our_methods
from monai_sasm.evaluation.sampling_steps import STEPS_OF, step_figure
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, score
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.photo_awgn import EXPERT, noisy_cases, photo_psnr
from monai_sasm.types import Modality

PROTOCOL = "photo-ddpm"
BUNDLE = "noise_photo_ddpm"
SIGMA = 25  # of 255
SWEPT, SIDE = 10, 128  # crops on which the number of steps is varied: 50 steps of a photo take most of a minute
NOISY_STEPS = (4, 10, 50)  # numbers of steps that are also taken with fresh noise
UNPINNED_STEPS = (1, 10)
PHOTOS_SHOWN = 4
GAIN = Gain("PSNR")
DEFINITIONS = {
    "PSNR": "dB, all channels, range 1, of the unclipped result (mean of per-image values)",
    "PSNR 8-bit": "dB, of the result clipped to [0, 1] and rounded to 8 bit",
    "SSIM": "Gaussian 11x11, sigma 1.5, mean of channels",
    "gradient": "mean gradient magnitude over that of the clean photo: 1 is as sharp; noise left over counts, too",
    "delta E": "mean CIE 1976 colour difference of the 8-bit result",
    "colour shift": "the same after a Gaussian blur of 8 pixels: colours that moved, without noise and detail",
    "seconds": "median wall clock per photo or crop on this machine, which may be busy",
    **GAIN.definition,
}


def run(context: Context) -> Table:
    """All photos in one step; on crops of the first few, every number of steps, with and without noise and pinning."""
    paths = cbsd68(context.data, context.limit)
    every = noisy_cases(paths, "CBSD68", sigmas=(SIGMA,))
    few = [_cropped(case, f"{every[0].level}, {min(SWEPT, len(every))} crops") for case in every[:SWEPT]]
    perceptual = PerceptualDistances()

    def measure_more(case: Case, image: Image) -> dict[str, float]:
        return {**measure(case, image), **perceptual(case.clean, image)}

    others = [Method("input", lambda case: case.degraded)]
    if context.peers:
        photo = files(context.data / "natural" / "bsds500" / "test", limit=1)
        validation = noisy_cases(photo, "CBSD68", sigmas=(SIGMA,))
        others += peers.methods(("NLM fast",), validation, context.cache)
    others += our_methods(context.restorer, Modality.PHOTO, EXPERT, sigma_known=True)
    sampled = _methods(context.bundle(BUNDLE).network, torch_device(context.device))
    one, ten = sampled["ours, 1 step"], sampled["ours, 10 steps"]
    rows = (
        *score(PROTOCOL, every, [*others, one], measure=measure, cache=context.cache, gain=GAIN),
        *score(PROTOCOL, few, [*others, *sampled.values()], measure=measure_more, cache=context.cache, gain=GAIN),
    )
    path = context.output / f"{PROTOCOL}.png"
    return Table(
        PROTOCOL,
        data_hash=data_hash(paths),
        definitions={**DEFINITIONS, **perceptual.definitions()},
        rows=rows,
        flags=(
            *context.limited(),
            f"ours: {BUNDLE}; noise: that of {every[0].level} in `photo-awgn`, unclipped; sigma is given to it unless "
            "the row says otherwise",
            f"crops: the central {SIDE} x {SIDE} pixels of the first {len(few)} photos; seconds there are per crop",
            "one step gives the mean of the photos that fit, with the best PSNR; more steps draw one of them",
        ),
        figures=(
            figures.comparison(path, few[:4][-1], [*others, one, ten], quality=photo_psnr, crop=None),
            _triptychs(path.with_name(f"{PROTOCOL}-triptychs.png"), every, one),
            step_figure(
                path.with_name(f"{PROTOCOL}-steps.png"),
                rows,
                levels=[few[0].level],
                metrics=("PSNR", "gradient", "VGG19-n", "colour shift"),
                peers=tuple(method.name for method in others if method.name != "input"),
            ),
        ),
    )


def measure(case: Case, image: Image) -> dict[str, float]:
    """Fidelity, sharpness and colour."""
    rounded = as_8_bit(image)
    return {
        "PSNR": psnr(case.clean, image, 1.0),
        "PSNR 8-bit": psnr(case.clean, rounded, 1.0),
        "SSIM": ssim(case.clean, image, 1.0),
        "gradient": gradient_ratio(case.clean, image),
        "delta E": delta_e(case.clean, rounded),
        "colour shift": colour_shift(case.clean, rounded),
    }


def _methods(network: Any, device: Any) -> Mapping[str, Method]:
    """Every variant of the network of :class:`monai_sasm.experts.ddpm.DdpmExpert` that is measured, by name.

    They call the bare network: steps, fresh noise and pinning are arguments of its own, which no restorer has.
    """
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
        images[f"{case.name}, noisy: {photo_psnr(cut, cut.degraded):.2f} dB"] = cut.degraded
        images[f"{case.name}, {ours.name.removeprefix('ours, ')}: {photo_psnr(cut, denoised):.2f} dB"] = denoised
    return figures.panels(path, images, columns=3)
