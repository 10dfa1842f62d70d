"""Scores of images as one CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from monai_sasm.transforms.scores import SaveScoresd
from monai_sasm.transforms.volumes import find_images
from tests.bundle_cases import clean_image, save


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_one_line_per_image_with_its_class(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(clean_image("PHOTO", 16), "PHOTO", tmp_path / "in" / folder)
    target = tmp_path / "out" / "classes.csv"
    transform = SaveScoresd("pred", ["cat", "dog"], target, tmp_path / "in")
    images = find_images(tmp_path / "in", "PHOTO")
    for image, scores in zip(images, ([-0.5, 0.0], [0.0, -0.25]), strict=True):
        data = {"image_source": image["image"], "pred": torch.tensor(scores)}
        assert transform(data)["pred"] is data["pred"]
    assert lines(target) == [
        ["file", "class", "cat", "dog"],
        ["a/image.png", "dog", "-0.5", "0"],
        ["b/image.png", "cat", "0", "-0.25"],
    ]


def test_existing_files_and_wrong_counts_are_refused(tmp_path: Path) -> None:
    file = save(clean_image("PHOTO", 16), "PHOTO", tmp_path)
    data = {"image_source": find_images(file, "PHOTO")[0]["image"], "pred": torch.zeros(2)}
    (tmp_path / "classes.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite"):
        SaveScoresd("pred", ["cat", "dog"], tmp_path / "classes.csv", file)(data)
    with pytest.raises(ValueError, match="3 for 2"):
        SaveScoresd("pred", ["cat", "dog", "eel"], tmp_path / "new.csv", file)(data)
    with pytest.raises(KeyError, match="LoadVolumed"):
        SaveScoresd("pred", ["cat", "dog"], tmp_path / "new.csv", file)({"pred": torch.zeros(2)})
    SaveScoresd("pred", ["cat", "dog"], tmp_path / "classes.csv", file, overwrite=True)(data)
    assert [line[0] for line in lines(tmp_path / "classes.csv")] == ["file", "image.png"]
