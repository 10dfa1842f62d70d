"""``photo-real``: the noise of real cameras, on photographed pairs: one shot, and the mean of many."""

from __future__ import annotations

from pathlib import Path

from monai_sasm.evaluation import figures, peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files, photo
from monai_sasm.evaluation.metrics import gradient_ratio, ssim
from monai_sasm.evaluation.restoring import our_methods
from monai_sasm.evaluation.scoring import Case, Image, Method, score
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols import photo_awgn
from monai_sasm.protocols.photo_awgn import EXPERT, eight_bit_psnr
from monai_sasm.types import Modality

PROTOCOL = "photo-real"
FOLDER = "natural/cc15"
LEVEL = "CC15"
PEERS = ("NLM fast", "BM3D")
STRENGTHS = {"NLM fast": (0.4, 0.6, 0.8, 1.0, 1.3), "BM3D": (0.7, 1.0, 1.4)}  # correlated noise wants more than white
DEFINITIONS = {
    "PSNR": "dB, all channels, range 1, of the result clipped to [0, 1] and rounded to 8 bit; mean over photos",
    "SSIM": photo_awgn.DEFINITIONS["SSIM"],
    "gradient": "mean gradient magnitude over that of the mean of many shots",
    "seconds": photo_awgn.DEFINITIONS["seconds"],
    **photo_awgn.GAIN.definition,
}


def run(context: Context) -> Table:
    """Pairs of CC15 (Nam et al., CVPR 2016): crops of 512 x 512 pixels, ISO 1600 to 6400, JPEG of the camera."""
    noisy = files(context.data / FOLDER, "*_real.png", limit=context.limit)
    cases = [_case(path) for path in noisy]
    methods = [Method("input", lambda case: case.degraded)]
    if context.peers:
        methods += peers.methods(
            PEERS, cases[:1], context.cache, strengths=STRENGTHS, quality=eight_bit_psnr, first=None
        )
    methods += our_methods(context.restorer, Modality.PHOTO, EXPERT, sigma_known=True)
    rows = score(PROTOCOL, cases, methods, measure=measure, cache=context.cache, gain=photo_awgn.GAIN)
    return Table(
        PROTOCOL,
        data_hash=data_hash([*noisy, *map(_clean_of, noisy)]),
        definitions=DEFINITIONS,
        rows=tuple(rows),
        flags=(
            *context.limited(),
            "never trained on, but looked at while the weights of expert and gate were chosen: a development set",
            "the mean of many shots is the reference, and holds the camera's JPEG",
            "peers are told the noise of each photo, measured against the reference, and tuned on the first of them",
        ),
        figures=(
            figures.comparison(
                context.output / f"{PROTOCOL}.png", cases[len(cases) // 2], methods, quality=eight_bit_psnr
            ),
        ),
    )


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS` of one photo."""
    return {
        "PSNR": eight_bit_psnr(case, image),
        "SSIM": ssim(case.clean, image, 1.0),
        "gradient": gradient_ratio(case.clean, image),
    }


def _case(path: Path) -> Case:
    clean, noisy = photo(_clean_of(path)), photo(path)
    return Case(path.stem.removesuffix("_real"), LEVEL, clean=clean, degraded=noisy, sigma=float((noisy - clean).std()))


def _clean_of(path: Path) -> Path:
    return path.with_name(path.name.replace("_real", "_mean"))
