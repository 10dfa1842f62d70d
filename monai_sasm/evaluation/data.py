"""Where the measured data lie, how they are read, and their hash."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.functional.intensity import square_spacing
from monai_sasm.io.walk import is_hidden
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.io.volume import Volume

Image = NDArray[np.float32]
CHECKOUT = Path(__file__).resolve().parents[2]


class DataAbsentError(FileNotFoundError):
    """A protocol's data are not there; the protocol is skipped with this message.

    Args:
        missing: what is not there.
    """

    def __init__(self, missing: object) -> None:
        super().__init__(f"data not found: {missing}")


def data_root(given: Path | None = None) -> Path:
    """``given``, else the folder named by the environment variable SASM_DATA, else ``../shared/data`` beside the
    checkout.
    """
    return Path(given or os.environ.get("SASM_DATA") or CHECKOUT.parent / "shared" / "data")


def files(folder: Path, pattern: str = "*", limit: int | None = None) -> list[Path]:
    """Sorted files of a folder, without hidden ones.

    Raises:
        DataAbsentError: there are none.
    """
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and not is_hidden(path))[:limit]
    if not found:
        raise DataAbsentError(folder / pattern)
    return found


def absent(root: Path, patterns: Iterable[str]) -> tuple[str, ...]:
    """A flag that names what a protocol measures and has not found below its data root; none where all is there."""
    missing = [pattern for pattern in patterns if next(root.glob(pattern), None) is None]
    return (f"**not there, and so not measured: {', '.join(missing)}**",) if missing else ()


def data_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the sorted file names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: (path.name, str(path))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def seed_of(*parts: object) -> int:
    """A seed of 32 bits that follows from the names of a case and its realisation, the same on every machine."""
    return zlib.crc32("|".join(map(str, parts)).encode())


def load(path: Path, modality: Modality | None = None) -> Volume:
    """The one image of a file, read as ``sasm restore`` reads it.

    Args:
        path: DICOM, NIfTI or photo.
        modality: what a NIfTI file is.

    Raises:
        RefusedError: it cannot be read rightly.
    """
    from monai_sasm.io.formats import open_images

    return next(open_images(path, modality))


def photo(path: Path) -> Image:
    """A photo ``(3, H, W)``, or grey ``(1, H, W)``, in [0, 1]."""
    return load(path).array


def cbsd68(root: Path, limit: int | None = None) -> list[Path]:
    """The 68 colour photos of CBSD68, sorted by name."""
    names = root / "natural" / "cbsd68_ids.txt"
    if not names.is_file():
        raise DataAbsentError(names)
    stems = sorted(names.read_text(encoding="utf-8").split())
    return [root / "natural" / "bsds500" / "val" / f"{stem}.jpg" for stem in stems][:limit]


@dataclass(frozen=True)
class CtPair:
    """One slice at full and at quarter dose.

    Args:
        name: of the file; the second part is the reconstruction kernel, as in ``L096_D45f_i021``.
        full: full dose, ``(1, H, W)`` in HU as displayed.
        quarter: quarter dose, same grid.
        spacing: of the pixels, mm.
        paths: the two files, full dose first.
    """

    name: str
    full: Image
    quarter: Image
    spacing: float
    paths: tuple[Path, Path]

    @property
    def kernel(self) -> str:
        """Reconstruction kernel, such as ``D45f``."""
        return self.name.split("_")[1]


def ct_pairs(folder: Path, *, names: Sequence[str] | None = None, limit: int | None = None) -> Iterator[CtPair]:
    """The slices of ``folder/full`` with those of the same name in ``folder/quarter``, all or those named."""
    for full in files(folder / "full", limit=limit):
        name = full.name.split(".")[0]
        if names is None or name in names:
            quarter = folder / "quarter" / full.name
            hu, spacing = ct_slice(full)
            yield CtPair(name, hu, ct_slice(quarter)[0], spacing=spacing, paths=(full, quarter))


def ct_slice(path: Path) -> tuple[Image, float]:
    """One CT slice of a DICOM or NIfTI file: ``(1, H, W)`` in HU as displayed, pixel spacing in mm."""
    stack, volume = slices(path, Modality.CT)
    return stack[:1], square_spacing(volume)


def scaled_slices(path: Path) -> tuple[Image, Volume]:
    """Slices ``(N, H, W)`` of an MR file in working scale, and the volume they are from."""
    from monai_sasm.functional.intensity import scaling_for

    stack, volume = slices(path, Modality.MR)
    return scaling_for(volume).forward(stack), volume


def slices(path: Path, modality: Modality) -> tuple[Image, Volume]:
    """All slices ``(N, H, W)`` of a file, rows first as displayed, and the volume they are from."""
    volume = load(path, modality)
    stack = volume.as_slices()[:, 0]
    if volume.slice_axis == 2:  # NIfTI: x comes first
        stack = stack.transpose(0, 2, 1)
    return np.ascontiguousarray(stack), volume
