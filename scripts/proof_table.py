"""What becomes of files that are odd in public data: ``python scripts/proof_table.py FOLDER...``; by default those that
come with pydicom and nibabel.

Each image is read and compared with what pydicom or nibabel reads (values; place for NIfTI and MGH), and written and
read back. "wrong" is what differs; what is refused is listed with its reason, for people to judge.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory, open_images, output_path, write
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality


def main() -> None:
    """Print a line for each image and the table; the exit code is 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--modality", type=Modality, help="of files that do not say it", default=Modality.MR)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for folder in arguments.folders or _bundled():
        for entry in inventory(folder, arguments.modality):
            if entry.refusal and "it is CT, not" in entry.refusal:
                (entry,) = (one for one in inventory(folder) if one.paths == entry.paths and one.name == entry.name)
            outcome, why = judged(entry, folder)
            counts[outcome] += 1
            names = ", ".join(sorted({path.name for path in entry.paths})[:3])
            print(f"{outcome}\t{folder.name}/{names}\t{why}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    sys.exit(bool(counts["wrong"]))


def _bundled() -> list[Path]:
    import nibabel
    import pydicom

    return [Path(pydicom.__file__).parent / "data", Path(nibabel.__file__).parent / "tests" / "data"]


def judged(entry: Entry, folder: Path) -> tuple[str, str]:
    """``right``, ``refused`` or ``wrong`` and why."""
    try:
        volume = entry.load()
    except RefusedError as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"raised {error!r}"
    difference = _unlike_others(volume, entry) or _unlike_written(volume, entry, folder)
    return ("wrong", difference) if difference else ("right", "; ".join(volume.notes))


def _unlike_others(volume: Volume, entry: Entry) -> str:
    """How a volume differs from what the format's own library reads."""
    if entry.format == "dicom":
        import pydicom

        for place, (path, frame) in enumerate(zip(volume.source.paths, volume.source.frames, strict=True)):
            stored = pydicom.dcmread(path, force=True).pixel_array
            stored = stored[frame] if volume.source.multiframe and stored.ndim == 3 else stored
            values = stored * volume.source.slopes[place] + volume.source.intercepts[place]
            if not np.array_equal(volume.array[0, place], values.astype(np.float32)):
                return f"slice {place} has other values"
    elif entry.format in ("nifti", "mgh"):
        import nibabel

        image: Any = nibabel.load(entry.paths[0])
        values = np.asarray(image.dataobj, np.float32).squeeze()
        ours = volume.array[0] if len(volume.array) == 1 else np.moveaxis(volume.array, 0, -1)
        if not np.array_equal(ours.squeeze(), values, equal_nan=True) and np.isfinite(values).all():
            return "other values"
        oriented = not any("orientation" in note for note in volume.notes)
        if oriented and not np.allclose(np.asarray(volume.affine), image.affine, atol=1e-4):
            return "another place"
    return ""


def _unlike_written(volume: Volume, entry: Entry, folder: Path) -> str:
    """How a volume differs from itself after it was written and read again."""
    with tempfile.TemporaryDirectory() as out:
        target = output_path(entry, folder, Path(out) / "out")
        try:
            write(volume, target, Derivation("monai_sasm", "1.0"))
            (again,) = open_images(target, volume.modality, force_modality=True)
        except Exception as error:
            return f"writing or reading again: {error!r}"
        return "" if np.array_equal(again.array, volume.array) else "other values when it was written"


if __name__ == "__main__":
    main()
