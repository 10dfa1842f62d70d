"""Lists of image and label files for segmenters, split by case number."""

from __future__ import annotations

import re
from pathlib import Path


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
        if label.is_file() and numbers and first <= int(numbers[-1]) <= (last or int(numbers[-1])):
            pairs.append({"image": str(image), "label": str(label)})
    if not pairs:
        raise FileNotFoundError(
            f"no cases {first} to {last or 'the last'} with image and label in {base}; expected {base}/images/NAME.nii.gz "
            f"and {base}/labels/NAME.nii.gz"
        )
    return pairs
