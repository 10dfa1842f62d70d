"""Classes of images as one CSV file."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_sasm.transforms.volumes import SOURCE, SourcePath


class SaveScoresd(MapTransform):
    """Write one line per image: file, class with the highest score, all scores.

    Args:
        keys: one key with scores ``(classes,)``.
        names: class names.
        path: CSV file; parent folders are made.
        input_dir: folder or file that :func:`monai_sasm.transforms.volumes.find_images` was given; files are named
            relative to it.
        overwrite: replace an existing file.
        source: key of the network's input, loaded by :class:`monai_sasm.transforms.volumes.LoadVolumed`.

    Raises:
        FileExistsError: the file is there already and ``overwrite`` is off.
    """

    def __init__(
        self,
        keys: KeysCollection,
        names: Sequence[str],
        path: str | Path,
        input_dir: str | Path,
        overwrite: bool = False,
        source: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"one CSV file holds the scores of one key, got {list(self.keys)}")
        self.names, self.path, self.input_dir, self.source = tuple(names), Path(path), Path(input_dir), source
        self.overwrite, self.begun = overwrite, False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append one line; the data are returned as they are."""
        origin = data.get(f"{self.source}{SOURCE}")
        if not isinstance(origin, SourcePath):
            raise KeyError(f"{self.source}{SOURCE} is missing; load {self.source!r} with LoadVolumed first")
        scores = torch.as_tensor(data[self.keys[0]]).flatten().tolist()
        if len(scores) != len(self.names):
            raise ValueError(f"one name per class is needed, got {len(self.names)} for {len(scores)} scores")
        self._begin()
        path = Path(origin)
        file = path.relative_to(self.input_dir) if self.input_dir.is_dir() else Path(path.name)
        best = self.names[max(range(len(scores)), key=scores.__getitem__)]
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow([file.as_posix(), best, *(f"{score:.6g}" for score in scores)])
        return dict(data)

    def _begin(self) -> None:
        if self.begun:
            return
        if self.path.exists() and not self.overwrite:
            raise FileExistsError(f"{self.path} exists; choose another file or set overwrite")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(["file", "class", *self.names])
        self.begun = True
