"""Experts on a user's own folder: what is paired, simulated, measured, refused, and said about it."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_sasm.bundles import available
from monai_sasm.cli.main import main
from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.evaluation.data import DataAbsentError
from monai_sasm.evaluation.named_experts import find_experts
from monai_sasm.evaluation.own_folder import own_images
from monai_sasm.evaluation.simulated import Simulation
from monai_sasm.evaluation.synthetic_series import write_ct_series
from monai_sasm.evaluation.table import Table
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.formats import open_images
from monai_sasm.io.volume import Volume
from monai_sasm.protocols.evaluate import compare
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.toy_bundles import write_gain_expert, write_trusting_gate


def scene(number: int, shape: tuple[int, ...] = (24, 32, 3)) -> np.ndarray:
    """A smooth random image in [0.1, 0.9]."""
    field = gaussian_filter(np.random.default_rng(number).random(shape), [2, 2] + [0] * (len(shape) - 2))
    return (0.1 + 0.8 * (field - field.min()) / np.ptp(field)).astype(np.float32)


def save_photo(path: Path, image: np.ndarray) -> np.ndarray:
    """Write 8 bit; gives what is in the file, in [0, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.round(255 * image).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.astype(np.float64) / 255


def save_nifti(path: Path, array: np.ndarray, moved: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[0, 3] = moved
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), affine), path)


def experts(folder: Path, modality: str = "PHOTO", degradation: str = "noise") -> Path:
    """A trusted folder with ``double``, which is right for images at half their brightness, and ``same``."""
    for name, gain in (("double", 2.0), ("same", 1.0)):
        write_gain_expert(folder / name, gain, modality, degradation)
    return folder


@pytest.fixture
def dim(tmp_path: Path) -> tuple[Path, list[tuple[np.ndarray, np.ndarray]]]:
    """Seven pairs of photos, one of each pair at half its brightness; one photo without a partner."""
    pairs = []
    for number in range(7):
        clean = save_photo(tmp_path / "own" / "clean" / f"photo{number}.png", scene(number))
        pairs.append((clean, save_photo(tmp_path / "own" / "noisy" / f"photo{number}.png", clean / 2)))
    save_photo(tmp_path / "own" / "noisy" / "alone.png", scene(9))
    return tmp_path / "own", pairs


def test_a_paired_folder(dim: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, pairs = dim
    trust = [experts(tmp_path / "trust")]
    table = compare(["same", "double"], folder, tmp_path / "out", "cpu", trust=trust)
    decibels = {
        method: [-10 * math.log10(np.mean((gain * dimmed - clean) ** 2)) for clean, dimmed in pairs]
        for method, gain in (("input", 1), ("same", 1), ("double", 2))
    }
    assert [row.method for row in table.rows] == ["input", "same", "double"]
    for method, values in decibels.items():
        row = table.row(method)
        assert row.n == {"": 7}
        assert row.scores[""]["PSNR"] == pytest.approx(np.mean(values), abs=1e-4)
        low, high = row.intervals[""]["PSNR"]
        assert min(values) <= low < row.scores[""]["PSNR"] < high <= max(values)
    better = table.row("double").scores[""]
    assert better["p PSNR (against same)"] == pytest.approx(2**-6), "the smallest p of seven pairs"
    assert better["worse"] == 0
    assert "p PSNR (against same)" not in table.row("same").scores[""]
    assert any("alone: without a partner" in flag for flag in table.flags)
    with open(tmp_path / "out" / "compare.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] for line in lines if line["method"] == "double"] == [f"photo{k}" for k in range(7)]
    found = [float(line["PSNR"]) for line in lines if line["method"] == "double"]
    assert found == pytest.approx(decibels["double"], abs=1e-4)
    assert len(json.loads((tmp_path / "out" / "compare.json").read_text())["details"]["images"]) == 21
    assert all(0 < (tmp_path / "out" / name).stat().st_size < 300_000 for name in table.figures)
    assert len(table.figures) == 3
    assert not (tmp_path / "RESULTS.md").exists(), "own images are no protocol"


def test_who_harms_is_named(dim: tuple[Path, list[Any]], tmp_path: Path) -> None:
    write_gain_expert(tmp_path / "trust" / "dimmer", 0.5)
    table = compare(["dimmer"], dim[0], tmp_path / "out", "cpu", limit=3, trust=[tmp_path / "trust"])
    scores = table.row("dimmer").scores[""]
    assert scores["worse"] == 3
    harm = table.row("input").scores[""]["PSNR"] - scores["PSNR"]
    assert scores["loss"] == pytest.approx(harm)
    assert f"**dimmer is {harm:.2f} dB below its input**" in table.flags
    assert "limited to the first 3 images" in table.flags
    assert any("3 images: no interval and no test below 6" in flag for flag in table.flags)


def test_a_pair_of_equal_images_is_left_out_of_psnr_and_named(dim: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, pairs = dim
    save_photo(folder / "noisy" / "photo3.png", pairs[3][0])
    write_gain_expert(tmp_path / "trust" / "dimmer", 0.5)
    table = compare(["dimmer"], folder, tmp_path / "out", "cpu", trust=[tmp_path / "trust"])
    before, after = (
        [-10 * math.log10(np.mean((gain * noisy - clean) ** 2)) for k, (clean, noisy) in enumerate(pairs) if k != 3]
        for gain in (1, 0.5)
    )
    scores = table.row("dimmer").scores[""]
    assert table.row("input").scores[""]["PSNR"] == pytest.approx(np.mean(before), abs=1e-4)
    assert scores["PSNR"] == pytest.approx(np.mean(after), abs=1e-4)
    assert scores["worse"] == 7, "what was perfect was made worse, too"
    assert scores["loss"] == pytest.approx(np.subtract(before, after).mean(), abs=1e-4)
    assert any("input equals the clean image, PSNR infinite: photo3: left out" in flag for flag in table.flags)
    assert f"**dimmer is {np.mean(before) - np.mean(after):.2f} dB below its input**" in table.flags
    assert not any(" inf " in flag for flag in table.flags)


def test_images_too_small_for_ssim_are_named(tmp_path: Path) -> None:
    models = experts(tmp_path / "models")
    for number, shape in enumerate([(24, 32, 3), (30, 24, 3), (8, 9, 3)]):
        save_photo(tmp_path / "photos" / f"p{number}.png", scene(number, shape))
    table = compare(["same"], tmp_path / "photos", tmp_path / "out", "cpu", trust=[models])
    found = {row["image"]: row["SSIM"] for row in table.details["images"] if row["method"] == "input"}  # type: ignore[index]
    assert table.row("input").scores[""]["SSIM"] == pytest.approx((found["p0"] + found["p1"]) / 2)
    assert "p2: below 11 x 11 pixels, left out of means, intervals and tests of SSIM" in table.flags


def test_volumes_are_paired_by_name_and_place(tmp_path: Path) -> None:
    for number in range(2):
        volume = 500 * scene(number, (16, 16, 5))
        save_nifti(tmp_path / "own" / "full" / f"brain{number}_full.nii.gz", volume)
        save_nifti(tmp_path / "own" / "quarter" / f"brain{number}_low.nii", volume / 2, moved=9.0 * number)
    trust = [experts(tmp_path / "trust", "MR")]
    table = compare(["double"], tmp_path / "own", tmp_path / "out", "cpu", trust=trust)
    assert table.row("double").n == {"": 1}
    assert any("brain1_full: clean and degraded image do not lie at the same place" in flag for flag in table.flags)
    assert table.row("double").scores[""]["RMSE"] < 1e-3
    halved = 500 * scene(0, (16, 16, 5)) / 2
    assert table.row("input").scores[""]["RMSE"] == pytest.approx(math.sqrt(np.mean(halved**2)), rel=1e-5)
    assert table.row("input").scores[""]["bias"] == pytest.approx(-halved.mean(), rel=1e-5)


def test_a_folder_of_folders_of_pairs_is_no_folder_of_clean_images(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for kind in ("clean", "noisy", "masks"):
            save_photo(tmp_path / "pairs" / part / kind / "a.png", scene(0, (16, 16, 3)))
    with pytest.raises(RefusedError, match=r"pairs in subfolders.*; name \S*pairs/train or \S*pairs/val$"):
        own_images(tmp_path / "pairs", Modality.PHOTO)
    found, _ = own_images(tmp_path / "pairs" / "val", Modality.PHOTO)
    assert [image.degraded is not None for image in found] == [True]
    assert len(own_images(tmp_path / "pairs" / "val" / "clean", Modality.PHOTO)[0]) == 1


def test_dicom_series_are_paired_by_folder_and_named_without_names(tmp_path: Path) -> None:
    for patient in ("Smith_Anna", "Smith_Berta"):
        for dose in ("full", "quarter"):
            write_ct_series(tmp_path / "own" / dose / patient, 2, size=24)
    table = compare(["same"], tmp_path / "own", tmp_path / "out", "cpu", trust=[experts(tmp_path / "trust", "CT")])
    assert table.row("same").n == {"": 2}
    assert math.isnan(table.row("input").scores[""]["PSNR"]), "both doses are equal here"
    assert sum("input, same equal the clean image" in flag for flag in table.flags) == 1
    assert not any("below its input" in flag for flag in table.flags)
    assert "Smith" not in (tmp_path / "out" / "compare.json").read_text()
    assert "Smith" not in (tmp_path / "out" / "compare.csv").read_text()


def test_slices_speak_for_a_single_volume(tmp_path: Path) -> None:
    volume = 1000 * scene(3, (16, 16, 6)) - 500
    for kind, array in (("clean", volume), ("noisy", volume + 20)):
        save_nifti(tmp_path / "own" / kind / "abdomen.nii.gz", array)
    table = compare(["same"], tmp_path / "own", tmp_path / "out", "cpu", trust=[experts(tmp_path / "trust", "CT")])
    assert table.row("same").n == {"": 6}
    assert any(flag.startswith("one image only") for flag in table.flags)
    assert table.row("same").patients == {"": 1}
    assert table.row("input").interval("", "PSNR") is None, "slices of one volume are alike"
    assert table.row("input").scores[""]["bias"] == pytest.approx(20, abs=1e-3)
    clipped = np.clip(volume + 20, -160, 240) - np.clip(volume, -160, 240)
    each = [10 * math.log10(400**2 / np.mean(clipped[..., k] ** 2)) for k in range(6)]
    assert table.row("input").scores[""]["PSNR"] == pytest.approx(np.mean(each), abs=1e-3)


def test_clean_photos_are_degraded_as_the_experts_declare(tmp_path: Path) -> None:
    for number in range(2):
        save_photo(tmp_path / "own" / f"photo{number}.png", scene(number, (64, 64, 3)))
    trust = experts(tmp_path / "trust")
    write_gain_expert(tmp_path / "trust" / "dry", 1.0, degradation="raindrop")

    def run(output: str) -> Table:
        return compare(["same", "dry"], tmp_path / "own", tmp_path / output, "cpu", trust=[trust])

    table = run("out")
    assert list(table.row("input").scores) == ["noise", "raindrop"]
    assert table.row("input").scores["noise"]["PSNR"] == pytest.approx(20.17, abs=0.15), "25/255"
    assert sum("simulated:" in flag and "seed = number of the image" in flag for flag in table.flags) == 2
    again = run("again")
    assert [row.scores["noise"]["PSNR"] for row in table.rows] == [row.scores["noise"]["PSNR"] for row in again.rows]
    assert table.row("input").scores["raindrop"] == again.row("input").scores["raindrop"]
    assert table.row("input").scores["raindrop"]["PSNR"] < 40


@pytest.mark.parametrize("names", [["same", "dry"], ["dry", "same"]])
def test_what_cannot_be_simulated_on_one_image_is_passed_over_for_that_fault_alone(
    names: list[str], tmp_path: Path
) -> None:
    for number, channels in enumerate([3, 1, 1]):
        save_photo(tmp_path / "own" / f"p{number}.png", np.squeeze(scene(number, (48, 48, channels))))
    trust = experts(tmp_path / "trust")
    write_gain_expert(tmp_path / "trust" / "dry", 1.0, degradation="raindrop")
    table = compare(names, tmp_path / "own", tmp_path / "out", "cpu", trust=[trust])
    assert table.row("input").n == {"noise": 3, "raindrop": 1}
    (flag,) = [flag for flag in table.flags if flag.startswith("passed over")]
    assert "p1 at raindrop: raindrops need a colour photo, got a grey one; p2 at raindrop" in flag


def test_shipped_experts_do_what_restore_does(tmp_path: Path) -> None:
    clean = save_photo(tmp_path / "own" / "clean" / "photo.png", scene(1, (48, 48, 3)))
    noise = np.random.default_rng(0).normal(0, 0.08, clean.shape)
    save_photo(tmp_path / "own" / "noisy" / "photo.png", np.clip(clean + noise, 0, 1))
    table = compare(["noise_photo_unet", "noise_photo_unet"], tmp_path / "own", tmp_path / "out", "cpu")
    first, second = (table.row(name).scores[""]["PSNR"] for name in ("noise_photo_unet", "noise_photo_unet (2)"))
    assert first == second > table.row("input").scores[""]["PSNR"] + 3
    volume = next(open_images(tmp_path / "own" / "noisy"))
    restored = Restorer("cpu")(volume, expert="noise_photo_unet").volume
    assert first == pytest.approx(-10 * math.log10(np.mean((restored.array.transpose(1, 2, 0) - clean) ** 2)), abs=1e-4)


def test_variants_and_strangers(tmp_path: Path) -> None:
    folder = write_gain_expert(tmp_path / "strangers" / "double", 2.0)
    with pytest.raises(BundleError, match=r"trust=\['.*double'\] if you trust"):
        find_experts([str(folder)])
    for trusted in (tmp_path / "strangers", str(tmp_path / "strangers")):
        assert find_experts([str(folder)], [trusted])[0].root == folder.resolve()
    with pytest.raises(BundleError, match=r"no variant 'bold': configs/bold.yaml"):
        find_experts(["double/bold"], [folder])
    (folder / "configs" / "bold.yaml").write_text("{}\n")
    with pytest.raises(BundleError, match=r"bold_model.pt is missing"):
        find_experts(["double/bold"], [folder])
    (folder / "models" / "bold_model.pt").write_bytes((folder / "models" / "model.pt").read_bytes())
    plain, bold = find_experts(["double", f"{folder}/bold"], [folder])
    assert (plain.label, bold.label, bold.overlay) == ("double", "double/bold", "bold")
    before = plain.fingerprint()
    assert before != bold.fingerprint()
    (folder / "configs" / "inference.yaml").write_text((folder / "configs" / "inference.yaml").read_text() + "# x\n")
    assert plain.fingerprint() != before
    before, path = plain.fingerprint(), folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"sasm": metadata["sasm"] | {"noise_map": True}}))
    assert plain.fingerprint() != before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["phrenologist"], "no expert named 'phrenologist'.*available: .*double"),
        (["gate"], "gate is a gate; only bundles with role 'expert'"),
        (["double", "lowdose_ct_unet"], "one modality.*double for PHOTO, lowdose_ct_unet for CT"),
    ],
)
def test_what_is_no_expert_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    trust = experts(tmp_path / "trust")
    write_trusting_gate(trust / "gate", ["double"])
    with pytest.raises(BundleError, match=message):
        find_experts(names, [trust])


def test_one_bundle_under_two_names_is_not_compared_with_itself(tmp_path: Path) -> None:
    shutil.copytree(available()["lowdose_ct_unet"], tmp_path / "lowdose_ct_unet")
    names = ["lowdose_ct_unet", str(tmp_path / "lowdose_ct_unet")]
    with pytest.raises(BundleError, match=r"^lowdose_ct_unet and .*/lowdose_ct_unet are one bundle, .*; rename it"):
        find_experts(names, [tmp_path / "lowdose_ct_unet"])
    assert len(find_experts(names[:1] * 2, [tmp_path / "lowdose_ct_unet"])) == 2


def test_what_cannot_be_simulated_is_refused(tmp_path: Path) -> None:
    save_photo(tmp_path / "own" / "photo.png", scene(1))
    trust = [experts(tmp_path / "trust", degradation="low-resolution")]
    with pytest.raises(BundleError, match="give pairs, in DIR/clean and DIR/noisy"):
        compare(["same"], tmp_path / "own", tmp_path / "out", "cpu", trust=trust)
    with pytest.raises(DataAbsentError, match="nothing to measure"):
        own_images(tmp_path / "own", Modality.CT)
    with pytest.raises(DataAbsentError, match="not a folder"):
        own_images(tmp_path / "none", Modality.CT)


def test_an_expert_for_a_fault_nobody_knows_needs_pairs_and_no_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = experts(tmp_path / "trust", degradation="motion")
    image = scene(1)
    save_photo(tmp_path / "own" / "photo.png", image)
    with pytest.raises(
        BundleError, match=r"PHOTO images 'motion' on their own grid \(known: noise, raindrop\); give pairs"
    ):
        compare(["same"], tmp_path / "own", tmp_path / "out", "cpu", trust=[trust])

    save_photo(tmp_path / "pairs" / "clean" / "photo.png", image)
    save_photo(tmp_path / "pairs" / "noisy" / "photo.png", image / 2)
    table = compare(["double", "same"], tmp_path / "pairs", tmp_path / "out", "cpu", trust=[trust])
    scores = {row.method: next(iter(row.scores.values()))["PSNR"] for row in table.rows}
    assert scores["double"] > scores["input"] + 20
    assert scores["same"] == pytest.approx(scores["input"])
    assert "PHOTO, motion, sha256" in table.markdown()

    with pytest.raises(SystemExit):
        main(["bundles", "list", "--json", "--trust", str(trust)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["degradation"] for row in rows if row["name"] in ("double", "same")} == {"motion"}
    dim, out = tmp_path / "pairs" / "noisy" / "photo.png", tmp_path / "restored"
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(dim), "-o", str(out), "--expert", "double", "--trust", str(trust), "--device", "cpu"])
    assert (ended.value.code or 0) == 0
    assert np.asarray(Image.open(out / "photo.png")).mean() == pytest.approx(
        2 * np.asarray(Image.open(dim)).mean(), 0.02
    )


def test_simulated_strength() -> None:
    array = 400 * scene(5, (32, 32, 3)).transpose(2, 0, 1)[None]
    clean = Volume(array, Modality.MR, affine=np.diag([1.0, 1.0, 1.0, 1.0]), slice_axis=0)
    white = scaling_for(clean).scale
    noisy = Simulation(Modality.MR, "noise")(clean, 7)
    tissue = clean.array > 0.6 * white  # where Rician noise is nearly Gaussian
    assert (noisy.array - clean.array)[tissue].std() == pytest.approx(0.06 * white, rel=0.1)
    assert np.array_equal(noisy.array, Simulation(Modality.MR, "noise")(clean, 7).array)
    assert not np.array_equal(noisy.array[0, 0] - clean.array[0, 0], noisy.array[0, 1] - clean.array[0, 1])
    times = Simulation(Modality.MR, "noise")(replace(clean, array=np.concatenate([array, array / 20])), 7)
    np.testing.assert_array_equal(times.array[:1], noisy.array)
    assert (20 * times.array[1:] - array)[tissue].std() == pytest.approx(0.06 * white, rel=0.1)
    body = Volume(1000 * scene(6, (32, 32, 1)).transpose(2, 0, 1)[None] - 500, Modality.CT, clean.affine, 0)
    low = Simulation(Modality.CT, "low-dose")(body, 1)
    assert 0 < float(np.abs(low.array - body.array).mean()) < 500
    oblong = Volume(body.array, Modality.CT, np.diag([1.0, 1.0, 2.0, 1.0]), 0)
    with pytest.raises(ValueError, match="square pixels"):
        Simulation(Modality.CT, "low-dose")(oblong, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a protocol, or experts with --bundle"),
        (["--bundle", "noise_photo_unet"], "name their folder with --data"),
        (["gate", "--bundle", "noise_photo_unet", "--data", "."], "leave PROTOCOL out"),
    ],
)
def test_wrong_use(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command(dim: tuple[Path, list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust = experts(tmp_path / "trust")
    arguments = ["--bundle", "same", "--bundle", str(trust / "double"), "--data", dim[0], "--trust", trust]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments), "-o", str(tmp_path / "out"), "--limit", "2", "-q"])
    assert not ended.value.code
    assert "| double | " in capsys.readouterr().out
