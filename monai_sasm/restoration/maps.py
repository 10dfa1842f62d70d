"""Maps beside a result, on the image's own grid: who acted where, what was changed, how sure the expert was."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from monai_sasm.io.formats import output_path, write_map
from monai_sasm.io.nifti.nifti import SUFFIXES
from monai_sasm.io.volume import Volume
from monai_sasm.transforms.volumes import SOURCE, SourcePath
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.restored import Restored

log = logging.getLogger(__name__)


def write_maps(restored: Restored, target: Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``<target>_weight-<class>`` of each class that acts, ``<target>_trust``, ``<target>_uncertainty`` and
    ``<target>_change``.

    On the grid of the image: NIfTI for CT and MR, in the image's unit; PNG for photos, the change as change / 2 + 0.5,
    the uncertainty ten times as large.
    """
    volume = restored.volume
    photo = volume.modality is Modality.PHOTO
    maps = {_weight_name(name): weight for name, weight in restored.weights.items() if weight.any()}
    if restored.trust is not None:
        maps["trust"] = restored.trust
    if restored.uncertainty is not None:
        maps["uncertainty"] = (10 * restored.uncertainty).clip(0, 1) if photo else restored.uncertainty
    if restored.change is not None:
        maps["change"] = (restored.change / 2 + 0.5).clip(0, 1) if photo else restored.change
    if photo:
        on_grid = {name: array[0] for name, array in maps.items()}
    else:
        on_grid = {name: volume.from_slices(array[:, None]).array for name, array in maps.items()}
    written: list[Path] = []
    for name, array in on_grid.items():
        written += _write(array, volume, target, name=name, overwrite=overwrite)
    return written


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
        target = output_path(path.entry, self.input_dir, self.output_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        for key in self.key_iterator(dict(data)):
            weights = np.asarray(data[key], dtype=np.float32)
            if len(weights) != len(self.names):
                raise ValueError(f"one name per class is needed, got {len(self.names)} for {len(weights)} classes")
            for name, weight in zip(self.names, weights, strict=True):
                if weight.any():
                    _write(weight, path.volume, target, name=_weight_name(name), overwrite=self.overwrite)
            log.info("wrote the weight maps of %s", path.entry.name)
        return dict(data)


def _write(array: NDArray[np.float32], like: Volume, target: Path, *, name: str, overwrite: bool) -> list[Path]:
    """One map ``(H, W)`` or ``(T, *spatial)`` as ``<target>_<name>``."""
    photo = like.modality is Modality.PHOTO
    stem = next((target.name[: -len(end)] for end in SUFFIXES if target.name.endswith(end)), None)
    stem = stem or (target.stem if photo else target.name)
    single = array[0] if array.ndim > 2 and len(array) == 1 else array
    place = target.with_name(f"{stem}_{name}{'.png' if photo else '.nii.gz'}")
    return write_map(single, like, place, overwrite=overwrite)


def _weight_name(name: str) -> str:
    return f"weight-{name.replace(', ', '-').replace(' ', '')}"
