"""Clean images or measured pairs: which of the two a recipe takes, and what it says of the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.recipes.images import clean_photos, clean_slices
from tests.bundle_cases import paired_folder


def photos(folders: list[Path], pairs: Path, measured: bool) -> Any:
    return clean_photos(folders, pairs, measured)


def slices(folders: list[Path], pairs: Path, measured: bool) -> Any:
    return clean_slices(folders, pairs, measured, min_std=0.0)


@pytest.mark.parametrize(("recipe", "modality"), [(photos, "PHOTO"), (slices, "MR")], ids=["photos", "slices"])
def test_measured_pairs_replace_their_clean_images_alone(
    recipe: Callable[..., Any], modality: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train = paired_folder(tmp_path, modality, "noise") / "train"
    assert [len(entry) for entry in recipe([train / "clean"], train, measured=True)] == [2]
    (told,) = [line for line in caplog.messages if "measured" in line]
    assert told == (f"measured pairs of {train} are used: nothing is degraded, and the settings of that have no effect")
    others = [tmp_path / "val" / "clean"]
    with pytest.raises(RefusedError, match=r"train holds measured pairs, .* instead of .*val/clean: pass paired=False"):
        recipe(others, train, measured=True)
    assert len(recipe(others, train, measured=False)) == 1
