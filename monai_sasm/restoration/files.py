"""Images on disk: read, restored or thinned, written beside their maps, and what there is to tell about each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.io.apart import decoding_apart
from monai_sasm.io.commit import make_folders
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory, write
from monai_sasm.io.permissions import folder_mode
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options, Thinning
from monai_sasm.restoration.planning import one_image, plan_results, visible
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.targets import check_output, check_target
from monai_sasm.restoration.thin import thin_derivation, thin_volume
from monai_sasm.types import Modality


def restore(
    source: str | Path,
    target: str | Path,
    *,
    modality: Modality | str | None = None,
    force_modality: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    **choices: Any,
) -> list[Path]:
    """Restore a file or a folder: ``restore("photo.jpg", "dry.jpg")``.

    Args:
        source: DICOM folder or file, NIfTI, PNG, JPEG, TIFF, BMP, or a folder of them, searched recursively.
        target: a folder, or a file name for one NIfTI or photo; DICOM series become folders in it.
        modality: what NIfTI files are, which do not say it themselves: ``"CT"`` or ``"MR"``.
        force_modality: restore also what seems to be no image; see :func:`monai_sasm.io.formats.inventory`.
        device: see :class:`Restorer`.
        overwrite: replace existing results; sources are never replaced.
        choices: fields of :class:`Options`, such as ``strength=0.8``.

    Returns:
        The results: one path per image, the folder of a DICOM series.

    ``target`` may lie inside ``source``: what is in it is no input.

    Raises:
        RefusedError: some image was refused; the message lists the reasons. The others are done before it is raised.
        FileExistsError: the same, where nothing but results that exist, while ``overwrite`` is off, is in the way.
        BundleError: a bundle that is named, or that every image needs, is missing or incomplete.
        FileNotFoundError: there is no such source.
        NotADirectoryError, PermissionError: nothing can be written to ``target``.
        ValueError: ``target`` is the name of one file, and there are several images.
    """
    source, target = Path(source), Path(target)
    check_output(target)
    restorer, options = Restorer(device), Options(**choices)
    restorer.check(options)
    known = None if modality is None else Modality(modality)
    done: list[Path] = []
    refused: list[tuple[Entry, Exception]] = []
    with decoding_apart(source.is_dir()):  # what is wrong with one image must not end the others
        entries = visible(inventory(source, known, force_modality=force_modality), [source], target)
        planned = plan_results(
            entries,
            target,
            alone=one_image(entries, target),
            root_of=lambda _: source,
            mismatch=lambda modality: restorer.mismatch(modality, options),
            maps=options.keep_maps,
            check=partial(check_target, overwrite=overwrite, maps=options.keep_maps),
        )
        for one in planned:
            reason = one.reason
            if reason is None and one.target is not None:
                try:
                    result = restorer(one.entry.load(), options, in_place=True)
                    if one.target != target:
                        make_folders(target, folder_mode([source, *one.entry.paths]))
                    result.save_as(one.target, overwrite=overwrite)
                    del result  # before the next one is read
                    done.append(one.target)
                except (ValueError, FileExistsError) as error:
                    reason = error
            if reason is not None:
                refused.append((one.entry, reason))
    if refused:
        told = "; ".join(f"{entry.label}: {error}" for entry, error in refused)
        kinds = {type(error) for _, error in refused}
        alike = next((kind for kind in (FileExistsError, BundleError) if kinds == {kind}), RefusedError)
        raise alike(told)
    return done


def open_restorer(device: str, precision: str, trust: Sequence[Path], options: Options | Thinning) -> Restorer:
    """A restorer for these options; what is wrong with them ends a job here, and not each image.

    Raises:
        ValueError: there is no such device.
        BundleError: a bundle is missing or incomplete.
    """
    restorer = Restorer(device, precision=precision, trust=trust)
    restorer.check(options)
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
        volume: used up, its pixels are overwritten.
        target: file, or folder for a DICOM series.
        restorer: see :class:`Restorer`.
        options: what to do.
        overwrite: replace existing results.
        keep_private: keep private DICOM tags.
        progress: called with 1 after each of :meth:`Plan.work_units`.

    Returns:
        ``output`` (path, number of files, maps), ``models``, ``parameters``, ``summary``, ``device``, ``notes`` and
        ``network_seconds``, the part of the time that gate, experts and mixing took.
    """
    result = restorer(volume, options, progress=progress, in_place=True)
    files, maps = result.save_as(target, overwrite=overwrite, keep_private=keep_private)
    summary = {key: value for key, value in result.summary.items() if key != "seconds"}
    report = _report(target, files, maps, result.derivation, restorer)
    return report | {
        "summary": summary,
        "notes": list(result.volume.notes),
        "network_seconds": round(result.summary["seconds"], 3),
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
    result = thin_volume(volume, restorer, options, progress)
    seconds = time.perf_counter() - started
    derivation = thin_derivation(restorer, options)
    files = write(result, target, derivation, overwrite=overwrite, keep_private=keep_private)
    axis = result.slice_axis or 0
    sides = np.linalg.norm(np.asarray(result.affine)[:3, : result.array.ndim - 1], axis=0)
    return _report(target, files, [], derivation, restorer) | {
        "summary": {"slices": result.array.shape[axis + 1], "voxel_mm": [round(float(side), 4) for side in sides]},
        "notes": list(result.notes),
        "network_seconds": round(seconds, 3),
    }


def peak_mb() -> int | None:
    """Largest memory of this process so far, MiB; ``None`` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    kilo = 1024 if sys.platform != "darwin" else 1024**2  # Linux counts KiB, macOS bytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kilo)


def _report(
    target: Path, files: list[Path], maps: list[Path], derivation: Derivation, restorer: Restorer
) -> dict[str, Any]:
    return {
        "output": {"path": str(target), "files": len(files), "maps": [str(path) for path in maps]},
        "models": dict(derivation.models),
        "parameters": dict(derivation.parameters),
        "device": str(restorer.device),
    }
