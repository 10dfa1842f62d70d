"""``raindrop-synth``: drops rendered on BSDS photos."""

from __future__ import annotations

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash, files
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.raindrops import DEFINITIONS, measure, methods, rendered_cases, rgb_psnr
from monai_sasm.evaluation.scoring import Case, Image, score
from monai_sasm.evaluation.table import Table

PROTOCOL = "raindrop-synth"
LABELS = "synthetic"  # of the further weights that are compared
PHOTOS = 60  # of bsds500/val
WET = 0.05  # share of light from water above which a pixel counts as inside a drop
HIGHEST = 60.0  # dB
OWN_DEFINITIONS = {
    "PSNR in drops": f"dB, RGB, pixels with more than {100 * WET:g} % of their light from water",
    "PSNR outside": f"dB, RGB, the other pixels, at most {HIGHEST:g} dB per photo: harm done where nothing was wrong",
}


def run(context: Context) -> Table:
    """Rendered drops, seed = number of the photo."""
    paths = files(context.data / "natural" / "bsds500" / "val", "*.jpg", context.limit or PHOTOS)
    cases, compared = rendered_cases(paths), methods(context)
    rows = score(PROTOCOL, cases, compared, measure=measure_drops, cache=context.cache)
    path = context.output / f"{PROTOCOL}.png"
    return Table(
        PROTOCOL,
        data_hash=data_hash(paths),
        definitions=DEFINITIONS | OWN_DEFINITIONS,
        rows=tuple(rows),
        flags=(
            *context.limited(),
            f"first {len(paths)} photos of bsds500/val; drops as in training, other seeds and photos",
        ),
        figures=(figures.comparison(path, cases[0], compared, quality=rgb_psnr, error=0.3, crop=None),),
    )


def measure_drops(case: Case, image: Image) -> dict[str, float]:
    """The metrics of raindrops, and PSNR inside and outside of the drops."""
    wet = np.broadcast_to(case.facts["mask"] > WET, case.clean.shape)
    parts = {"PSNR in drops": wet, "PSNR outside": ~wet}
    found = {
        name: psnr(case.clean[part], image[part], 1.0) if part.any() else float("nan") for name, part in parts.items()
    }
    return {**measure(case, image), **found, "PSNR outside": min(found["PSNR outside"], HIGHEST)}
