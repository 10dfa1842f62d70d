"""Labelled photos come in the same order from folders, zips and torchvision; validation is never trained on."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_sasm.datasets.labelled import labelled_images, source_files
from monai_sasm.optional import torchvision
from tests.labelled_folder import COLOURS, write_labelled


def test_labels_follow_the_sorted_class_names(tmp_path: Path) -> None:
    data = labelled_images(write_labelled(tmp_path), "test")
    assert data.classes == tuple(sorted(COLOURS))
    assert data.images.shape == (20, 3, 16, 16)
    assert data.images.dtype == np.uint8
    means = data.images.mean((2, 3))
    expected = np.array([COLOURS[data.classes[label]] for label in data.labels])
    assert np.abs(means - expected).max() < 12


def test_zips_hold_what_the_folders_hold(tmp_path: Path) -> None:
    folders, zips = write_labelled(tmp_path / "a"), write_labelled(tmp_path / "b", zipped=True)
    for part in ("train", "validation", "test"):
        one, other = labelled_images(folders, part), labelled_images(zips, part)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert (one.origin, other.origin) == ("folders of images", "zips of images")
    assert [path.name for path in source_files(zips)] == ["test.zip", "train.zip"]
    assert len(source_files(folders)) == 120


def test_every_tenth_training_image_is_held_out(tmp_path: Path) -> None:
    write_labelled(tmp_path)
    train, validation = (labelled_images(tmp_path, part) for part in ("train", "validation"))
    assert (len(train), len(validation)) == (90, 10)
    assert np.bincount(validation.labels).tolist() == [1] * 10
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in validation.images)


def test_copies_as_jpeg_are_told_apart(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 90).save(tmp_path / "test" / name / "0000.jpg")
    data = labelled_images(tmp_path, "test")
    assert data.origin == "folders of JPEG copies"
    assert data.images.shape == (2, 3, 8, 8)


def test_torchvision_comes_first_and_is_downloaded_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    class Fake:
        classes = ("cat", "dog")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            calls.append({"root": root, "train": train, "download": download})
            self.data, self.targets = np.zeros((4, 32, 32, 3), np.uint8), [0, 1, 0, 1]

    monkeypatch.setattr(torchvision().datasets, "CIFAR10", Fake)
    write_labelled(tmp_path)
    assert labelled_images(tmp_path, "test").origin == "folders of images"
    assert calls == []
    (tmp_path / "cifar-10-batches-py").mkdir()
    data = labelled_images(tmp_path, "test")
    assert data.origin == "CIFAR-10 of torchvision"
    assert data.images.shape == (4, 3, 32, 32)
    labelled_images(tmp_path / "new", "train", download=True)
    assert [(call["train"], call["download"]) for call in calls] == [(False, False), (True, True)]


def test_errors_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="download=True"):
        labelled_images(tmp_path, "train")
    with pytest.raises(ValueError, match=r"one of .*'valid'"):
        labelled_images(tmp_path, "valid")
    write_labelled(tmp_path, train=1, test=1)
    Image.new("RGB", (9, 8)).save(tmp_path / "test" / "cat" / "0001.png")
    with pytest.raises(ValueError, match="one size"):
        labelled_images(tmp_path, "test")


def test_a_class_that_one_split_lacks_keeps_its_place(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "train/dog/._b.png", "test/dog/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    train, test = (labelled_images(tmp_path, part) for part in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [1]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in tmp_path.glob("t*/*/*.png"):
            archive.write(file, file.relative_to(tmp_path))
    for folder in ("train", "test"):
        shutil.rmtree(tmp_path / folder)
    assert labelled_images(tmp_path, "test").labels.tolist() == [1]
