"""Clean images or measured pairs: which of the two a recipe takes, and what it says of the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from monai_sasm.errors import RefusedError
from monai_sasm.recipes.images import clean_photos, clean_slices
from monai_sasm.training import precision
from tests.bundle_cases import ROOT, paired_folder


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


PERCEPTUAL = ["superres_mri_unet", "superres_mri_esrgan", "lowdose_ct_esrgan", "refine_photo_flow", "lowdose_ct_dit"]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", PERCEPTUAL)
def test_the_feature_network_follows_the_training(name: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 of ``auto`` where the hardware has it: elsewhere it is emulated, ten times slower."""
    monkeypatch.setattr(precision, "_fast", lambda: fast)
    settings = {"precision": "auto", "perceptual": 0.0, "l1": 1.0}
    workflow = ConfigWorkflow(
        str(ROOT / "bundles" / name / "configs" / "train.yaml"), workflow_type="train", **settings
    )
    loss = workflow.parser.get_parsed_content("image_loss" if "image_loss" in workflow.parser else "loss")
    assert loss.reduced is fast
