"""Masks of known pixels, found by the name of their photo."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_sasm.io.orientation import Orientation, orientation_of
from monai_sasm.io.photo.mask import white_pixels
from monai_sasm.transforms.volumes import SOURCE, SourcePath

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
COLOURS = ("white", "black")


def with_masks(
    images: Sequence[Mapping[str, Any]], input_dir: str | Path, mask_dir: str | Path, key: str = "known"
) -> list[dict[str, Any]]:
    """A data list of photos with the path of each one's mask added.

    Args:
        images: what :func:`monai_sasm.transforms.volumes.find_images` gives.
        input_dir: the file or folder it was given; its folder structure is looked for below ``mask_dir``.
        mask_dir: folder of the masks, or the one mask of one photo.
        key: under which the mask's path is added.

    Raises:
        FileNotFoundError: a photo has no mask.
    """
    root, masks = Path(input_dir), Path(mask_dir)
    found = []
    for item in images:
        photo = Path(item["image"])
        if masks.is_file():
            candidates = [masks]
        else:
            parent = masks / (photo.parent.relative_to(root) if root.is_dir() else "")
            candidates = [parent / f"{photo.stem}{suffix}" for suffix in SUFFIXES]
        mask = next((path for path in candidates if path.is_file()), None)
        if mask is None:
            raise FileNotFoundError(
                f"{photo.name} has no mask: {candidates[0]} is missing, and so are those with other suffixes "
                f"{SUFFIXES[1:]}; a mask has the name of its photo"
            )
        found.append({**item, key: str(mask)})
    return found


class LoadMaskd(MapTransform):
    """Path of a black and white picture -> ``(1, H, W)`` float32, 1 where the pixel is known, 0 in holes.

    Args:
        keys: keys with paths.
        image: key of the loaded photo; the mask lies over it as viewers show it. EXIF counts where
            :class:`monai_sasm.transforms.volumes.LoadVolumed` loaded it.
        known: colour of the known pixels, ``white`` or ``black``; grey levels from 128 on are white.
    """

    def __init__(
        self, keys: KeysCollection, image: str = "image", known: str = "white", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if known not in COLOURS:
            raise ValueError(f"known must be the colour of known pixels, one of {COLOURS}, got {known!r}")
        self.image, self.known = image, known

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by its mask."""
        result = dict(data)
        height, width = result[self.image].shape[-2:]
        source = result.get(f"{self.image}{SOURCE}")
        volume = source.volume if isinstance(source, SourcePath) else None
        orientation = Orientation() if volume is None else orientation_of(volume)
        for key in self.key_iterator(result):
            white = white_pixels(Path(result[key]), (height, width), orientation)
            result[key] = torch.from_numpy(white == (self.known == "white"))[None].float()
        return result
