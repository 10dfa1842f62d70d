"""Pictures of photos before and after, side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_sasm.io.commit import replacing
from monai_sasm.io.orientation import Orientation, orientation_of
from monai_sasm.io.volume import files_of
from monai_sasm.transforms.itk import pixels_of
from monai_sasm.transforms.volumes import SOURCE, SourcePath

HOLE = 0.5  # grey level in which holes are shown


class SaveComparisond(MapTransform):
    """Write ``<output_dir>/pictures/<name>.png``: the input, then the result.

    A smaller input is enlarged to blocks of equal pixels; holes of the input are shown grey. Photos that
    :class:`monai_sasm.transforms.volumes.LoadVolumed` loaded stand upright, as their EXIF orientation says.

    Args:
        keys: keys with results, photos ``(C, H, W)`` in [0, 1].
        output_dir: folder of the results.
        input_dir: folder or file that the photos came from; its folder structure is repeated.
        source: key of the input.
        known: key of the mask of known pixels, where there is one.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        input_dir: str,
        source: str = "image",
        known: str = "known",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.folder, self.input_dir = Path(output_dir) / "pictures", Path(input_dir)
        self.source, self.known = source, known

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write; the data are returned as they are."""
        from PIL import Image

        before = torch.from_numpy(pixels_of(data[self.source]))
        if self.known in data:
            before = torch.where(torch.as_tensor(data[self.known]).cpu() > 0.5, before, torch.tensor(HOLE))
        source = data[f"{self.source}{SOURCE}"]
        volume = source.volume if isinstance(source, SourcePath) else None
        show = (Orientation() if volume is None else orientation_of(volume)).show
        path = Path(source)
        parent = path.parent.relative_to(self.input_dir) if self.input_dir.is_dir() else Path()
        files = [path] if volume is None else files_of(volume)
        target = self.folder / parent / f"{path.stem}.png"
        for key in self.key_iterator(dict(data)):
            after = torch.from_numpy(pixels_of(data[key]))
            pair = np.concatenate([show(image.numpy()) for image in (_as_large(before, after), after)], -1)
            grey = np.round(255 * np.broadcast_to(pair.clip(0, 1), (3, *pair.shape[1:]))).astype(np.uint8)
            with replacing(target, sources=files) as file:
                Image.fromarray(grey.transpose(1, 2, 0)).save(file, "PNG")
        return dict(data)


def _as_large(image: Tensor, like: Tensor) -> Tensor:
    return image if image.shape == like.shape else F.interpolate(image[None], size=like.shape[-2:], mode="nearest")[0]
