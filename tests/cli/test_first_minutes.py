"""What the first ten minutes stumble over: several inputs, names of results, what is told, and errors found early."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from monai_sasm.cli import pictures
from monai_sasm.cli.output import Bar
from monai_sasm.restoration.pictures import picture_derivation
from monai_sasm.types import Modality
from tests.data import CHECKOUT, ct_small
from tests.evaluation.networks import bundle
from tests.io.dicom.dicom_cases import ct_slice, save_all
from tests.rows import check_rows


def picture(path: Path, size: tuple[int, int] = (40, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def series(tmp_path: Path) -> Path:
    slices = [ct_slice(number) for number in range(3)]
    for one in slices:
        one.SeriesDescription = "SECRET thorax"
    save_all(slices, tmp_path / "series")
    return tmp_path / "series"


def test_several_inputs(sasm: Any, tmp_path: Path, series: Path, toy_restorer: Any) -> None:
    photos = [picture(tmp_path / name) for name in ("a" + "/x.png", "b/y.png", "c/x.png")]
    code, out, err = sasm("restore", *photos[:2], *sorted(series.iterdir()), "-o", tmp_path / "out")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[1:] == ["x.png", "y.png"]
    assert len(out.splitlines()) == 3, "the slices of a series are one image, whoever lists them"
    code, _, err = sasm("restore", photos[0], photos[2], "-o", tmp_path / "twice")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "twice").iterdir()) == ["x-2.png", "x.png"]
    code, out, err = sasm("restore", *photos[:2], "-o", tmp_path / "one.png")
    assert (code, out) == (2, "")
    assert "one.png is the name of one file, and there are 2 images; name a folder" in err
    assert not (tmp_path / "one.png").exists()


@pytest.mark.parametrize("name", ["x.nii.gz", "x.mha"])
def test_a_folder_with_one_series_becomes_the_file_that_is_named(
    sasm: Any, tmp_path: Path, series: Path, toy_restorer: Any, name: str
) -> None:
    (series / "notes.txt").write_text("hello")
    code, out, _ = sasm("restore", series, "-o", tmp_path / name)
    assert (code, out) == (0, f"{tmp_path / name}\n")
    values = nibabel.load(tmp_path / name).get_fdata() if name.endswith("gz") else SimpleITK.ReadImage(tmp_path / name)
    assert (values.shape if name.endswith("gz") else values.GetSize())[2] == 3
    code, _, err = sasm("restore", series, "-o", tmp_path / "y.png")
    assert code == 3
    assert "only photos are written as .png" in err
    assert not (tmp_path / "y.png").exists()


def test_the_default_line_tells_what_was_done(sasm: Any, tmp_path: Path, series: Path, toy_restorer: Any) -> None:
    code, out, err = sasm("restore", series, "-o", tmp_path / "out")
    lines = err.splitlines()
    assert code == 0
    assert lines[0] == "sasm: loading models"
    assert re.search(r"noise in uniform tissue [\d.]+ -> [\d.]+ HU, toy_ct 4\d% in ", lines[1])
    assert "SECRET" not in err + out
    _, out, err = sasm("restore", series, "-o", tmp_path / "named", "--identify", "--json")
    (row,) = map(json.loads, out.splitlines())
    check_rows([row])
    assert row["input"]["description"] == "SECRET thorax"
    assert row["summary"]["noise_after"] < row["summary"]["noise"]
    assert "(SECRET thorax)" in err
    assert sasm("restore", series, "-o", tmp_path / "quiet", "-q")[2] == ""
    (planned,) = list(sasm("restore", series, "-o", tmp_path / "x", "--dry-run", "--identify")[1].splitlines()[1:])
    assert "(SECRET thorax)" in planned


def test_notes_are_told_without_being_asked(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(tmp_path / "chest_xray.png")
    _, _, err = sasm("restore", tmp_path / "chest_xray.png", "-o", tmp_path / "out")
    assert "photo experts were not made for it" in err


def test_an_empty_folder_says_so(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = sasm("restore", tmp_path / "empty", "-o", tmp_path / "out")
    assert (code, out) == (3, "")
    assert "holds no files to restore" in err


def test_an_output_inside_the_input_is_no_input(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    picture(tmp_path / "in" / "a.png")
    for _ in range(2):
        code, out, _ = sasm("restore", tmp_path / "in", "-o", tmp_path / "in" / "out", "--overwrite")
        assert (code, out) == (0, f"{tmp_path / 'in' / 'out' / 'a.png'}\n")


def test_modality_that_contradicts_dicom_is_said(sasm: Any, tmp_path: Path) -> None:
    code, _, err = sasm("restore", ct_small(), "-o", tmp_path / "out", "--modality", "MR")
    assert (code, "the file says that it is CT, not MR: leave --modality MR out" in err) == (3, True)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--expert", "nobody"], "no expert named 'nobody'; available: enhance_photo_diffusion"),
        (["--gate", "nobody"], "no gate named 'nobody'"),
        (["--refine", "1", "--refiner", "nobody"], "no refiner named 'nobody'"),
        (["--expert", "noise_mri_unet"], "noise_mri_unet is for MR, this image is CT"),
        (["--precision", "int8"], "'int8' is not one of"),
        (["--modality", "MR"], "leave --modality MR out"),
    ],
)
def test_known_errors_come_before_torch(wrong: list[str], reason: str, tmp_path: Path) -> None:
    code = (
        "import sys; from monai_sasm.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "restore", str(ct_small()), "-o", str(tmp_path / "out"), *wrong]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert reason in ended.stderr
    assert ended.stdout == "False\n"
    assert ended.returncode in (2, 3)


def test_photos_are_enlarged_and_completed(sasm: Any, tmp_path: Path) -> None:
    source = picture(tmp_path / "in" / "a.png")
    code, out, err = sasm("enlarge", source.parent, "-o", tmp_path / "large", "--factor", "2", "--device", "cpu")
    assert (code, out) == (0, f"{tmp_path / 'large' / 'a.png'}\n")
    assert "detail was drawn that nobody measured" in err
    assert Image.open(tmp_path / "large" / "a.png").size == (64, 80)

    mask = np.full((40, 32), 255, np.uint8)
    mask[10:20, 5:15] = 0
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.bmp")
    code, out, _ = sasm(
        "inpaint", source.parent, "--mask", tmp_path / "masks", "-o", tmp_path / "whole", "--device", "cpu"
    )
    assert code == 0
    before, after = (np.asarray(Image.open(path)) for path in (source, tmp_path / "whole" / "a.png"))
    np.testing.assert_array_equal(after[mask == 255], before[mask == 255])
    assert (after[mask == 0] != before[mask == 0]).any()
    jpeg = tmp_path / "lossy.jpg"
    Image.open(source).convert("RGB").save(jpeg)
    known, lossy = np.asarray(Image.open(jpeg))[mask == 255], "JPEG compresses the known pixels again"
    for name, told in (("again.jpg", True), ("exact.png", False)):
        code, _, err = sasm(
            "inpaint", jpeg, "--mask", tmp_path / "masks" / "a.bmp", "-o", tmp_path / name, "--device", "cpu"
        )
        assert (code, lossy in err) == (0, told)
        assert np.array_equal(np.asarray(Image.open(tmp_path / name))[mask == 255], known) is not told
    picture(tmp_path / "in" / "b.png")
    code, out, err = sasm(
        "inpaint", source.parent, "--mask", tmp_path / "masks", "-o", tmp_path / "two", "--device", "cpu"
    )
    assert (code, "b.png has no mask" in err) == (8, True)
    Image.fromarray(mask[:30]).save(tmp_path / "small.png")
    code, _, err = sasm(
        "inpaint", source, "--mask", tmp_path / "small.png", "-o", tmp_path / "three", "--device", "cpu"
    )
    assert (code, "a mask has the size of its photo, 32 x 40, got 32 x 30; scale the mask" in err) == (4, True)
    code, _, err = sasm("enlarge", ct_small(), "-o", tmp_path / "ct")
    assert (code, "is for PHOTO, this image is CT" in err) == (3, True)
    code, _, err = sasm("enlarge", source, "-o", tmp_path / "no", "--bundle", "noise_photo_unet", "--device", "cpu")
    assert (code, "has no 'superresolve'" in err) == (2, True)


def test_what_is_told_names_the_steps_that_run() -> None:
    network = torch.nn.Identity()
    network.steps = 3  # as the bundle is configured
    made = bundle("enhance", network, modality=Modality.PHOTO)
    for asked, told in (({"steps": None}, {"steps": 3}), ({"steps": 1}, {"steps": 1}), ({"factor": 2}, {"factor": 2})):
        assert picture_derivation(made, "enlarged", asked).parameters == told


@pytest.mark.parametrize(("steps", "told"), [((), None), (("--steps", "4"), 4)])
def test_steps_go_through_as_they_are_given(
    steps: tuple[str, ...], told: int | None, sasm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(pictures, "_run", lambda *_, made, **more: seen.append(made["steps"]))
    picture(tmp_path / "a.png")
    sasm("enlarge", tmp_path / "a.png", "-o", tmp_path / "large", *steps)
    sasm("inpaint", tmp_path / "a.png", "--mask", tmp_path / "a.png", "-o", tmp_path / "whole", *steps)
    assert seen == [told, told]


def test_the_bar_names_the_series_and_counts_slices() -> None:
    told: list[str] = []

    class Stub:
        def set_description_str(self, text: str) -> None:
            told.append(text)

        def set_postfix_str(self, text: str, refresh: bool) -> None:
            told.append(text)

        def update(self, part: float) -> None:
            told.append(f"{part:g}")

    bar = Bar(Stub())
    bar.begin("CT-series003", 40)
    bar.update(0.25)
    bar.begin("window", 1)
    assert told == ["CT-series003", ", slice 0/40", ", slice 10/40", "0.25", "window", ""]


def test_one_dose_says_the_kind(sasm: Any, tmp_path: Path) -> None:
    code, _, err = sasm("degrade", ct_small(), "-o", tmp_path / "out", "--dose", "0.1")
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "parameters.json").read_text())
    assert (record["kind"], record["options"]["dose"]) == ("low-dose-ct", [0.1, 0.1])
    code, _, err = sasm("degrade", ct_small(), "-o", tmp_path / "none")
    assert (code, "--kind" in err) == (2, True)
