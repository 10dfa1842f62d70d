"""Label maps as NIfTI files, each image with one of its own."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Hashable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.nifti.names import stem
from monai_sasm.transforms.itk import pixels_of

END = "_seg.nii.gz"
log = logging.getLogger(__name__)


class SaveLabelMapd(MapTransform):
    """Write labels ``(1, *spatial)`` on the grid of the image as ``<image>_seg.nii.gz``, uint8.

    The first of several images of one name has it. Another one in the same folder has its suffix in the name of its
    labels (``a-niigz_seg.nii.gz``), one in another folder the name of that (``subject_t1ce_seg.nii.gz``).

    Args:
        keys: one key with labels.
        output_dir: folder, made if missing.
        overwrite: replace existing files; never one of this run, and never the image.
        source: key of the network's input, which knows its file.

    Raises:
        FileExistsError: the file is there already and ``overwrite`` is off.
        ValueError: it is the image itself, or there is more than one channel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        overwrite: bool = False,
        source: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"one file holds the labels of one key, got {list(self.keys)}")
        self.output_dir, self.overwrite, self.source = Path(output_dir), overwrite, source
        self.written: dict[str, Path] = {}  # name as a file system that ignores case sees it -> image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write; the data are returned as they are."""
        import nibabel

        labels = data[self.keys[0]]
        if len(labels) != 1:
            raise ValueError(f"a label map has one channel, got {len(labels)}")
        files = data[self.source].meta["filename_or_obj"]
        image = Path(files if isinstance(files, str) else files[0])  # of several modalities the first
        target = self.output_dir / self._name(image)
        guard_target(target, overwrite=self.overwrite, sources=(image,))
        affine = np.asarray(labels.affine if isinstance(labels, MetaTensor) else data[self.source].affine, float)
        found = nibabel.Nifti1Image(np.round(pixels_of(labels[0])).astype(np.uint8), affine)
        with replacing(target, overwrite=self.overwrite, sources=[image]) as file:
            file.write(gzip.compress(found.to_bytes(), mtime=0))
        log.info("wrote the labels of %s", image.name)
        return dict(data)

    def _name(self, image: Path) -> str:
        own = stem(image)
        first = self.written.get(f"{own}{END}".casefold(), image)
        end = image.name[len(own) :].replace(".", "")
        other = f"{own}-{end}" if first.parent == image.parent else f"{image.parent.name}_{own}"
        wanted = (f"{begin}{END}" for begin in chain((own, other), (f"{other}-{number}" for number in count(2))))
        name = next(name for name in wanted if self.written.get(name.casefold(), image) == image)
        self.written[name.casefold()] = image
        return name
