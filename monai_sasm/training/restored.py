"""Pairs of clean photos and what the house makes of their degraded versions, made once and kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.types import ImageBatch

Photo = NDArray[np.uint8]


def restored_pairs(
    photos: Callable[[], Sequence[Photo]],
    restore: Callable[[ImageBatch], ImageBatch],
    degradation: DegradationModel,
    cache: str | Path,
    draws: int = 1,
    seed: int = 0,
) -> list[tuple[Photo, ...]]:
    """Pairs ``(clean, restored)`` of photos ``(3, H, W)``, 8 bit.

    A photo takes about a second, hence the cache: when the file exists it is read and the other arguments do not
    matter; delete it to restore anew. A run that was cut off goes on from its last photo.

    Args:
        photos: gives the clean photos; called only when there is no cache.
        restore: image -> image, photos ``(1, 3, H, W)`` in [0, 1]: a :class:`monai_sasm.pipeline.Pipeline`, say.
        degradation: how the photos are spoiled first.
        cache: ``.npz`` file.
        draws: degraded versions per photo.
        seed: of the degradations; each photo has its own stream.
    """
    cache = Path(cache)
    if not cache.is_file():
        parts = cache.with_suffix(".parts")
        parts.mkdir(parents=True, exist_ok=True)
        clean = photos()
        arrays: dict[str, Any] = {f"clean_{number}": image for number, image in enumerate(clean)}
        for number, image in enumerate(clean):
            for draw in range(draws):
                part = parts / f"{number}_{draw}.npy"
                if not part.is_file():
                    generator = torch.Generator().manual_seed((seed * len(clean) + number) * draws + draw)
                    np.save(part, _restored(image, restore, degradation, generator))
                arrays[f"restored_{number}_{draw}"] = np.load(part)
        temporary = cache.with_suffix(".tmp.npz")
        np.savez(temporary, draws=draws, **arrays)
        temporary.replace(cache)
    with np.load(cache) as stored:
        kept = int(stored["draws"])
        count = sum(name.startswith("clean_") for name in stored.files)
        clean = [stored[f"clean_{number}"] for number in range(count)]
        return [(clean[i], stored[f"restored_{i}_{k}"]) for i in range(count) for k in range(kept)]


def _restored(
    image: Photo,
    restore: Callable[[ImageBatch], ImageBatch],
    degradation: DegradationModel,
    generator: torch.Generator,
) -> Photo:
    clean = torch.from_numpy(np.ascontiguousarray(image)).float()[None] / 255
    params = degradation.draw((1, *clean.shape[1:]), generator)
    with torch.inference_mode():
        result = restore(degradation.apply(clean, params))[0]
    return (255 * result).round().clamp(0, 255).byte().cpu().numpy()
