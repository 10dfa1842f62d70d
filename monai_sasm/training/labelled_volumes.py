"""Lists of image and label files for segmenters, split by case number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def labelled_volumes(folder: str | Path, first: int = 0, last: int | None = None) -> list[dict[str, str]]:
    """Pairs of ``<folder>/{images,labels}/NAME``, as in the Medical Segmentation Decathlon, sorted by name.

    Args:
        folder: holds ``images`` and ``labels`` (or ``imagesTr`` and ``labelsTr``) with the same NIfTI file names.
        first: smallest case number (the last number in the name) to take.
        last: largest; all from ``first`` on when ``None``.

    Raises:
        FileNotFoundError: no such pair.
    """
    base = Path(folder)
    suffix = "Tr" if (base / "imagesTr").is_dir() else ""
    pairs = []
    for image in sorted((base / f"images{suffix}").glob("*.nii*")):
        label = base / f"labels{suffix}" / image.name
        numbers = re.findall(r"\d+", image.name)
        if not (label.is_file() and numbers):
            continue
        number = int(numbers[-1])
        if first <= number and (last is None or number <= last):
            pairs.append({"image": str(image), "label": str(label)})
    if not pairs:
        raise FileNotFoundError(
            f"no cases {first} to {'the last' if last is None else last} with image and label in {base}; expected "
            "images/NAME.nii.gz and labels/NAME.nii.gz there"
        )
    return pairs


def labelled_slices(
    folder: str | Path, include: Sequence[str] | None = None, exclude: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """2-D images with labels from ``<folder>/<patient>.npz`` files that hold ``image`` and ``label`` ``(N, H, W)``.

    Args:
        folder: one file per patient, as the Sunnybrook cine slices are kept.
        include: patients (file stems) to take; ``None`` for all.
        exclude: patients to leave out.

    Returns:
        One dictionary per slice: ``image`` float32 and ``label`` uint8, each ``(1, H, W)``, and ``patient``.

    Raises:
        FileNotFoundError: no such file, or no patient is left: an empty list to validate on does not mean all.
    """
    base = Path(folder)
    stems = sorted(path.stem for path in base.glob("*.npz"))
    chosen = [stem for stem in stems if (include is None or stem in include) and stem not in exclude]
    missing = sorted(set(include or ()) - set(stems))
    if missing or not stems:
        raise FileNotFoundError(f"{base} must hold one .npz per patient; missing: {missing or 'all'}")
    if not chosen:
        raise FileNotFoundError(f"no patient of {base} is chosen, of {len(stems)}; name some of them")
    slices = []
    for stem in chosen:
        with np.load(base / f"{stem}.npz") as patient:
            for image, label in zip(patient["image"], patient["label"], strict=True):
                slices.append({"image": image[None].astype(np.float32), "label": label[None], "patient": stem})
    return slices
