"""``photo-awgn``: white Gaussian noise on CBSD68 (colour) and Set12 (grey)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures, peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import cbsd68, data_hash, files, photo
from monai_sasm.evaluation.metrics import as_8_bit, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.restoring import our_methods, restoring
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, score
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.types import Modality

PROTOCOL = "photo-awgn"
SIGMAS = (15, 25, 50)  # of 255
PERCEPTUAL_LEVEL = "CBSD68 25"  # feature distances cost more than the restoration
EXPERT = "noise_photo_unet"
PUBLISHED = {  # CBSD68 PSNR of RGB, from the tables of the papers
    "DnCNN (published)": (33.90, 31.24, 27.95),
    "FFDNet (published)": (33.87, 31.21, 27.96),
    "DRUNet (published)": (34.30, 31.69, 28.51),
}
GAIN = Gain("PSNR")
DEFINITIONS = {
    "PSNR": "dB, all channels, range 1, of the unclipped result (mean of per-image values)",
    "PSNR 8-bit": "dB, of the result clipped to [0, 1] and rounded to 8 bit, as published numbers are measured",
    "SSIM": "Gaussian 11x11, sigma 1.5, mean of channels",
    "seconds": "median wall clock per image on this machine, which may be busy; see `speed` for ratios",
    **GAIN.definition,
}


def run(context: Context) -> Table:
    """Rows for input, peers, expert and default pipeline; levels ``CBSD68 15`` to ``Set12 50``."""
    colour = cbsd68(context.data, context.limit)
    grey = files(context.data / "natural" / "set12", limit=context.limit)
    perceptual = PerceptualDistances()

    def measure(case: Case, image: Image) -> dict[str, float]:
        scores = {
            "PSNR": photo_psnr(case, image),
            "PSNR 8-bit": eight_bit_psnr(case, image),
            "SSIM": ssim(case.clean, image, 1.0),
        }
        return {**scores, **(perceptual(case.clean, image) if case.level == PERCEPTUAL_LEVEL else {})}

    methods = [Method("input", lambda case: case.degraded)]
    if context.peers:
        chosen = files(context.data / "natural" / "bsds500" / "test", limit=1)
        validation = noisy_cases(chosen, "CBSD68") + noisy_cases(chosen, "Set12", grey=True)
        methods += peers.methods(("NLM fast", "BM3D"), validation, context.cache)
    methods += our_methods(context.restorer, Modality.PHOTO, EXPERT, sigma_known=True)
    eight = restoring(context.restorer, Modality.PHOTO, sigma_known=True, expert=EXPERT, self_ensemble=8)
    methods.append(
        Method(f"expert {EXPERT}, x8 self-ensemble", eight, first=peers.BM3D_SUBSET, note="noise level given")
    )
    cases = noisy_cases(colour, "CBSD68") + noisy_cases(grey, "Set12")
    rows = score(PROTOCOL, cases, methods, measure=measure, cache=context.cache, subset_name="BM3D subset", gain=GAIN)
    example = [case for case in cases if case.level == PERCEPTUAL_LEVEL][:4][-1]
    return Table(
        PROTOCOL,
        data_hash=data_hash([*colour, *grey]),
        definitions={**DEFINITIONS, **perceptual.definitions()},
        rows=(*rows, *_published()),
        flags=(
            *context.limited(),
            "never trained on; nine photos of CBSD68 and eight of Set12 were looked at while the weights of expert and "
            "gate were chosen",
            "noise: unclipped, RandomState(0) per level, one stream over the sorted files, (H, W, C) order",
            f"BM3D and the self-ensemble run on the first {peers.BM3D_SUBSET} images of each level; rows marked 'BM3D "
            "subset' are on those same images",
        ),
        figures=(figures.comparison(context.output / f"{PROTOCOL}.png", example, methods, quality=photo_psnr),),
    )


def noisy_cases(paths: Sequence[Path], name: str, *, grey: bool = False, sigmas: Sequence[int] = SIGMAS) -> list[Case]:
    """Noisy versions of the photos at each of ``sigmas``, one noise stream per level."""
    cases = []
    for level in sigmas:
        random = np.random.RandomState(0)
        for path in paths:
            clean = photo(path)
            if grey and clean.shape[0] == 3:
                clean = clean.mean(0, keepdims=True)
            noise = random.normal(0, level / 255, clean.shape[1:] + clean.shape[:1]).transpose(2, 0, 1)
            noisy = (clean + noise).astype(np.float32)
            cases.append(Case(path.stem, f"{name} {level}", clean=clean, degraded=noisy, sigma=level / 255))
    return cases


def photo_psnr(case: Case, image: Image) -> float:
    """PSNR over all channels, range 1."""
    return psnr(case.clean, image, 1.0)


def eight_bit_psnr(case: Case, image: Image) -> float:
    """PSNR of what an 8-bit file would hold, range 1."""
    return psnr(case.clean, as_8_bit(image), 1.0)


def _published() -> list[Row]:
    note = "PSNR on CBSD68 as published (8-bit results); other images or noise are not comparable"
    levels = [f"CBSD68 {sigma}" for sigma in SIGMAS]
    return [
        Row(
            name,
            {level: {"PSNR 8-bit": value} for level, value in zip(levels, values, strict=True)},
            n=dict.fromkeys(levels, 68),
            note=note,
        )
        for name, values in PUBLISHED.items()
    ]
