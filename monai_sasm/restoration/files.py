"""One image on disk: read, restored, written beside its maps, and what there is to tell about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_sasm.errors import BundleError
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import write, write_map
from monai_sasm.io.volume import Volume
from monai_sasm.restoration import restorer as room
from monai_sasm.restoration.restore import Options, Restored, Restorer, derivation, restore
from monai_sasm.restoration.thin import Thinning, thinned
from monai_sasm.restoration.thin import derivation as derivation_of_thinning
from monai_sasm.types import Modality

NIFTI_SUFFIXES = (".nii.gz", ".nii")


def open_restorer(device: str, precision: str, trust: Sequence[Path], options: Options | Thinning) -> Restorer:
    """The house these options need; what is wrong with them ends the job here, and not each image.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``float32`` or ``bfloat16``.
        trust: further folders of bundles.
        options: ``expert``, ``gate`` and ``refiner`` are used.

    Raises:
        ValueError: there is no such device.
        BundleError: a bundle is missing or incomplete.
    """
    present = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.split(":")[0], False):
        choices = ", ".join(name for name, there in present.items() if there)
        raise ValueError(f"device {device!r} is not there; choose one of {choices}")
    restorer = room.load_restorer(
        device,
        trust,
        only=[options.expert] if options.expert else [],
        precision=precision,
        gate=options.gate if isinstance(options, Options) else None,
    )
    if isinstance(options, Options) and options.refiner:
        restorer.refiner(options.refiner)
    return restorer


def restore_to(
    volume: Volume,
    target: Path,
    restorer: Restorer,
    options: Options,
    *,
    overwrite: bool = False,
    keep_private: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Restore a volume and write the result, with its maps where the options ask for them.

    Args:
        volume: as read; used up, its pixels are replaced by the restored ones.
        target: file, or folder for DICOM.
        house: see :func:`monai_sasm.restoration.restorer.load_restorer`.
        options: see :class:`monai_sasm.restoration.restore.Options`.
        overwrite: replace an existing target.
        keep_private: keep private DICOM tags.
        progress: called with 1 after each of :func:`monai_sasm.restoration.restore.work_units`.

    Returns:
        ``output`` (path, number of files, maps), ``models``, ``parameters``, ``summary``, ``device``, ``notes`` and
        ``network_seconds``, the part of the time that gate, experts and mixing took.
    """
    restored = restore(volume, restorer, options, progress=progress, in_place=True)
    done = derivation(restorer, options, volume.modality)
    files = write(restored.volume, target, done, overwrite=overwrite, keep_private=keep_private)
    maps = write_maps(restored, target, overwrite) if options.keep_maps else []
    return {
        "output": {"path": str(target), "files": len(files), "maps": [str(path) for path in maps]},
        "models": dict(done.models),
        "parameters": dict(done.parameters),
        "summary": {key: value for key, value in restored.summary.items() if key != "seconds"},
        "device": str(restorer.device),
        "notes": list(restored.volume.notes),
        "network_seconds": round(restored.summary["seconds"], 3),
    }


def thin_to(
    volume: Volume,
    target: Path,
    restorer: Restorer,
    options: Thinning,
    *,
    overwrite: bool = False,
    keep_private: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Make thin slices of a volume and write them; arguments and result as for :func:`restore_to`."""
    started = time.perf_counter()
    result = thinned(volume, restorer, options, progress)
    seconds = time.perf_counter() - started
    done = derivation_of_thinning(restorer, options)
    files = write(result, target, done, overwrite=overwrite, keep_private=keep_private)
    axis = result.slice_axis or 0
    sides = np.linalg.norm(np.asarray(result.affine)[:3, : result.array.ndim - 1], axis=0)
    return {
        "output": {"path": str(target), "files": len(files), "maps": []},
        "models": dict(done.models),
        "parameters": dict(done.parameters),
        "summary": {"slices": result.array.shape[axis + 1], "voxel_mm": [round(float(side), 4) for side in sides]},
        "device": str(restorer.device),
        "notes": list(result.notes),
        "network_seconds": round(seconds, 3),
    }


def write_maps(restored: Restored, target: Path, overwrite: bool = False) -> list[Path]:
    """Write ``<target>_weight-<class>`` of each class that acts, ``<target>_trust``, ``<target>_uncertainty`` and
    ``<target>_change``.

    On the grid of the image: NIfTI for CT and MR, in the image's unit; PNG for photos, the change as change / 2 + 0.5,
    the uncertainty ten times as large.
    """
    volume = restored.volume
    photo = volume.modality is Modality.PHOTO
    stem = next((target.name[: -len(end)] for end in NIFTI_SUFFIXES if target.name.endswith(end)), None)
    stem = stem or (target.stem if photo else target.name)
    maps = {
        f"weight-{name.replace(', ', '-').replace(' ', '')}": weight
        for name, weight in restored.weights.items()
        if weight.any()
    }
    if restored.trust is not None:
        maps["trust"] = restored.trust
    if restored.uncertainty is not None:
        maps["uncertainty"] = (10 * restored.uncertainty).clip(0, 1) if photo else restored.uncertainty
    if restored.change is not None:
        maps["change"] = (restored.change / 2 + 0.5).clip(0, 1) if photo else restored.change
    written = []
    for name, array in maps.items():
        if photo:
            path = target.with_name(f"{stem}_{name}.png")
            written += write_map(array[0], volume, path, overwrite=overwrite)
            continue
        path = target.with_name(f"{stem}_{name}.nii.gz")
        on_grid = volume.from_slices(array[:, None]).array  # (C, *spatial), C counts time points
        written += write_map(on_grid[0] if len(on_grid) == 1 else on_grid, volume, path, overwrite=overwrite)
    return written


def mismatch(entry: Entry, restorer: Restorer, options: Options | Thinning) -> str | None:
    """Why a named expert or a refiner passes over this image: it is for another modality. ``None`` when it does not."""
    if entry.modality is None:
        return None
    if isinstance(options, Thinning):
        fits = entry.modality is Modality.MR
        return None if fits else f"thin slices are made of MR, this image is {entry.modality.value}"
    if options.expert is not None:
        wanted = restorer.experts[options.expert].modality
        if wanted not in (entry.modality, None):
            return f"{options.expert} is for {wanted.value}, this image is {entry.modality.value}; leave --expert out"
    if options.refine:
        try:
            restorer.choose_refiner(entry.modality, options.refiner, options.force_refiner)
        except BundleError as error:
            return str(error)
    return None


def peak_mb() -> int | None:
    """Largest memory of this process so far, MiB; ``None`` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    kilo = 1024 if sys.platform != "darwin" else 1024**2  # Linux counts KiB, macOS bytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kilo)
