"""``sasm degrade`` refuses what does not fit together, before it looks at any image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.data import ct_small
from tests.io.dicom.dicom_cases import PADDING, ct_slice, save_all, stored_values
from tests.photo_folder import photo_folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos", "ab")


def test_an_empty_input_is_told(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = sasm("degrade", tmp_path / "empty", "-o", tmp_path / "out", "--kind", "gaussian")
    assert (code, out, err) == (3, "", f"sasm: {tmp_path / 'empty'} holds no files to degrade\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kind", "gaussian", "--dose", "0.5"], "--dose is for low-dose-ct, not for gaussian; leave it out"),
        (["--kind", "gaussian", "--dose-of", "usual"], "--dose-of is for low-dose-ct, not for gaussian"),
        (["--dose", "0.5", "--dose-of", "mine"], "Invalid value for '--dose-of'"),
        (["--kind", "gaussian", "--kernel", "sharp"], "--kernel is for low-dose-ct, not for gaussian"),
        (["--kind", "rician", "--factor", "2"], "--factor is for kspace, not for rician"),
        (["--kind", "rician", "--uneven", "0"], "--uneven is for gaussian, not for rician"),
        (["--coverage", "0.1", "--sigma", "0.1"], "--sigma is for gaussian and rician and kspace, not for raindrop"),
        (["--kind", "gaussian", "--sigma", "2:1"], "sigma must be an increasing range of non-negative numbers"),
        (["--kind", "kspace", "--sigma", "2:1"], "sigma must be an increasing range of non-negative numbers"),
        (["--kind", "gaussian", "--sigma", "25"], "is a share of white, which is 1, got 25; 25 of 255 is 0.098"),
        (["--kind", "gaussian", "--sigma", "0.1:5"], "share of white, which is 1, got 5; 5 of 255 is 0.02"),
        (["--kind", "rician", "--sigma", "1.5"], "is a share of white, which is 1, got 1.5"),
        (["--kind", "kspace", "--sigma", "25"], "is a share of white, which is 1, got 25"),
        (["--dose", "1.5"], "dose must be an increasing range within (0, 1]"),
        (["--dose", "0"], "dose must be an increasing range within (0, 1]"),
        (["--factor", "0.5"], "factor must be an increasing range of numbers of at least 1"),
        (["--coverage", "0.1:2"], "coverage and opacity are shares in [0, 1]"),
        (["--kind", "gaussian", "--sigma", "nan"], "Invalid value for '--sigma'"),
        (["--kind", "gaussian", "--sigma", "much"], "Invalid value for '--sigma'"),
        (["--dose", "0.5", "--kernel", "round"], "Invalid value for '--kernel'"),
    ],
)
def test_options_are_wrong_use_and_no_failures_of_images(
    sasm: Any, photos: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    code, out, err = sasm("degrade", photos, "-o", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert told in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["photos", "photos/below", ".", "link"])
def test_the_output_is_kept_apart_from_the_input(sasm: Any, photos: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "link").symlink_to(photos)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = sasm("degrade", photos, "-o", tmp_path / output, "--kind", "gaussian", "--overwrite")
    assert (code, out) == (2, "")
    assert "the output folder holds the input or lies in it; choose a folder beside it" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_clean_photo_is_never_replaced_by_itself(sasm: Any, photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "clean")
    command = ("degrade", tmp_path / "clean" / "a.png", "--kind", "gaussian")
    code, _, err = sasm(*command, "-o", tmp_path, "--overwrite")
    assert (code, "holds the input" in err) == (2, True)
    assert sasm(*command, "-o", tmp_path / "pairs")[0] == 0


def test_names_of_pairs_follow_from_their_sources(sasm: Any, tmp_path: Path) -> None:
    """As those of restored images: what is added later changes no name of a pair, nor which image has it."""
    source = tmp_path / "in"
    for place in ("a.png", "a.bmp", "below/b.png", "below/a.webp", "z/b.png"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), len(place) * 10, np.uint8)).save(source / place, lossless=True)
    command = ("degrade", source, "--kind", "gaussian", "--sigma", "0")
    assert sasm(*command, "-o", tmp_path / "one")[0] == 0
    values = {path.name: int(np.asarray(Image.open(path))[0, 0, 0]) for path in (tmp_path / "one" / "clean").iterdir()}
    assert values == {"a.png": 50, "a.bmp.png": 50, "a.webp.png": 120, "b.png": 110, "b-2.png": 70}
    assert sasm(*command, "-o", tmp_path / "two", "--count", 2)[0] == 0
    assert {path.name for path in (tmp_path / "two" / "noisy").iterdir()} == {
        f"{name}-{version}.png" for name in ("a", "a.bmp", "a.webp", "b", "b-2") for version in (1, 2)
    }


def test_no_two_images_and_no_two_seeds_share_noise(sasm: Any, tmp_path: Path) -> None:
    grey = np.full((32, 32, 3), 128, np.uint8)
    for place in ("in/a.png", "in/b.png", "in/below/a.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(tmp_path / place)
    noise: dict[tuple[int, str], bytes] = {}
    for seed in (1, 2, 3):
        command = ("degrade", tmp_path / "in", "--kind", "gaussian", "--sigma", "0.1", "--seed", seed, "--count", 2)
        assert sasm(*command, "-o", tmp_path / str(seed))[0] == 0
        for path in (tmp_path / str(seed) / "noisy").iterdir():
            noise[seed, path.name] = np.asarray(Image.open(path)).tobytes()
    assert len(noise) == len(set(noise.values())) == 3 * 3 * 2


def test_the_noise_of_an_image_does_not_depend_on_others(sasm: Any, photos: Path, tmp_path: Path) -> None:
    command = ("--kind", "gaussian", "--sigma", "0.1", "--seed", "4")
    assert sasm("degrade", photos, "-o", tmp_path / "both", *command)[0] == 0
    assert sasm("degrade", photos / "b.png", "-o", tmp_path / "alone", *command)[0] == 0
    (alone,) = json.loads((tmp_path / "alone" / "parameters.json").read_text())["images"]
    assert alone in json.loads((tmp_path / "both" / "parameters.json").read_text())["images"]
    shutil.move(photos, tmp_path / "moved")
    assert sasm("degrade", tmp_path / "moved", "-o", tmp_path / "again", *command)[0] == 0
    for made in ("alone", "again"):
        same = [(tmp_path / folder / "noisy" / "b.png").read_bytes() for folder in ("both", made)]
        assert same[0] == same[1]


def test_noise_beyond_white_fails_photos_alone(sasm: Any, photos: Path, tmp_path: Path) -> None:
    """25 is usual of CT, in HU, and more than white of a photo."""
    shutil.copy(ct_small(), photos)
    code, _, err = sasm("degrade", photos, "-o", tmp_path / "out", "--kind", "gaussian", "--sigma", "25")
    assert code == 8
    assert err.count("failed: --sigma is a share of white, which is 1, got 25; 25 of 255 is 0.098") == 2
    (noisy,) = (tmp_path / "out" / "noisy").iterdir()
    assert noisy.name.endswith(".nii.gz")


def test_uneven_series_are_refused_before_anything_is_made(
    sasm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs are NIfTI, so that no output of `degrade` holds them; the way out is another one than that of `restore`."""
    monkeypatch.setattr(
        "monai_sasm.cli.degrade._model", lambda *asked: len(asked) > 2 and pytest.fail("it is degraded")
    )
    slices = [ct_slice(n, ImagePositionPatient=[0, 0, 3.0 * z]) for n, z in enumerate([0, 1, 2, 4])]
    source = save_all(slices, tmp_path / "in")
    code, out, err = sasm("degrade", source, "-o", tmp_path / "out", "--dose", "0.25")
    assert (code, out) == (4, "")
    assert "slices at uneven steps have no affine" in err
    assert "resample the series to equal steps first (dcm2niix" in err
    assert "write DICOM" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", [("--dose", "0.1"), ("--kind", "gaussian", "--sigma", "30")])
def test_padding_gets_no_noise(sasm: Any, tmp_path: Path, how: tuple[str, ...]) -> None:
    slices = [ct_slice(number, PixelSpacing=[0.8, 0.8]) for number in range(2)]
    for one in slices:
        pixels = stored_values(int(one.InstanceNumber))
        pixels[:, :12] = PADDING
        one.PixelData = pixels.tobytes()
    save_all(slices, tmp_path / "in")
    assert sasm("degrade", tmp_path / "in", "-o", tmp_path / "out", *how)[0] == 0
    clean, noisy, mask = (
        nibabel.load(next((tmp_path / "out" / part).iterdir())).get_fdata() for part in ("clean", "noisy", "masks")
    )
    padded = clean < -1500
    assert padded.mean() == 12 / 64
    np.testing.assert_array_equal(noisy[padded], clean[padded])
    assert np.std((noisy - clean)[~padded]) > 5
    np.testing.assert_array_equal(mask, ~padded)


@pytest.mark.parametrize("kind", ["rician", "gaussian", "kspace"])
def test_time_points_get_noise_each_of_its_own_white(sasm: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    bright = np.random.default_rng(0).uniform(900, 1000, (48, 40, 3)).astype(np.float32)
    bright[:24] /= 2
    for name, array in (("alone", bright), ("series", np.stack([bright, bright / 20], -1))):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 3.0, 1])), tmp_path / "in" / f"{name}_bold.nii.gz")
    options = ("--kind", kind, "--sigma", "0.1:0.2", *(("--factor", "1") if kind == "kspace" else ()))
    code, _, err = sasm("degrade", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert code == 0, err
    noise = {
        name: nibabel.load(tmp_path / "out" / "noisy" / f"{name}_bold.nii.gz").get_fdata() - array
        for name, array in (("alone", bright), ("series", np.stack([bright, bright / 20], -1)))
    }
    first, second = (noise["series"][..., time][24:] for time in (0, 1))
    assert 95 < first.std() < 205
    assert 20 * second.std() == pytest.approx(first.std(), rel=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    alone, series = json.loads((tmp_path / "out" / "parameters.json").read_text())["images"]
    assert isinstance(alone["drawn"], dict)
    whites = [one["sigma"]["mean"] for one in series["drawn"]]
    assert whites[0] == pytest.approx(20 * whites[1])


def test_the_dose_is_a_share_of_the_own_or_of_a_usual_one(sasm: Any, tmp_path: Path) -> None:
    photons = {}
    for of in ((), ("--dose-of", "own"), ("--dose-of", "usual")):
        place = tmp_path / "-".join(("out", *of))
        assert sasm("degrade", ct_small(), "-o", place, "--dose", "0.25", *of)[0] == 0
        record = json.loads((place / "parameters.json").read_text())
        photons[of] = record["images"][0]["drawn"]["exposure"][0], record["options"]["dose_of"]
    assert photons["--dose-of", "usual"] == (1.0, "usual")
    assert photons[()] == photons["--dose-of", "own"]
    assert photons[()][0] != 1.0


def test_a_dose_without_tissue_to_measure_is_told(sasm: Any, tmp_path: Path) -> None:
    save_all(
        [ct_slice(number, PixelSpacing=[0.8, 0.8], RescaleIntercept="-3000") for number in (0, 1)], tmp_path / "in"
    )
    code, _, err = sasm("degrade", tmp_path / "in", "-o", tmp_path / "out", "--dose", "0.25")
    assert code == 0
    assert "too little uniform tissue to measure noise; --dose is of a usual dose there" in err


def test_pairs_of_a_turned_photo_are_turned_as_it_is(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[274] = 8
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png", exif=exif)
    code, _, err = sasm("degrade", tmp_path / "in", "-o", tmp_path / "out", "--kind", "gaussian")
    assert code == 0, err
    for part in ("clean", "noisy", "masks"):
        with Image.open(tmp_path / "out" / part / "a.png") as image:
            assert (image.getexif()[274], image.size) == (8, (32, 40))
    with Image.open(tmp_path / "out" / "clean" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
