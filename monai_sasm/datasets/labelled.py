"""Small labelled photos, such as CIFAR-10: from torchvision's files, from folders by class, or from zips of those."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.photo.eight_bits import read_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
SPLITS = ("train", "test")  # what lies in folders and zips
PARTS = ("train", "validation", "test")
TORCHVISION = "cifar-10-batches-py"  # the folder torchvision unpacks CIFAR-10 to


@dataclass(frozen=True)
class LabelledImages:
    """Photos of one size with a class each.

    Args:
        images: RGB uint8 ``(N, 3, H, W)``.
        labels: class index ``(N,)``, int64.
        classes: class names of both splits, sorted; a label is an index into them.
        origin: where the pixels come from, for reports.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice | NDArray[np.generic]) -> LabelledImages:
        """The chosen images, as a set of its own."""
        return LabelledImages(self.images[chosen], self.labels[chosen], self.classes, self.origin)


def labelled_images(
    source: str | Path, part: str = "train", held_out: int = 10, download: bool = False
) -> LabelledImages:
    """Read one part of a labelled set.

    Looked for in this order: torchvision's CIFAR-10 in ``source`` (the benchmark's own pixels), folders
    ``<source>/{train,test}/<class>/*``, and zips in ``source`` that hold such folders. Training and validation images
    both come from ``train``.

    Args:
        source: folder.
        part: ``train``, ``validation`` or ``test``.
        held_out: every ``held_out``-th image of ``train`` is for validation.
        download: let torchvision fetch CIFAR-10 (170 MB) into ``source`` when it is not there.

    Raises:
        ValueError: another part, ``held_out`` below 2, or images of different sizes.
        FileNotFoundError: nothing found.
    """
    if part not in PARTS or held_out < 2:
        raise ValueError(f"part must be one of {PARTS} and held_out at least 2, got {part!r} and {held_out}")
    root, split = Path(source), "test" if part == "test" else "train"
    found = _torchvision(root, split, download) if download or (root / TORCHVISION).is_dir() else _files(root, split)
    if part == "test":
        return found
    validation = np.arange(len(found)) % held_out == held_out - 1
    return found[validation if part == "validation" else ~validation]


def source_files(source: str | Path) -> list[Path]:
    """The files that :func:`labelled_images` reads for training and test, for hashing."""
    root = Path(source)
    if (root / TORCHVISION).is_dir():
        return sorted((root / TORCHVISION).glob("*_batch*"))
    folders = [path for split in ("train", "test") for path in (root / split).glob("*/*")]
    return sorted(folders or root.glob("*.zip"))


def _torchvision(root: Path, split: str, download: bool) -> LabelledImages:
    from monai_sasm.optional import torchvision

    torchvision()
    from torchvision.datasets import CIFAR10

    data = CIFAR10(str(root), train=split == "train", download=download)
    images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return LabelledImages(images, np.asarray(data.targets, np.int64), tuple(data.classes), "CIFAR-10 of torchvision")


def _files(root: Path, split: str) -> LabelledImages:
    folders = (root / split).is_dir()
    entries = sorted(_in_folders(root, split) if folders else _in_zips(root, split), key=lambda entry: entry[:2])
    if not entries:
        raise FileNotFoundError(
            f"{root} has neither {TORCHVISION}/ nor {split}/<class>/*.png|jpg, nor a zip that holds such folders; "
            "give the folder of the data set, or download=True to let torchvision fetch CIFAR-10"
        )
    classes = tuple(sorted({*_classes(root, "train"), *_classes(root, "test")}))  # one of them may lack some
    pixels = []
    for _, _, file in entries:
        pixels.append(read_bytes(file))
    sizes = {array.shape for array in pixels}
    if len(sizes) > 1:
        raise ValueError(f"the images must have one size, got {sorted(sizes)}; resize them first")
    labels = np.asarray([classes.index(name) for name, _, _ in entries], np.int64)
    jpeg = all(name.lower().endswith((".jpg", ".jpeg")) for _, name, _ in entries)
    origin = f"{'folders' if folders else 'zips'} of {'JPEG copies' if jpeg else 'images'}"
    return LabelledImages(np.ascontiguousarray(np.stack(pixels)), labels, classes, origin)


Entry = tuple[str, str, "Path | BinaryIO"]


def _in_folders(root: Path, split: str) -> Iterator[Entry]:
    for path in (root / split).glob("*/*"):
        if _is_image(path.name):
            yield path.parent.name, path.name, path


def _in_zips(root: Path, split: str) -> Iterator[Entry]:
    for path in sorted(root.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for member, part, name in _members(archive):
                if part == split:
                    yield name, Path(member).name, BytesIO(archive.read(member))


def _classes(root: Path, split: str) -> Iterator[str]:
    """Class of every image."""
    if (root / split).is_dir():
        yield from (path.parent.name for path in (root / split).glob("*/*") if _is_image(path.name))
        return
    for path in sorted(root.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            yield from (name for _, part, name in _members(archive) if part == split)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, str, str]]:
    """Name, split and class of the images of a zip."""
    for member in archive.namelist():
        parts = Path(member).parts
        if len(parts) == 3 and parts[0] in SPLITS and _is_image(parts[2]):
            yield member, parts[0], parts[1]


def _is_image(name: str) -> bool:
    """Not what macOS leaves beside images, ``._name.png``."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
