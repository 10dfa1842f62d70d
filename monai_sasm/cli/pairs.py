"""What ``sasm degrade`` writes: images, and the record of what was drawn."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from monai_sasm.io.volume import Volume

SMALL = 16  # tensors of at most so many numbers are written out in the record, larger ones as mean and range


def write_image(volume: Volume, array: NDArray[np.float32], path: Path, *, overwrite: bool) -> None:
    """A photo as PNG of 8 bits, CT and MR as float32 NIfTI on the grid of ``volume``."""
    import numpy as np

    from monai_sasm.io.nifti import export as nifti_export
    from monai_sasm.io.photo.photo import write_png
    from monai_sasm.io.volume import files_of

    if not volume.modality.profile.is_picture:
        spatial = array if array.shape[0] > 1 else array[0]
        nifti_export.export(spatial, volume, path, overwrite=overwrite)
        return
    turned, files = volume.exif_orientation, files_of(volume)
    write_png(np.moveaxis(array, 0, 2), path, orientation=turned, overwrite=overwrite, sources=files)


def earlier_images(place: Path, *, overwrite: bool) -> list[dict[str, Any]]:
    """The images of earlier runs, each with all that its record says.

    Raises:
        FileExistsError: the file is no such record and ``overwrite`` is off.
    """
    try:
        common = json.loads(place.read_text(encoding="utf-8"))
        return [{**common, **image, "file": str(image["file"])} for image in common.pop("images")]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if overwrite:
            return []
        raise FileExistsError(f"{place} is no record of sasm degrade; choose another output") from None


def write_record(
    place: Path, run: dict[str, Any], records: list[dict[str, Any]], *, earlier: list[dict[str, Any]]
) -> None:
    """``parameters.json``: what was asked for, ``run``, and what was drawn, enough to make the set again.

    Images of earlier runs that were not made anew keep their records, which say themselves what differs between runs.
    """
    from monai_sasm import __version__
    from monai_sasm.io.commit import replacing

    made = {record["file"] for record in records}
    kept = [image for image in earlier if image["file"] not in made]
    content = {"software": f"monai_sasm {__version__}", **run, "images": [*kept, *records]}
    with replacing(place) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def plain(value: Any) -> Any:
    """Parameter records as JSON: small tensors in full, maps as mean and range."""
    import torch

    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() <= SMALL:
        return value.tolist()
    return {
        "mean": float(value.mean()),
        "low": float(value.min()),
        "high": float(value.max()),
        "shape": list(value.shape),
    }
