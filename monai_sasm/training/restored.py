"""Pairs of clean photos and what the pipeline makes of their degraded versions, made once and kept in a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.io.commit import replacing
from monai_sasm.training.made_with import digests, warn_of_others
from monai_sasm.types import ImageBatch

Photo = NDArray[np.uint8]


def restored_pairs(
    photos: Callable[[], Sequence[Photo]],
    restore: Callable[[ImageBatch], ImageBatch],
    degradation: DegradationModel,
    cache: str | Path,
    draws: int = 1,
    seed: int = 0,
    sources: bool = False,
) -> list[tuple[NDArray[np.generic], ...]]:
    """Pairs ``(clean, restored)`` of photos ``(3, H, W)``, 8 bit; with ``sources``, triples with the degraded photo.

    A photo takes about a second, hence the cache: when the file exists it is read and the other arguments do not
    matter, of which a warning tells where number, seed or folders have changed; delete it to restore anew. A run that
    was cut off goes on from its last photo, and with other such settings from the first one.

    Args:
        photos: gives the clean photos; called only when there is no cache.
        restore: image -> image, photos ``(1, 3, H, W)`` in [0, 1]: a
            :class:`monai_sasm.restoration.network.Pipeline`, say.
        degradation: how the photos are spoiled first.
        cache: ``.npz`` file.
        draws: degraded versions per photo.
        seed: of the degradations; each photo has its own stream.
        sources: give the degraded photos, too, float16 in about [0, 1]; a cache made without them has none.

    Raises:
        KeyError: ``sources`` of a cache that has none.
    """
    cache = Path(cache)
    settings = digests(photos=getattr(photos, "keywords", None), draws=draws, seed=seed)
    if not cache.is_file():
        clean = photos()
        parts = _parts(cache.with_suffix(".parts"), settings)
        arrays: dict[str, Any] = {f"clean_{number}": image for number, image in enumerate(clean)}
        for number, image in enumerate(clean):
            for draw in range(draws):
                part = parts / f"{number}_{draw}.npy"
                generator = torch.Generator().manual_seed((seed * len(clean) + number) * draws + draw)
                degraded = _degraded(image, degradation, generator)
                if not part.is_file():
                    with replacing(part) as file:
                        np.save(file, _restored(degraded, restore))
                arrays[f"restored_{number}_{draw}"] = np.load(part)
                if sources:
                    arrays[f"source_{number}_{draw}"] = degraded[0].numpy().astype(np.float16)
        with replacing(cache) as file:
            np.savez(file, draws=draws, settings=settings, **arrays)
        shutil.rmtree(parts, ignore_errors=True)  # else it would be found again once the cache is deleted
    with np.load(cache) as stored:
        if "settings" in stored:
            warn_of_others(cache, str(stored["settings"]), settings)
        kept = int(stored["draws"])
        count = sum(name.startswith("clean_") for name in stored.files)
        clean = [stored[f"clean_{number}"] for number in range(count)]
        return [
            (clean[i], stored[f"restored_{i}_{k}"], *([stored[f"source_{i}_{k}"]] if sources else []))
            for i in range(count)
            for k in range(kept)
        ]


def _parts(folder: Path, settings: str) -> Path:
    """The folder of single photos, emptied where a run with other settings was cut off."""
    note = folder / "settings.json"
    if folder.is_dir() and (not note.is_file() or note.read_text() != settings):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(settings)
    return folder


def _degraded(image: Photo, degradation: DegradationModel, generator: torch.Generator) -> ImageBatch:
    clean = torch.from_numpy(np.ascontiguousarray(image)).float()[None] / 255
    return degradation.apply(clean, degradation.draw((1, *clean.shape[1:]), generator))


def _restored(degraded: ImageBatch, restore: Callable[[ImageBatch], ImageBatch]) -> Photo:
    with torch.inference_mode():
        result = restore(degraded)[0]
    return (255 * result).round().clamp(0, 255).byte().cpu().numpy()
