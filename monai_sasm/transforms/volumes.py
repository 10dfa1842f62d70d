"""MONAI dictionary transforms around this package's own readers and writers.

``LoadImaged`` and ``SaveImaged`` lose Hounsfield units' integer type, NIfTI headers, bit depth and DICOM; these keep
them. The volume travels with its file name, which every MONAI collation passes on untouched.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation, summary_of
from monai_sasm.io.distinct import distinct
from monai_sasm.io.entry import RESTORED, Entry
from monai_sasm.io.formats import inventory, output_path, result_place, write
from monai_sasm.io.same_grid import same_place
from monai_sasm.io.volume import Volume
from monai_sasm.transforms.itk import of_each_stack, pixels_of
from monai_sasm.transforms.slice_meta import slice_meta
from monai_sasm.types import Modality

log = logging.getLogger(__name__)
WAY_BACK = "take spatial transforms back before, by MONAI's Invertd, of the network's input and output"
SOURCE = "_source"  # key suffix under which an image's SourcePath travels


class SourcePath(str):
    """The path of an image, with what is known about it.

    A string to MONAI's collation and decollation, which hand strings on as they are but refuse other objects.

    Args:
        entry: the image as found on disk.
        volume: its pixels and header, once read.
        names: of its result, and of its result with maps beside it, where the results of others in the same folder
            would have the same name; see :mod:`monai_sasm.io.distinct`.
    """

    entry: Entry
    volume: Volume | None
    names: tuple[str, str] | None

    def __new__(cls, entry: Entry, volume: Volume | None = None, names: tuple[str, str] | None = None) -> SourcePath:
        path = super().__new__(cls, entry.paths[0])
        path.entry, path.volume, path.names = entry, volume, names
        return path

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.entry, self.volume, self.names

    def target(self, input_dir: Path, output_dir: Path, *, maps: bool = False) -> Path:
        """Where its result goes, or that whose name its maps take; errors of :func:`.formats.output_path`."""
        target = output_path(self.entry, input_dir, output_dir)
        return target if self.names is None else target.with_name(self.names[maps])


def find_images(
    path: str | Path, modality: str, key: str = "image", output_dir: str | Path | None = None, results: bool = False
) -> list[dict[str, SourcePath]]:
    """Every image under a file or folder that a bundle of this modality may restore, as a MONAI data list.

    What is left out is logged with its reason.

    Args:
        path: file or folder.
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``.
        key: of the images.
        output_dir: where results go; what already lies in it, below ``path``, is no input.
        results: take results of this program, too, for work that is no restoration.

    Raises:
        RefusedError: nothing is left.
    """
    found = []
    hidden = None if output_dir is None else Path(output_dir).absolute()
    if hidden == Path(path).absolute():
        hidden = None
    for entry in inventory(Path(path), Modality(modality)):
        reason = _reason_against(entry, Modality(modality))
        if reason is None and hidden is not None and entry.paths[0].absolute().is_relative_to(hidden):
            reason = "it lies in the folder of the results"
        if reason is None and entry.is_result and not results:
            reason = RESTORED
        if reason is None:
            found.append(entry)
        else:
            log.warning("left out %s: %s", entry.label, reason)
    if not found:
        raise RefusedError(f"no {modality} image to restore in {path}; the log says why each was left out")
    if len(found) == 1:
        return [{key: SourcePath(found[0])}]
    places = [result_place(entry, Path(path)) for entry in found]
    named = zip(distinct(places, found), distinct(places, found, maps=True), strict=True)
    names = [(place.name, with_maps.name) for place, with_maps in named]
    return [{key: SourcePath(entry, names=own)} for entry, own in zip(found, names, strict=True)]


class LoadVolumed(MapTransform):
    """Path -> channel-first image in its own unit (HU, MR magnitude, sRGB [0, 1]) with its affine.

    The metadata hold ``affine`` and, for volumes, ``slice_axis``, ``slices_close``, whether neighbouring slices tell
    something of each other (:mod:`monai_sasm.functional.neighbours`), and ``slice_distance`` in mm, 0 where slices are
    not at equal steps: as loaded. After spatial transforms :mod:`monai_sasm.transforms.slice_meta` tells them by
    ``slice_direction``, a unit vector in RAS. ``<key>_source`` keeps the volume for :class:`FromWorkingScaled` and
    :class:`SaveVolumed`; its pixels are its own, so that transforms may work in place.

    Args:
        keys: keys with paths: an element of :func:`find_images`, or any path to one image.
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``; anything else is refused.
    """

    def __init__(self, keys: KeysCollection, modality: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality = Modality(modality)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by a ``MetaTensor`` ``(C, *spatial)`` float32."""
        result = dict(data)
        for key in self.key_iterator(result):
            path = result[key]
            entry = path.entry if isinstance(path, SourcePath) else self._only_entry(Path(path))
            volume = entry.load()
            meta = {"filename_or_obj": str(entry.paths[0]), **slice_meta(volume)}
            affine = None if volume.affine is None else torch.from_numpy(volume.affine)
            result[key] = MetaTensor(torch.from_numpy(np.array(volume.array, order="C")), affine=affine, meta=meta)
            result[f"{key}{SOURCE}"] = SourcePath(entry, volume, getattr(path, "names", None))
        return result

    def _only_entry(self, path: Path) -> Entry:
        entries = inventory(path, self.modality)
        usable = [entry for entry in entries if _reason_against(entry, self.modality) is None]
        if len(usable) != 1:
            reasons = "; ".join(str(_reason_against(entry, self.modality)) for entry in entries if entry not in usable)
            raise RefusedError(f"expected one {self.modality.value} image, found {len(usable)}. {reasons}".strip())
        return usable[0]


class ToWorkingScaled(MapTransform):
    """Unit of the image -> scale of the networks.

    Args:
        keys: keys loaded by :class:`LoadVolumed`.
        scaling: volume -> scaling, normally :func:`monai_sasm.functional.intensity.scaling_for`; asked of each time
            point of a volume, so that each is shown to networks as it would be alone.
    """

    def __init__(
        self, keys: KeysCollection, scaling: Callable[[Volume], Any], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scaling = scaling

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale each image; shape and metadata stay."""
        result = dict(data)
        for key in self.key_iterator(result):
            scalings = [self.scaling(one) for one in _volume(result, str(key)).stacks()]
            result[key] = of_each_stack([one.forward for one in scalings], result[key])
        return result


class FromWorkingScaled(MapTransform):
    """Scale of the networks -> unit of the image.

    Only the correction ``pred - image`` is scaled back and added to the original, so that a pixel the network left
    alone keeps its value to the last bit.

    Args:
        keys: keys with network outputs, on the grid of the file: spatial transforms in between are taken back before,
            of input and output (MONAI's ``Invertd``).
        scaling: as in :class:`ToWorkingScaled`.
        source: key of the network's input.

    Raises:
        RefusedError: input or output lies on another grid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        scaling: Callable[[Volume], Any],
        source: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scaling, self.source = scaling, source

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale each output back; it takes the metadata of the input."""
        result = dict(data)
        volume, image = _volume(result, self.source), result[self.source]
        original = torch.from_numpy(volume.array)
        check_on_grid(image, volume, self.source)
        for key in self.key_iterator(result):
            check_on_grid(result[key], volume, str(key))
            back = [self.scaling(one).inverse_difference for one in volume.stacks()]
            correction = of_each_stack(back, result[key].float().cpu() - image.float().cpu())
            meta = image.meta if isinstance(image, MetaTensor) else {}
            result[key] = MetaTensor(original + torch.as_tensor(correction).float(), meta=meta)
        return result


class SaveVolumed(MapTransform):
    """Write images as the kind of file their source was: header, type, bit depth and DICOM attributes are kept.

    Args:
        keys: keys with images in their own unit, on the grid of the file, see :class:`FromWorkingScaled`.
        output_dir: folder, made if missing; the folder structure of the input is repeated in it.
        input_dir: folder or file that :func:`find_images` was given.
        bundle_root: bundle that made the images; the hash of its weights goes into headers and sidecars.
        overwrite: replace existing files.
        source: key of the network's input.
        weights: file of these weights; ``models/model.pt`` in the bundle when ``None``.
        parameters: options of the run that change pixels (steps, precision, ...), for headers and sidecars.
        derivation: called for the entry of headers and sidecars instead, where more than one bundle made the image.

    Raises:
        RefusedError: an image lies on another grid than its file.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        input_dir: str,
        bundle_root: str,
        overwrite: bool = False,
        source: str = "image",
        allow_missing_keys: bool = False,
        derivation: Callable[[], Derivation] | None = None,
        weights: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.input_dir, self.bundle_root = Path(output_dir), Path(input_dir), Path(bundle_root)
        self.weights = self.bundle_root / "models" / "model.pt" if weights is None else Path(weights)
        self.overwrite, self.source, self.derivation = overwrite, source, derivation
        self.parameters = dict(parameters or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write; the data are returned as they are. Photos may have become larger by a whole factor."""
        path, volume = data[f"{self.source}{SOURCE}"], _volume(data, self.source)
        for key in self.key_iterator(dict(data)):
            array = pixels_of(data[key])
            check_place(data[key] if isinstance(data[key], MetaTensor) else data.get(self.source), volume, str(key))
            restored = volume.with_array(array) if array.shape == volume.array.shape else volume.enlarged(array)
            target = path.target(self.input_dir, self.output_dir)
            files = write(restored, target, self._derivation(), overwrite=self.overwrite)
            log.info("wrote %d file(s) for %s", len(files), path.entry.label)
        return dict(data)

    def _derivation(self) -> Derivation:
        if self.derivation is not None:
            return self.derivation()
        from monai_sasm import __version__

        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        name = self.bundle_root.name
        parameters = {"expert": name, **self.parameters}
        repairs = _repairs(self.bundle_root)
        what = summary_of(repairs)
        return Derivation("monai_sasm", __version__, {name: digest}, parameters, summary=what, repairs=repairs)


def _repairs(bundle_root: Path) -> tuple[str, ...]:
    try:
        section = json.loads((bundle_root / "configs" / "metadata.json").read_text(encoding="utf-8"))["sasm"]
        return (str(section["degradation"]),)
    except (OSError, ValueError, KeyError, TypeError):  # of a bundle that says nothing of it
        return ()


def check_on_grid(image: torch.Tensor, volume: Volume, key: str) -> None:
    """Refuse an image ``(C, *spatial)`` that no longer lies on the grid of the file it was loaded from."""
    if tuple(image.shape) != volume.array.shape:
        raise RefusedError(f"{key!r} has the shape {tuple(image.shape)}, its file {volume.array.shape}; {WAY_BACK}")
    check_place(image, volume, key)


def check_place(image: object, volume: Volume, key: str) -> None:
    """The same, by the affine alone; what has none passes."""
    loaded = np.eye(4) if volume.affine is None else volume.affine
    if isinstance(image, MetaTensor) and not same_place(image.affine.double().numpy(), loaded):
        raise RefusedError(f"{key!r} does not lie where its file does: it was flipped, turned or moved; {WAY_BACK}")


def _volume(data: Mapping[Hashable, Any], key: str) -> Volume:
    path = data.get(f"{key}{SOURCE}")
    if not isinstance(path, SourcePath) or path.volume is None:
        raise KeyError(f"{key}{SOURCE} is missing; load {key!r} with LoadVolumed first")
    return path.volume


def _reason_against(entry: Entry, modality: Modality) -> str | None:
    if entry.refusal is not None:
        return entry.refusal
    if entry.modality is not modality:
        return f"not a {modality.value} image"
    return None
