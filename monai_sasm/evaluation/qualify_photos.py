"""``sasm qualify`` of photos: how noisy they are, and what the gate would do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.qualify import Wish
from monai_sasm.io.entry import Entry
from monai_sasm.io.orientation import orientation_of
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

Image = NDArray[np.float32]
SIDE = 768  # pixels; of larger photos the middle is taken, for noise does not survive scaling
LEVELS = 255.0


@dataclass(frozen=True, eq=False)
class Pair:
    """A photo, or the middle of one, ``(C, H, W)`` in [0, 1], before and after, as viewers show it."""

    before: Image
    after: Image


def qualify_photos(entries: Sequence[Entry], restorer: Restorer, wish: Wish) -> tuple[dict[str, Any], list[Pair]]:
    """Measure at most ``wish.slices`` of the photos, evenly chosen; of the wish, a named expert or gate counts, too.

    Returns:
        what was measured, JSON-serialisable, photos by number; and the photos, for pictures.

    Raises:
        RefusedError: none can be read.
        BundleError: an expert or the gate is missing.
    """
    chosen = [
        entries[k]
        for k in np.unique(np.linspace(0, len(entries) - 1, min(wish.slices, len(entries))).round().astype(int))
    ]
    rows: list[dict[str, Any]] = []
    pairs, models = [], {}
    for number, entry in enumerate(chosen):
        try:
            whole = entry.load()
        except RefusedError:
            continue
        volume, show = _middle(whole), orientation_of(whole).show
        result = restorer(volume, expert=wish.expert, gate=wish.gate)
        after, models = result.volume.array, result.plan.models
        weights = {name: weight for name, weight in result.summary["weights"].items() if name != "identity" and weight}
        rows.append(
            {
                "photo": number + 1,
                "noise": LEVELS * result.summary["noise"],
                "noise_after": LEVELS * _noise(after, restorer),
                "change": LEVELS * float(np.abs(after - volume.array).mean()),
                "passes": result.summary["passes"],
                "weights": weights,
            }
        )
        pairs.append(Pair(show(volume.array), show(after)))
    if not rows:
        raise RefusedError("no photo could be read")
    named = sorted({name for row in rows for name in row["weights"]})
    means = {name: float(np.mean([row["weights"].get(name, 0.0) for row in rows])) for name in named}
    noise = [row["noise"] for row in rows]
    return {
        "series": {"modality": "PHOTO", "photos": len(entries), "sampled": len(rows)},
        "unit": "of 255",
        "by": wish.expert or wish.gate or "gate",
        "models": models,
        "noise": {"median": float(np.median(noise)), "least": min(noise), "most": max(noise)},
        "mean_weights": means,
        "photos": rows,
    }, pairs


def _middle(photo: Volume) -> Volume:
    height, width = photo.array.shape[-2:]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    return Volume(np.ascontiguousarray(photo.array[:, top : top + SIDE, left : left + SIDE]), Modality.PHOTO)


def _noise(photo: Image, restorer: Restorer) -> float:
    import torch

    from monai_sasm.functional.noise import noise_level

    return noise_level(restorer.noise_estimator(torch.from_numpy(np.ascontiguousarray(photo[None]))))[0]
