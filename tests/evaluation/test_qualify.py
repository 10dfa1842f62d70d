"""``sasm qualify`` on images made here, restored by networks of known effect."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from monai_sasm.cli.main import app
from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.qualify import Wish, noise_in, qualify
from monai_sasm.evaluation.qualify_page import LABELS, _facts, _weights, photo_page, series_page
from monai_sasm.evaluation.qualify_photos import qualify_photos
from monai_sasm.evaluation.tissues import TISSUES, kinds, local_deviation, noise_index
from monai_sasm.io.formats import inventory
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.operating_range import OUTSIDE
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.target_noise import aimed
from monai_sasm.types import Modality
from tests.data import ct_small
from tests.evaluation.networks import Undecided, blurring, bundle

EXPERT = "lowdose_ct_unet"


def body(noise: float, modality: Modality = Modality.CT, slices: int = 4) -> Volume:
    """A uniform cylinder with a rim of fat and a rod of bone (MR: two tissues), and white noise."""
    rows, columns = np.mgrid[:192, :192] - 95.5
    radius, rod = np.hypot(rows, columns), np.hypot(rows - 36, columns)
    if modality is Modality.CT:
        scene = np.select([rod < 14, radius < 60, radius < 88], [800.0, 60.0, -100.0], -1000.0)
    else:
        scene = np.select([radius < 55, radius < 88], [500.0, 1000.0], 0.0)
    stack = np.stack([scene] * slices) + np.random.default_rng(0).normal(0, noise, (slices, 192, 192))
    stack = np.abs(stack) if modality is Modality.MR else stack
    affine = np.array([[0, 0, 0.8, 0], [0, 0.8, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    return Volume(stack[None].astype(np.float32), modality, affine, slice_axis=0)


def restorer(sigma: float = 1.5) -> Restorer:
    bundles = blurring(sigma)
    gate = bundles.pop("gate")
    return Restorer.of(bundles, gate)


def test_a_blur_is_seen_for_what_it_is() -> None:
    """The gate gives it half of the weight: noise, gain and the strength for a wanted noise follow."""
    found, sample = qualify(body(30.0), restorer(), Wish(slices=3))
    before, after = found["strengths"][0], found["strengths"][-1]
    assert [row["strength"] for row in found["strengths"] if row["strength"] in (0, 0.25, 0.5, 0.75, 1)] == [
        0, 0.25, 0.5, 0.75, 1
    ]  # fmt: skip
    assert before["noise"]["soft tissue"] == pytest.approx(30, rel=0.1)
    assert before["noise"]["fat"] == pytest.approx(30, rel=0.15)
    assert before["uniform_noise"] == pytest.approx(30, rel=0.05)
    assert after["uniform_noise"] == pytest.approx(30 * 0.6, rel=0.1)  # half blurred: sqrt of .25 + .02 + .07
    assert all(one["gain"] == pytest.approx(1) for one in before["gain"].values())
    gains = [one["gain"] for one in after["gain"].values()]
    assert 0.5 < gains[0] < gains[1] < gains[2] < gains[3] < 1
    assert abs(after["shift"]["soft tissue"]) < 0.5
    assert after["nps"]["mean_per_cm"] < 0.9 * before["nps"]["mean_per_cm"]
    half = (0.5 - 0.05) / 0.95  # less the least weight that acts
    assert found["weights"][EXPERT]["patient"] == pytest.approx(half, abs=1 / 255)
    assert found["weights"][EXPERT]["tissues"]["soft tissue"] == pytest.approx(half, abs=1 / 255)
    assert len(sample.indices) == 3


def test_the_recommended_strength_gives_the_wanted_noise() -> None:
    found, sample = qualify(body(30.0), restorer(), Wish(target_noise=22.0))
    best = found["recommended"]
    assert best["noise"] == pytest.approx(22.0, rel=0.01)
    assert float(sample.patches(sample.at(best["strength"])).std(axis=(1, 2)).mean()) == pytest.approx(22, rel=0.02)
    aim = aimed(body(30.0), restorer().plan(Modality.CT, Options(target_noise=22.0)))
    assert best["strength"] == pytest.approx(aim.plan.options.strength, abs=0.02), "what restore chooses"
    last = found["strengths"][-1]["gain"]["3 mm/14"]["gain"]
    assert best["gain"]["3 mm/14"] == pytest.approx(1 - best["strength"] * (1 - last), abs=1e-3)
    assert best["strength"] in [row["strength"] for row in found["strengths"]]
    usual, _ = qualify(body(30.0), restorer(), Wish(dose=0.64))
    assert usual["recommended"]["noise_wanted"] == pytest.approx(0.8 * usual["recommended"]["noise_now"])
    more, _ = qualify(body(30.0), restorer(), Wish(target_noise=3.0, expert=EXPERT))
    assert more["recommended"]["strength"] == 1
    assert more["recommended"]["reason"].endswith("the whole restoration leaves more")


class LeavesAlone(Undecided):
    """A gate that takes every image for a normal one."""

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        scores = super().forward(image, sigma)
        scores[:, 0] = 20
        return scores


@pytest.mark.parametrize("gate", [Undecided, LeavesAlone])
def test_where_the_gate_leaves_more_than_wanted_the_expert_acts_everywhere_as_in_restore(gate: type[Undecided]) -> None:
    experts = blurring(1.5)
    del experts["gate"]
    own = Restorer.of(experts, bundle("gate", gate(tuple(experts)), role="gate"))
    found, _ = qualify(body(30.0), own, Wish(target_noise=14.0))
    best = found["recommended"]
    aim = aimed(body(30.0), own.plan(Modality.CT, Options(target_noise=14.0)))
    assert found["by"] == aim.plan.options.expert == EXPERT
    assert best["strength"] == pytest.approx(aim.plan.options.strength, abs=0.02)
    assert best["noise"] == pytest.approx(14, rel=0.01)
    assert f"the gate would leave more: {EXPERT} acts everywhere" in best["reason"]


def test_a_series_that_is_left_alone_has_nothing_recommended() -> None:
    identity = blurring(1e-3)
    gate = identity.pop("gate")
    without = Restorer.of({name: one for name, one in identity.items() if name != EXPERT}, gate)
    found, sample = qualify(body(20.0), without, Wish())
    assert found["recommended"]["strength"] is None
    assert found["weights"] == {}
    assert "No expert acts" in series_page(found, sample)


def test_magnitude_images_have_background_noise_and_quantiles() -> None:
    found, sample = qualify(body(30.0, Modality.MR), restorer(), Wish(slices=2))
    first, *others = found["strengths"]
    assert first["signal_to_noise"] == pytest.approx(70 / first["background_noise"], rel=0.15)  # percent of white
    assert all(math.isnan(row[key]) for row in others for key in ("background_noise", "signal_to_noise"))
    before, after = found["strengths"][0], found["strengths"][-1]
    white = 1000 + 2.2 * 30  # about the 99.5th percentile
    assert before["noise"]["middle"] == pytest.approx(100 * 30 / white, rel=0.15)
    assert before["background_noise"] == pytest.approx(0.8493 * 0.6745 * 100 * 30 / white, rel=0.1)  # half-normal here
    assert before["quantiles"]["50"] == pytest.approx(100 * 1000 / white, rel=0.5)
    assert after["quantiles"]["90"] < before["quantiles"]["90"]
    assert 0 < found["recommended"]["strength"] < 1
    assert min(found["recommended"]["gain"].values()) == pytest.approx(0.95, abs=0.002)
    page = series_page(found, sample)
    assert page.count("data:image/png;base64,") == 3
    assert "Histogram" in page


def test_time_points_are_measured_each_in_its_own_white() -> None:
    volume = body(30.0, Modality.MR)
    both = replace(volume, array=np.concatenate([volume.array, volume.array / 20]))
    alone, whole = (qualify(one, restorer(), Wish(slices=count))[0] for one, count in ((volume, 4), (both, 8)))
    assert whole["series"]["sampled"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert whole["weights"]["noise_mri_unet"]["slices"] == pytest.approx(
        2 * alone["weights"]["noise_mri_unet"]["slices"], abs=0.01
    )
    for one, other in zip(alone["strengths"][::4], whole["strengths"][::4], strict=True):
        assert other["noise"]["middle"] == pytest.approx(one["noise"]["middle"], rel=0.05)
        assert other["quantiles"] == pytest.approx(one["quantiles"], rel=0.02)
        assert other["gain"]["3 mm/15"]["gain"] == pytest.approx(one["gain"]["3 mm/15"]["gain"], rel=0.02)
        assert other["gain"]["3 mm/15"]["places"] > one["gain"]["3 mm/15"]["places"]


def test_other_modalities_and_empty_series_are_refused() -> None:
    with pytest.raises(RefusedError, match="this is PHOTO"):
        qualify(Volume(np.zeros((3, 64, 64), np.float32), Modality.PHOTO), restorer(), Wish())
    empty = Volume(np.full((1, 2, 64, 64), -1000, np.float32), Modality.CT, np.eye(4), slice_axis=0)
    with pytest.raises(RefusedError, match="no slice holds enough of a patient"):
        qualify(empty, restorer(), Wish())


def test_noise_is_the_mode_and_edges_are_none_of_it() -> None:
    image = body(12.0, slices=1).array[0, 0]
    side = 7
    mask = kinds(gaussian_filter(image, 1.0), TISSUES[Modality.CT], side)
    deviations = local_deviation(image, side)
    assert noise_index(deviations[mask["soft tissue"]]) == pytest.approx(12, rel=0.1)
    assert local_deviation(np.full((20, 20), 7.0, np.float32), 5) == pytest.approx(0, abs=1e-3)
    assert math.isnan(noise_index(deviations[:2, :2].ravel()))
    blocks = np.random.default_rng(0).normal(0, 2.0, (30, 5, 5)).astype(np.float32)
    middles = [local_deviation(np.pad(one, 5, mode="edge"), 5)[7, 7] for one in blocks]
    assert middles == pytest.approx(blocks.std(axis=(1, 2), ddof=1), rel=1e-3)


def test_photos(tmp_path: Path) -> None:
    random, exif = np.random.default_rng(0), Image.Exif()
    exif[274] = 6
    for number in range(3):
        noisy = 0.5 + random.normal(0, 20 / 255, (64, 72, 3))
        Image.fromarray((255 * noisy.clip(0, 1)).astype(np.uint8)).save(tmp_path / f"{number}.png", exif=exif)
    found, pairs = qualify_photos(inventory(tmp_path), restorer(), Wish(slices=2))
    assert found["series"] == {"modality": "PHOTO", "photos": 3, "sampled": 2}
    assert found["noise"]["median"] == pytest.approx(20, rel=0.15)
    assert all(row["noise_after"] < 0.8 * row["noise"] for row in found["photos"])
    assert set(found["mean_weights"]) == {"noise_photo_unet", "raindrop_photo_unet"}
    assert {one.shape for pair in pairs for one in (pair.before, pair.after)} == {(3, 72, 64)}, "upright"
    assert "data:image/png;base64," in photo_page(found, pairs)


def test_the_page_of_a_real_slice_holds_no_names(tmp_path: Path) -> None:
    place = tmp_path / "DOE^JANE"
    place.mkdir()
    (place / "DOE_JANE.dcm").write_bytes(ct_small().read_bytes())
    page = tmp_path / "page.html"
    command = ["qualify", str(place), "-o", str(page), "--slices", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["series"]["kernel"] == "STANDARD"
    assert found["range"][EXPERT]["outside"] == []
    for text in (page.read_text(encoding="utf-8"), page.with_suffix(".json").read_text()):
        assert "DOE^" not in text  # no character of base64
        assert "DOE_" not in text
        assert "CompressedSamples" not in text  # the patient's name in that file
    assert CliRunner().invoke(app, command).exit_code == 2, "nothing is replaced without being told"


def test_one_series_is_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)), tmp_path / f"{name}.nii.gz")
    result = CliRunner().invoke(app, ["qualify", str(tmp_path), "--modality", "CT", "-o", str(tmp_path / "q.html")])
    assert result.exit_code == 2
    assert "2 series were found, and one is measured" in result.output


@pytest.mark.parametrize("padding", [-1024.0, -2000.0])
def test_noise_of_air_is_that_of_air_in_the_patient_where_nothing_is_clipped(padding: float) -> None:
    """Stored values end at -1024 HU: room air has half of its noise, and loses less of it to a restoration."""
    volume, noise = body(20.0), np.random.default_rng(1).normal(0, 40.0, (4, 192, 192))
    rows, columns = np.mgrid[:192, :192] - 95.5
    gas, room = np.hypot(rows + 30, columns) < 24, np.hypot(rows, columns) > 88
    stack = volume.array[0]
    stack[:, gas], stack[:, room] = -890 + noise[:, gas], -1010 + noise[:, room]
    stack[:, (rows + 30 < 0) & gas] -= 60  # its upper half is clipped here and there
    stack[:] = np.maximum(stack, -1024)
    stack[:, :3] = padding
    found, sample = qualify(volume, restorer(), Wish())
    levels = [row["noise"]["air"] for row in found["strengths"] if row["strength"] in (0, 0.25, 0.5, 0.75, 1)]
    assert levels[0] == pytest.approx(40, rel=0.1)
    assert levels == sorted(levels, reverse=True)
    for one, masks in zip(sample.before, sample.tissues, strict=True):
        assert gas[masks["air"]].all()
        assert one[masks["air"]].min() > -1024
    assert found["measured_in"]["pixels"]["air"] > 1000


def test_noise_of_a_kind_that_is_not_there_is_no_number() -> None:
    _, sample = qualify(body(5.0), restorer(), Wish(slices=1))
    sample.tissues[0]["bone"][:] = False
    assert math.isnan(noise_in(sample, sample.before, "bone"))


def test_texts_of_a_header_are_texts_on_the_page() -> None:
    """Kernel and scanner are what a file says; a page is opened where scripts run."""
    hostile = "<script src=//evil.example></script>"
    page = _facts({"series": dict.fromkeys(LABELS, hostile), "by": hostile})
    one = {"patient": 0.5, "tissues": {hostile: 0.5}, "slices": [0.1, 0.9]}
    page += _weights({"weights": {hostile: one}})
    assert "<script" not in page
    assert page.count("&lt;script") == len(LABELS) + 3


def test_the_range_is_judged_as_a_restoration_judges_it() -> None:
    """By the white of the series as it came: that of the restored one is lower."""
    bundles = blurring(1.5)
    gate = bundles.pop("gate")
    bundles["noise_mri_unet"].metadata["sasm"]["range"] = {"noise": [0.0, 0.01]}
    judge, volume = Restorer.of(bundles, gate), body(200.0, Modality.MR)
    found, sample = qualify(volume, judge, Wish(slices=4))
    assert sample.indices == (0, 1, 2, 3)
    (note,) = [one for one in judge(volume).volume.notes if one.startswith(OUTSIDE)]
    (reason,) = found["range"]["noise_mri_unet"]["outside"]
    assert note.endswith(reason)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("mr.nii", "name it .html"),
        ("page.pdf", "got {page}; name it .html"),
        ("pages/", "got {page}; name it .html"),
        ("pages", "name it .html"),
        ("mr.html", "never written onto its source, got mr.json"),
        ("other.html", "never written onto its source, got other.json"),
        ("page.json", "name it .html"),
    ],
)
def test_no_image_and_no_sidecar_is_replaced(tmp_path: Path, page: str, told: str) -> None:
    for name in ("mr", "other"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)), tmp_path / f"{name}.nii")
        (tmp_path / f"{name}.json").write_text('{"EchoTime": 0.01}')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = ["qualify", str(tmp_path / "mr.nii"), "--modality", "MR", "-o", str(tmp_path / page), "--overwrite"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert told.format(page=tmp_path / page) in result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
