"""Protocols ``ct-phantom``, ``mri-lesions``, ``no-harm`` and ``coherence`` on images made here, with known networks."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_sasm.evaluation import mri_noise
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.mri_lesions import BALLS, invented, place
from monai_sasm.evaluation.scoring import Case, Method
from monai_sasm.evaluation.table import Row
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.io.volume import Volume
from monai_sasm.protocols import coherence, ct_phantom, mri_lesions, no_harm
from monai_sasm.protocols.evaluate import evaluate_in
from monai_sasm.types import Modality
from tests.evaluation.networks import blurring, named

DEFAULT, CT_EXPERT = "default pipeline", "expert lowdose_ct_unet"
HALF = (0.5 - 0.05) / 0.95  # weight of an expert of the undecided gate


def context_of(root: Path, sigma: float = 1.5, **bundles: object) -> Context:
    networks = {**blurring(sigma), **bundles}
    return Context(root, root / "docs" / "results", "cpu", limit=4, peers=False, bundles=networks)  # type: ignore[arg-type]


def save(array: np.ndarray, path: Path, sides: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*sides, 1.0])), path)


@pytest.fixture
def phantom(tmp_path: Path) -> Context:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:256, :256] - 127.5
    disc = np.where(np.hypot(rows, columns) < 116, 1000.0, 0.0)
    images = {
        f"dose_{name}__absent": np.round(disc + random.normal(0, noise, (4, 256, 256))).astype(np.int16)
        for name, noise in (("010", 40.0), ("055", 20.0), ("100", 6.0))
    }
    images |= {name.replace("absent", "present"): stack for name, stack in images.items()}
    images["ground_truth"] = disc.astype(np.int16)
    (tmp_path / "ct_phantom").mkdir()
    np.savez(tmp_path / ct_phantom.FILE, **images)
    return context_of(tmp_path)


def test_phantom(phantom: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_phantom, "REALISATIONS", 1)
    monkeypatch.setattr(ct_phantom, "WATER_DOSES", {"water 1/4": 0.25})
    table = evaluate_in(phantom, "ct-phantom")
    assert [row.method for row in table.rows] == ["input", "input, read by LCD_CT", CT_EXPERT, DEFAULT]
    before, _, blurred, pipeline = table.rows
    assert before.scores["MITA 100 %"]["noise"] == pytest.approx(6, rel=0.1)
    assert before.scores["MITA 10 %"]["AUC 10 mm/3"] < before.scores["MITA 100 %"]["AUC 10 mm/3"]
    assert before.scores["MITA 100 %"]["AUC 10 mm/3"] > 0.95
    assert before.scores["MITA 100 %"]["gain 3 mm/14"] == pytest.approx(1)
    low, high = before.spreads["MITA 10 %"]["AUC 5 mm/7"]
    assert low < before.scores["MITA 10 %"]["AUC 5 mm/7"] < high
    water, after = before.scores["water 1/4"], blurred.scores["water 1/4"]
    assert water["HU slope"] == pytest.approx(1, abs=5e-3)
    assert 0.1 < water["HU error"] < water["noise"], "the input has an error, too: what its noise leaves of a mean"
    point_spread = math.hypot(ct_phantom.BLUR, 1.5 * ct_phantom.WATER_SPACING)  # mm
    expected = 10 * math.sqrt(math.log(2) / 2) / (math.pi * point_spread)
    assert after["MTF50 120 HU"] == pytest.approx(expected, rel=0.05)  # the kernel of that blur is cut off
    assert after["MTF50 30 HU"] == pytest.approx(after["MTF50 1000 HU"], rel=0.03)  # a blur asks for no contrast
    assert after["MTF50 120 HU"] < pipeline.scores["water 1/4"]["MTF50 120 HU"] < water["MTF50 120 HU"]
    assert after["noise"] < water["noise"] / 2


def test_hounsfield_units_are_measured_against_the_truth() -> None:
    """A method that adds 5 HU is wrong by 5 HU; one that scales by 1.02, by 20 HU in the inserts of 1000 HU."""
    rows, columns = np.mgrid[: ct_phantom.SIZE, : ct_phantom.SIZE] - (ct_phantom.SIZE - 1) / 2
    inside = np.hypot(rows, columns) * ct_phantom.WATER_SPACING < ct_phantom.RADIUS
    clean = np.where(inside, 0, -1000).astype(np.float32)[None]
    shifted = ct_phantom._phantom("water", clean + 5, clean, clean)  # the image itself is off, and nothing restores it
    same = ct_phantom._hounsfield(shifted, lambda images: images)
    assert same == {"HU slope": pytest.approx(1, abs=1e-4), "HU error": pytest.approx(5, abs=0.01)}
    scaled = ct_phantom._hounsfield(ct_phantom._phantom("water", clean, clean, clean), lambda images: 1.02 * images)
    assert scaled == {"HU slope": pytest.approx(1.02, abs=1e-4), "HU error": pytest.approx(20, abs=0.1)}


def test_peers_are_tuned_at_each_dose_on_what_is_not_measured(
    phantom: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(ct_phantom, "REALISATIONS", 2)
    monkeypatch.setattr(ct_phantom, "WATER_DOSES", {"water 1/4": 0.25})
    monkeypatch.setattr(ct_phantom, "PEERS", ("NLM fast",))
    (water,) = ct_phantom.water()
    part = ct_phantom._middle(water.images)
    noises = [image[part, part].ravel() for image in (*water.images, water.tuning.degraded[0])]
    assert np.abs(np.corrcoef(noises) - np.eye(3)).max() < 0.1
    assert water.tuning.clean[0][part, part] == pytest.approx(0)
    with np.load(phantom.data / ct_phantom.FILE) as stored:
        mita = ct_phantom.mita(phantom.data / ct_phantom.FILE)
        np.testing.assert_array_equal(mita[0].tuning.degraded[0], stored["dose_010__present"][0] - 1000.0)
        np.testing.assert_array_equal(mita[0].tuning.clean[0], stored["ground_truth"] - 1000.0)
    few = [replace(one, images=one.images[:1]) for one in (mita[0], mita[2])]
    (fast,) = ct_phantom._peers(replace(phantom, peers=True), few)
    assert re.search(r"h/sigma [\d.]+ at MITA 10 %, [\d.]+ at MITA 100 %$", fast.note)


@pytest.fixture
def brains(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rows, columns, slices = np.mgrid[:72, :72, :48] - np.array([35.5, 35.5, 23.5])[:, None, None, None]
    head = np.where(np.hypot(np.hypot(rows, columns), 0.5 * slices) < 32, 600.0, 0.0)
    head[20:24, 20:24] = 1000.0
    array = gaussian_filter(head, 0.5) + random.normal(0, 1, head.shape)
    for name in ("sub-61_T1w", "sub-01_T1w"):
        save(np.abs(array).astype(np.int16), tmp_path / "mri_whole_head" / "ds002748" / f"{name}.nii.gz")
    return tmp_path


class Same(torch.nn.Module):
    """Gives its input back."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def test_lesions_in_magnetic_resonance(brains: Path) -> None:
    same = named({"superres_mri_unet": Same()}, modality=Modality.MR)
    table = evaluate_in(context_of(brains, 1.0, **same), "mri-lesions")
    levels = [*mri_lesions.NOISE, *mri_lesions.TRUNCATION, *mri_lesions.THICK]
    assert sorted({level for row in table.rows for level in row.scores}) == sorted(levels)
    assert table.row("input").n["noise 3 %"] == 1, "sub-01 is a training subject"
    clean, blurred = (table.row(name).scores["noise 1 %"] for name in ("input", "expert noise_mri_unet"))
    small, large = f"signal {BALLS[0].label}", f"signal {BALLS[4].label}"
    assert clean[small] == pytest.approx(1, abs=0.02)
    assert clean["erased"] == clean["invented"] == 0
    assert blurred[small] < blurred[large] < 1
    assert blurred[small] < table.row(DEFAULT).scores["noise 1 %"][small] < clean[small]
    thick = table.row("expert superres_mri_unet").scores
    assert thick["slices of 5"][small] < thick["slices of 3"][small] < 0.8
    cubic = table.row("cubic along slices").scores["slices of 3"]
    assert thick["slices of 3"][small] == pytest.approx(cubic[small], abs=0.02), "it adds nothing to the interpolation"
    assert thick["slices of 3"][f"{small} gain"] == pytest.approx(thick["slices of 3"][small] - cubic[small])
    assert not any("gain" in name for name in [*cubic, *clean]), "of what is made thin alone"
    assert 15 < cubic["PSNR"] < 50
    assert thick["slices of 3"]["PSNR gain"] == pytest.approx(thick["slices of 3"]["PSNR"] - cubic["PSNR"])
    assert thick["slices of 3"]["PSNR"] == pytest.approx(cubic["PSNR"], abs=0.01)
    assert "PSNR" not in clean, "of what is made thin alone"
    low, high = table.row("input").spreads["noise 1 %"][small]
    assert low < clean[small] < high


def test_gains_of_lesions_are_paired_and_drawn_by_volume() -> None:
    kinds, before, after = (BALLS[0], BALLS[0], BALLS[2]), mri_lesions.Counts(), mri_lesions.Counts()
    shares = np.linspace(0.2, 0.9, 7)
    for volume, share in enumerate(shares):
        given = {str(k): float(share) for k in range(3)} | {"invented": 0.0, "psnr": 30.0 + share}
        before.add(kinds, given)
        lift = 0.01 * (1 + volume % 2)
        after.add(kinds, {**{name: value + lift for name, value in given.items()}, "invented": 0.0})  # PSNR, too
    gains, intervals = after.gains(before)
    name = f"signal {BALLS[0].label} gain"
    assert gains[name] == pytest.approx(0.01 * 10 / 7)
    low, high = intervals[name]
    assert 0.01 <= low < gains[name] < high <= 0.02
    assert set(gains) == {name, f"signal {BALLS[2].label} gain", "PSNR gain"}
    assert gains["PSNR gain"] == pytest.approx(gains[name])
    assert 0.01 <= intervals["PSNR gain"][0] < gains["PSNR gain"] < intervals["PSNR gain"][1] <= 0.02
    values, spreads = after.scores()
    assert values[f"signal {BALLS[0].label}"] == pytest.approx(shares.mean() + 0.01 * 10 / 7)
    low, high = spreads[f"signal {BALLS[0].label}"]
    assert high - low > 0.1


def test_peers_of_lesions_are_tuned_on_another_patient(brains: Path) -> None:
    pytest.importorskip("skimage")
    scene = 200 + 800 * gaussian_filter(np.random.default_rng(1).random((40, 40, 30)), 1)
    save(scene.astype(np.int16), brains / mri_noise.TUNING)
    context = replace(context_of(brains, 1.0), peers=True)
    (fast,) = mri_noise.tuned_peers(context, ["NLM fast"], mri_lesions.NOISE)
    assert re.search(r"h/sigma [\d.]+ at 1 %, [\d.]+ at 3 %, [\d.]+ at 6 %$", fast.note)
    (case,) = [pair.plain for pair in mri_lesions._pairs(next(brains.rglob("sub-61*")), "noise 3 %")]
    assert fast.restore(replace(case, degraded=case.degraded[:1])).shape == (1, *case.degraded.shape[1:])


def test_kept_results_on_lesions_are_measured_anew_when_a_metric_changes(
    brains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, (pair,) = context_of(brains, 1.0), mri_lesions._pairs(next(brains.rglob("sub-61*")), "noise 3 %")
    method = Method("peer", lambda case: 0.5 * case.degraded, "1.0")
    first = mri_lesions._measured(context, method, pair)
    assert first["0"] == pytest.approx(0.5, abs=0.1)
    kept = mri_lesions._measured(context, replace(method, restore=lambda case: pytest.fail("it is kept")), pair)
    assert kept == first
    monkeypatch.setattr(mri_lesions, "invented", lambda *_, **__: 7)
    assert mri_lesions._measured(context, method, pair) == {**first, "invented": 7.0}


def test_kept_results_on_the_phantom_hold_for_the_same_metrics_alone(phantom: Context) -> None:
    one = replace(ct_phantom.mita(phantom.data / ct_phantom.FILE)[0], images=np.zeros((4, 256, 256), np.float32))
    runs: list[str] = []

    def restore(case: Case) -> np.ndarray:
        runs.append(case.name)
        return case.degraded

    def counted(probed: str) -> int:
        row = ct_phantom._cached_row(phantom, Method("peer", restore, "1.0"), [one], {one.level: {"gain": probed}})
        assert row.scores[one.level]["gain 3 mm/14"] == pytest.approx(1)
        return len(runs)

    assert counted("1") == counted("1") < counted("2")


def test_lesions_of_two_volumes_lie_in_other_noise(brains: Path) -> None:
    first = next(brains.rglob("sub-61*"))
    second = first.with_name("sub-62_T1w.nii.gz")
    second.write_bytes(first.read_bytes())
    levels = ("noise 3 %", "noise 6 %")
    pairs = [pair for path in (first, second) for level in levels for pair in mri_lesions._pairs(path, level)]
    head = pairs[0].clean > 0.4
    noises = [((pair.plain.degraded - pair.clean) / pair.plain.sigma)[head] for pair in pairs]
    assert np.abs(np.corrcoef(noises) - np.eye(4)).max() < 0.1
    apart = pairs[0].with_lesions.degraded - pairs[0].plain.degraded
    assert np.abs(apart[pairs[0].placed.signal == 0]).max() < 1e-3, "the same noise without and with lesions"


def test_what_is_placed_is_counted() -> None:
    clean = np.full((6, 64, 64), 0.6, np.float32)
    placed = place(clean, (1.0, 1.0, 1.0), [2, 3])
    assert set(placed.balls) == set(BALLS)
    assert placed.shares(placed.signal) == pytest.approx([1.0] * len(placed.balls))
    assert placed.shares(0.4 * placed.signal) == pytest.approx([0.4] * len(placed.balls))
    big = max(range(len(placed.balls)), key=lambda k: placed.balls[k].diameter)
    _, mask = placed.masks[big]
    assert mask.sum() == pytest.approx(4 / 3 * math.pi * (placed.balls[big].diameter / 2) ** 3, rel=0.2)
    dots = clean.copy()
    dots[2, 20:24, 20:24] += 0.2
    dots[4, 40:44, 40:44] -= 0.2
    assert invented(clean, clean, dots, sides=(1.0, 1.0, 1.0)) == 2
    assert invented(clean, dots, dots, sides=(1.0, 1.0, 1.0)) == 0, "they were there before"


def test_no_harm(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:160, :160] - 79.5
    body = np.where(np.hypot(rows, columns) < 70, 60.0, -1000.0)
    stack = np.round(body[..., None] + random.normal(0, 5, (160, 160, 6))).astype(np.int16)
    save(stack, tmp_path / "ct_volumes" / "totalsegmentator" / "example_ct.nii.gz", (0.8, 0.8, 3.0))
    (tmp_path / "natural" / "bsds500" / "val").mkdir(parents=True)
    for number in range(20):
        scene = np.full((96, 96, 3), 100 + 5 * number, np.uint8)
        Image.fromarray(scene).save(tmp_path / "natural" / "bsds500" / "val" / f"{number}.png")
    (tmp_path / "natural" / "bsds500" / "test").mkdir()
    Image.fromarray(scene).save(tmp_path / "natural" / "bsds500" / "test" / "trained_on.png")
    save(stack, tmp_path / "ct_ldct_pairs" / "L143_nifti" / "full" / "trained_on.nii.gz", (0.8, 0.8, 3.0))
    labels = np.zeros((64, 64, 8), np.int16)
    labels[20:40, 20:40] = 1
    save(labels, tmp_path / "ct_volumes" / "ge_head_tilt_varspacing" / "two.nii.gz", (0.8, 0.8, 3.0))
    table = evaluate_in(replace(context_of(tmp_path), limit=None), "no-harm")
    row = table.row(DEFAULT)
    assert (row.n["CT"], row.n["PHOTO"]) == (6, 20)
    tomograms, photos = row.scores["CT"], row.scores["PHOTO"]
    assert tomograms["touched"] == 1
    assert 0.5 < tomograms["gain"] < 0.95, "a blur at half of the weight"
    assert tomograms["loss bound"] == math.inf, "one patient says nothing of another, however many slices there are"
    assert (tomograms["units"], photos["units"]) == (1, 20)
    assert 1 - tomograms["gain"] <= tomograms["loss 95 %"] < 0.6
    assert any(flag.startswith("**CT: 6 images instead of 210**, 6 of them from ct_volumes") for flag in table.flags)
    (absent,) = (flag for flag in table.flags if flag.startswith("**not there, and so not measured: "))
    assert "ct_ldct_pairs/L096_dicom/full, " in absent
    assert "natural/kodak/*" in absent
    assert "example_ct.nii.gz" not in absent
    (left_out,) = (flag for flag in table.flags if "left out" in flag)
    assert left_out.startswith("**1 images are left out**, ct_volumes/ge_head_tilt_varspacing/two.nii.gz among them: ")
    assert 1 - photos["gain"] <= photos["loss bound"] < 0.6
    assert tomograms["change 99 %"] > tomograms["change"] > 0.5
    same = evaluate_in(replace(context_of(tmp_path, 1e-3), limit=None), "no-harm").row(DEFAULT).scores["PHOTO"]
    assert (same["touched"], same["change"]) == (0, pytest.approx(0, abs=1e-3))
    assert same["loss bound"] == pytest.approx(0, abs=1e-3)


def test_no_harm_counts_slices_that_can_be_measured(tmp_path: Path) -> None:
    """Half of a long series is air: the shorter one gives what it lacks."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    texture = 0.1 * (rows + columns)  # two values alone would be a mask
    body = np.where(np.hypot(rows, columns) < 28, 60.0, -1000.0).astype(np.float32) + texture.astype(np.float32)
    long = np.stack([body] * 20 + [np.full_like(body, -1000)] * 20, axis=-1)
    save(long, tmp_path / "ct_volumes/totalsegmentator/example_ct.nii.gz", (0.8, 0.8, 3.0))
    save(np.stack([body] * 10, axis=-1), tmp_path / "ct_full/C3L-00189_abdomen_dicom/a.nii.gz", (0.8, 0.8, 3.0))
    found = no_harm._clean_images(tmp_path, Modality.CT, None)
    assert [no_harm._length(one.entry) for one in found] == [18, 10]  # without the outermost at both ends
    assert no_harm._share(found, Modality.CT, None) == 18


def test_another_method_is_shown_time_points_each_in_its_own_white() -> None:
    array = np.random.default_rng(0).uniform(100, 900, (1, 16, 16, 2)).astype(np.float32)
    series = Volume(np.concatenate([array, array / 64]), Modality.MR, np.eye(4), slice_axis=2)
    seen: list[np.ndarray] = []

    def halved(case: Any) -> np.ndarray:
        seen.append(case.degraded)
        return case.degraded / 2

    method = SimpleNamespace(restore=halved)
    house = SimpleNamespace(restorer=SimpleNamespace(noise_estimator=NoiseEstimator()))
    outcome = no_harm._by_peer(house, method, series, [1, 3])  # type: ignore[arg-type]
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_allclose(outcome.after, series.as_slices()[[1, 3]] / 2, rtol=1e-6)


def test_the_units_of_no_harm_are_patients(brains: Path) -> None:
    folder = brains / "brats" / "brats18_4mod" / "Brats18_x"
    folder.mkdir(parents=True)
    for name in ("flair", "t1", "seg"):
        (folder / f"Brats18_x_{name}.nii.gz").write_bytes(next(brains.rglob("sub-61*")).read_bytes())
    found = no_harm._clean_images(brains, Modality.MR, None)
    assert [(one.unit, one.entry.paths[0].name) for one in found] == [
        ("mri_whole_head/ds002748/sub-61_T1w.nii.gz", "sub-61_T1w.nii.gz"),
        ("brats/brats18_4mod/Brats18_x", "Brats18_x_flair.nii.gz"),
        ("brats/brats18_4mod/Brats18_x", "Brats18_x_t1.nii.gz"),
    ]
    gains = {"a": [1.0, 0.9], **{f"b{k}": [0.99] for k in range(18)}}
    harms = [no_harm.Harm(unit, 0.0, 0.0, gain) for unit, some in gains.items() for gain in some]
    scores = no_harm._extended(Row("x", {}, n={}), Modality.MR, harms).scores["MR"]
    assert (scores["units"], scores["with lesions"]) == (19, 20)
    assert scores["loss bound"] == pytest.approx(0.05), "the worst of 19 patients, mean over slices"
    assert scores["loss 95 %"] == pytest.approx(np.percentile([0, 0.1, *[0.01] * 18], 95))


def test_coherence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coherence, "DOSES", {"dose 1/2": 0.5})
    folder = tmp_path / coherence.FOLDER
    rows, columns = np.mgrid[:96, :96] - 47.5
    body = np.where(np.hypot(rows, columns) < 44, 60.0, -1000.0)
    slope = 0.1 * (rows + columns)  # survives the blur; two values alone would be a mask
    save(np.stack([body + slope] * 6, axis=-1).astype(np.float32), folder / "example_ct.nii.gz", (0.8, 0.8, 3.0))
    labels = np.zeros((96, 96, 6), np.uint8)
    labels[30:60, 30:60, 1:] = 5
    affine = np.diag([-0.8, 0.8, 3.0, 1.0])  # turned round along the first axis
    affine[0, 3] = 95 * 0.8
    nibabel.save(nibabel.Nifti1Image(labels[::-1], affine), folder / "example_seg_fast_force_split.nii.gz")
    found = coherence.labelled(folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz", 0.5)
    assert np.array_equal(found.labels, np.moveaxis(labels, 2, 0))
    table = evaluate_in(replace(context_of(tmp_path), limit=None), "coherence")
    assert "**not there, and so not measured: example_ct_dicom, example_seg_dicom.nii.gz**" in table.flags
    assert any(flag.startswith("abdomen, 1 mm pixels: of the simulated pairs") for flag in table.flags)
    level = "abdomen, 3 mm pixels, dose 1/2"
    before, blurred, pipeline = (row.scores[level] for row in table.rows)
    assert (before["weight"], blurred["weight"]) == (0, 1)
    assert pipeline["weight"] == pytest.approx(HALF)
    assert pipeline["weight change"] == pipeline["largest"] == pytest.approx(0, abs=1e-6)
    assert 0 < blurred["noise"] < pipeline["noise"] < before["noise"]
    assert table.details is not None
    assert table.details["mean weight by organ"][level] == {"liver": pytest.approx(HALF)}
    steps, _ = coherence._measured(found, found.original + 1, np.arange(6.0)[:, None, None] / 10 * np.ones((6, 96, 96)))
    assert (steps["weight change"], steps["largest"]) == (pytest.approx(0.1), pytest.approx(0.1))


@pytest.mark.parametrize("protocol", ["ct-phantom", "mri-lesions", "no-harm", "coherence"])
def test_absent_data_are_said(protocol: str, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    context.data.mkdir(exist_ok=True)
    skipped = str(evaluate_in(context, protocol).skipped)
    assert skipped.startswith("data not found: ")
    assert str(context.data) in skipped
