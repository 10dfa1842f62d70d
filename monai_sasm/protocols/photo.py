"""``photo-awgn``: white Gaussian noise on CBSD68 (colour) and Set12 (grey)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context, on_grey, self_ensemble
from monai_sasm.evaluation.data import cbsd68, data_hash, files, photo
from monai_sasm.evaluation.metrics import as_8_bit, psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.scoring import Case, Image, Method, score
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.protocols import peers

SIGMAS = (15, 25, 50)  # of 255
PERCEPTUAL_LEVEL = "CBSD68 25"  # feature distances cost more than the restoration
EXPERT = "noise_photo_unet"
PUBLISHED = {  # CBSD68 PSNR of RGB, from the tables of the papers
    "DnCNN (published)": (33.90, 31.24, 27.95),
    "FFDNet (published)": (33.87, 31.21, 27.96),
    "DRUNet (published)": (34.30, 31.69, 28.51),
}
DEFINITIONS = {
    "PSNR": "dB, all channels, range 1, of the unclipped result (mean of per-image values)",
    "PSNR 8-bit": "dB, of the result clipped to [0, 1] and rounded to 8 bit, as published numbers are measured",
    "SSIM": "Gaussian 11x11, sigma 1.5, mean of channels",
    "seconds": "median wall clock per image on this machine, which may be busy; see `speed` for ratios",
}


def run(context: Context) -> Table:
    """Rows for input, peers, ours; levels ``CBSD68 15`` to ``Set12 50``."""
    colour = cbsd68(context.data, context.limit)
    grey = files(context.data / "natural" / "set12", limit=context.limit)
    perceptual = PerceptualDistances()

    def measure(case: Case, image: Image) -> dict[str, float]:
        scores = {
            "PSNR": psnr(case.clean, image, 1.0),
            "PSNR 8-bit": psnr(case.clean, as_8_bit(image), 1.0),
            "SSIM": ssim(case.clean, image, 1.0),
        }
        return {**scores, **(perceptual(case.clean, image) if case.level == PERCEPTUAL_LEVEL else {})}

    ours = on_grey(context.expert(EXPERT))
    methods = [Method("input", lambda case: case.degraded)]
    if context.peers:
        chosen = files(context.data / "natural" / "bsds500" / "test", limit=1)
        validation = noisy_cases(chosen, "CBSD68") + noisy_cases(chosen, "Set12", grey=True)
        methods += peers.methods(("NLM fast", "BM3D"), validation, context.kept)
    methods += [
        Method("ours, sigma estimated", lambda case: ours(case.degraded, None)),
        Method("ours", lambda case: ours(case.degraded, case.sigma), note="sigma given, like the peers"),
        Method(
            "ours, x8 self-ensemble",
            lambda case: self_ensemble(ours)(case.degraded, case.sigma),
            first=peers.BM3D_SUBSET,
            note="sigma given",
        ),
    ]
    cases = noisy_cases(colour, "CBSD68") + noisy_cases(grey, "Set12")
    rows = score("photo-awgn", cases, methods, measure, context.kept, "BM3D subset")
    figure = figures.comparison(
        context.output / "photo-awgn.png",
        _example(cases),
        methods,
        psnr_text=lambda case, image: psnr(case.clean, image, 1.0),
    )
    return Table(
        "photo-awgn",
        data_hash([*colour, *grey]),
        {**DEFINITIONS, **perceptual.definitions()},
        (*rows, *_published()),
        (
            *context.limited(),
            "noise: unclipped, RandomState(0) per level, one stream over the sorted files, (H, W, C) order",
            f"BM3D and the self-ensemble run on the first {peers.BM3D_SUBSET} images of each level; rows marked 'BM3D "
            "subset' are on those same images",
        ),
        (figure,),
    )


def noisy_cases(paths: Sequence[Path], name: str, grey: bool = False) -> list[Case]:
    """Noisy versions of the photos at each level of :data:`SIGMAS`, one noise stream per level."""
    cases = []
    for level in SIGMAS:
        random = np.random.RandomState(0)
        for path in paths:
            clean = photo(path)
            if grey and clean.shape[0] == 3:
                clean = clean.mean(0, keepdims=True)
            noise = random.normal(0, level / 255, clean.shape[1:] + clean.shape[:1]).transpose(2, 0, 1)
            cases.append(Case(path.stem, f"{name} {level}", clean, (clean + noise).astype(np.float32), level / 255))
    return cases


def _example(cases: Sequence[Case]) -> Case:
    middle = [case for case in cases if case.level == "CBSD68 25"]
    return middle[min(3, len(middle) - 1)]


def _published() -> list[Row]:
    note = "PSNR on CBSD68 as published (8-bit results); other images or noise are not comparable"
    return [
        Row(
            name,
            {f"CBSD68 {s}": {"PSNR 8-bit": v} for s, v in zip(SIGMAS, values, strict=True)},
            {f"CBSD68 {s}": 68 for s in SIGMAS},
            None,
            note,
        )
        for name, values in PUBLISHED.items()
    ]
