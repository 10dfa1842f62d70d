"""What commands tell of inputs that are no images, of what was decided about series, and of unchanged results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.io.dicom.dicom_cases import STEP, mr_slice, save_all, uid
from tests.io.test_meaning import atlas, body, head, saved


def stored(path: Path) -> NDArray[np.float64]:
    return np.asarray(nibabel.load(path).dataobj, np.float64)


def test_a_dry_run_lists_what_names_and_values_say(sasm: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "labelsTr").mkdir(parents=True)
    saved(source / "labelsTr" / "brain_001.nii.gz", head())
    saved(source / "atlas.nii.gz", atlas(40))
    saved(source / "brain.nii.gz", head())
    code, out, _ = sasm("restore", source, "-o", tmp_path / "out", "--modality", "MR", "--dry-run")
    assert code == 0
    lines = {word: line for line in out.splitlines() for word in ("labelsTr", "atlas", "brain.nii") if word in line}
    assert lines["brain.nii"].startswith("restore")
    assert lines["atlas"].startswith("skip")
    assert "a label map or mask, not an image; nothing to restore; or pass --force-modality" in lines["atlas"]
    assert "a label map or mask by its name or folder" in lines["labelsTr"]
    assert not (tmp_path / "out").exists()


def test_no_image_is_skipped_with_the_flag_that_overrules(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    path = saved(tmp_path / "unit.nii", ((body() + 1024) / 2000).clip(0, 1))
    command = ("restore", path, "-o", tmp_path / "out", "--modality", "CT", "--expert", "toy_ct")
    code, out, err = sasm(*command)
    assert (code, out) == (3, "")
    assert "skipped: values from" in err
    assert "--force-modality" in err
    assert "force_modality" not in err
    code, _, err = sasm(*command, "--force-modality")
    assert code == 0
    assert "read all the same" in err
    np.testing.assert_allclose(stored(tmp_path / "out" / "unit.nii")[:40], stored(path)[:40] / 2, atol=1e-3)


def test_gaps_and_unchanged_series_are_told_without_asking(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    places = [0, 1, 3, 4]
    slices = [mr_slice(n, position=(0, 0, STEP * z), SOPInstanceUID=uid("gap", n)) for n, z in enumerate(places)]
    source = save_all(slices, tmp_path / "in")
    options = ("--expert", "toy_mr", "--strength", "0", "--json")
    code, out, err = sasm("restore", source, "-o", tmp_path / "out", *options)
    assert code == 0
    assert "1 slice position(s) missing" in err
    assert "unchanged: the result is a copy" in err
    row = json.loads(out)
    assert [note.split(":")[0] for note in row["notes"]] == [
        "1 slice position(s) missing; slices are processed one by one on native positions",
        "unchanged",
    ]
    new = pydicom.dcmread(next(Path(row["output"]["path"]).iterdir()))
    assert new.SeriesDescription.endswith("[SASM unchanged]")
    assert "DerivationCodeSequence" not in new
    code, _, err = sasm("restore", source, "-o", tmp_path / "quiet", *options, "-q")
    assert (code, err) == (0, "")


def test_uneven_series_have_no_maps_and_no_nifti(sasm: Any, tmp_path: Path) -> None:
    slices = [mr_slice(n, position=(0, 0, STEP * z), SOPInstanceUID=uid("gap", n)) for n, z in enumerate([0, 1, 2, 4])]
    source = save_all(slices, tmp_path / "in")
    for dry_run in ([], ["--dry-run"]):
        code, out, err = sasm("restore", source, "-o", tmp_path / "out.nii.gz", *dry_run)
        assert code == 3
        assert "gap slices have no affine, which NIfTI needs; write DICOM" in (out if dry_run else err)
    assert not (tmp_path / "out.nii.gz").exists()
    code, out, err = sasm("restore", source, "-o", tmp_path / "out", "--save-maps")
    assert code == 0
    assert "there are no maps: slices at uneven steps have no affine, which NIfTI needs" in err
    assert len(list(Path(out.strip()).iterdir())) == 4
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.parametrize("there", [False, True])
def test_a_dry_run_tells_weights_that_are_not_downloaded(
    sasm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr("monai_sasm.bundles.finding.is_downloaded", lambda *asked: there)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photo.png")
    named = ("--refine", 1, "--refiner", "upscale_photo_sd4x", "--dry-run")
    code, out, err = sasm("restore", tmp_path / "photo.png", "-o", tmp_path / "out.png", *named)
    assert code == 0
    assert "restore  PHOTO" in out
    assert ("sasm bundles download upscale_photo_sd4x" in err) is not there
