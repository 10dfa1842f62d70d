"""A MONAI transform that writes weight maps beside an image; apart from :mod:`.maps`, which does without MONAI."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_sasm.restoration.maps import weight_name, write_one_map
from monai_sasm.transforms.itk import pixels_of
from monai_sasm.transforms.volumes import SOURCE, SourcePath, check_place

log = logging.getLogger(__name__)


class SaveMapsd(MapTransform):
    """Write ``<image>_weight-<class>`` for each class that acts anywhere: NIfTI for CT and MR, grey PNG for photos.

    Args:
        keys: keys with weights ``(E, T, *spatial)`` in [0, 1]; ``T`` counts time points and is 1 for photos.
        names: one name per class.
        output_dir: folder, made if missing; the folder structure of the input is repeated in it.
        input_dir: folder or file that :func:`monai_sasm.transforms.volumes.find_images` was given.
        overwrite: replace existing files.
        source: key of the network's input, loaded by :class:`monai_sasm.transforms.volumes.LoadVolumed`.

    Raises:
        FileExistsError: a file is there already and ``overwrite`` is off.
        RefusedError: the weights lie on another grid than the file of the image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        names: Sequence[str],
        output_dir: str,
        input_dir: str,
        overwrite: bool = False,
        source: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names, self.overwrite, self.source = tuple(names), overwrite, source
        self.output_dir, self.input_dir = Path(output_dir), Path(input_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write; the data are returned as they are."""
        path = data.get(f"{self.source}{SOURCE}")
        if not isinstance(path, SourcePath) or path.volume is None:
            raise KeyError(f"{self.source}{SOURCE} is missing; load {self.source!r} with LoadVolumed first")
        target = path.target(self.input_dir, self.output_dir, maps=True)
        for key in self.key_iterator(dict(data)):
            weights = pixels_of(data[key])
            shown = data[key] if isinstance(data[key], MetaTensor) else data.get(self.source)
            check_place(shown, path.volume, str(key))
            if len(weights) != len(self.names):
                raise ValueError(f"one name per class is needed, got {len(self.names)} for {len(weights)} classes")
            for name, weight in zip(self.names, weights, strict=True):
                if weight.any():
                    write_one_map(weight, path.volume, target, name=weight_name(name), overwrite=self.overwrite)
            log.info("wrote the weight maps of %s", path.entry.label)
        return dict(data)
