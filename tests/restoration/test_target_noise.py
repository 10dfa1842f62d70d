"""The noise that is left is the noise that was asked for, measured in uniform tissue, with one strength per volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from monai_sasm import types
from monai_sasm.bundles import Bundle
from monai_sasm.errors import RefusedError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.target_noise import NoiseCurve, noise_curve, restored_slices
from monai_sasm.types import Modality
from tests.data import CHECKOUT


class Smooth(torch.nn.Module):
    """A mean over 5 x 5 pixels."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(F.pad(image, [2] * 4, mode="replicate"), 5, 1)


def restorer(modality: Modality) -> Restorer:
    smooth = Bundle("smooth", Path(), "expert", modality, "noise", False, "1", "5" * 8, Smooth(), {"sasm": {}})
    return Restorer.of({"smooth": smooth})


def curve_under(volume: Volume, plan: Plan) -> NoiseCurve:
    image, change, scales = restored_slices(volume, plan)
    return noise_curve(image, change, plan.modality, scales)


def phantom(modality: Modality, noise: float, slices: int = 9) -> tuple[Volume, np.ndarray]:
    """Discs of tissue around structure, with white noise; and where it is uniform. ``(1, 120, 132, slices)``."""
    y, x = np.mgrid[:120, :132]
    inside = np.hypot(y - 60, x - 66) < 56
    lines = inside & (np.hypot(y - 60, x - 40) < 22)
    clean = np.where(inside, 40.0, -1000.0) if modality is Modality.CT else np.where(inside, 600.0, 0.0)
    clean = clean + np.where(lines, 200.0 * np.sin(x * 1.3), 0)
    draw = np.random.default_rng(0)
    array = clean[..., None] + noise * draw.standard_normal((120, 132, slices))
    if modality is Modality.MR:
        array = np.abs(array)
    uniform = inside & ~lines & (np.hypot(y - 60, x - 66) < 50) & (np.hypot(y - 60, x - 40) > 27)
    return Volume(array[None].astype(np.float32), modality, np.diag([1, 1, 3.0, 1]), slice_axis=2), uniform


def test_a_modality_with_a_unit_of_its_own_is_told_noise_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_PROFILES", dict(types._PROFILES))
    monkeypatch.setattr(types, "_KNOWN", dict(types._KNOWN))
    own = types.register(replace(Modality.CT.profile, name="QX", unit="own", dicom=None))
    volume, uniform = phantom(Modality.CT, 20.0)
    result = restorer(own)(replace(volume, modality=own), Options(expert="smooth", target_noise=12.0))
    np.testing.assert_allclose(result.volume.array[0][uniform].std(0).mean(), 12.0, rtol=0.05)


def test_small_numbers_keep_their_digits() -> None:
    """A white of 0.0008 and a noise of 0.00002."""
    volume, _ = phantom(Modality.MR, 20.0)
    small = volume.with_array(volume.array * np.float32(1e-6))
    for options in (Options(expert="smooth"), Options(expert="smooth", target_noise=1.0)):
        told, tiny = (restorer(Modality.MR)(one, options).summary["tissue_noise"] for one in (volume, small))
        assert tiny["input"] == pytest.approx(1e-6 * told["input"], rel=1e-3)
        assert tiny["result"] == pytest.approx(1e-6 * told["result"], rel=1e-3)


def test_tissue_of_a_dark_time_point_counts_too() -> None:
    volume, _ = phantom(Modality.MR, 20.0)
    image = volume.as_slices()
    both, change = np.concatenate([image, image / 20]), np.concatenate([-0.5 * image, -0.5 * image / 20])
    white = scaling_for(volume).scale
    bright = noise_curve(both, change, Modality.MR, white)
    each = noise_curve(both, change, Modality.MR, np.repeat([white, white / 20], len(image)))
    assert each.squares > 1.9 * bright.squares > 100
    whole = replace(volume, array=np.concatenate([volume.array, volume.array / 20]))
    plan = restorer(Modality.MR).plan(Modality.MR, Options(expert="smooth"))
    assert curve_under(whole, plan).squares > 0.9 * curve_under(volume, plan).squares > 50


@pytest.mark.parametrize(("modality", "noise", "target"), [(Modality.CT, 20.0, 12.0), (Modality.CT, 40.0, 15.0)])
def test_the_wanted_noise_is_left(modality: Modality, noise: float, target: float) -> None:
    volume, uniform = phantom(modality, noise)
    result = restorer(modality)(volume, Options(expert="smooth", target_noise=target))
    left = result.volume.array[0][uniform].std(0)
    np.testing.assert_allclose(left.mean(), target, rtol=0.05)
    assert 0 < result.summary["strength"] < 1
    told = result.derivation.parameters
    assert (told["strength"], told["target_noise"]) == (result.summary["strength"], target)
    described = next(line for line in (CHECKOUT / "docs" / "rows.md").read_text().splitlines() if "| `summary`" in line)
    for name in {"strength", "tissue_noise", *result.summary["tissue_noise"]}:
        assert f"`{name}`" in described
    np.testing.assert_allclose(result.summary["tissue_noise"]["input"], noise, rtol=0.1)
    np.testing.assert_allclose(result.summary["tissue_noise"]["result"], target, rtol=1e-3)


@pytest.mark.parametrize(("modality", "noise"), [(Modality.CT, 20.0), (Modality.MR, 30.0)])
@pytest.mark.parametrize("in_place", [False, True])
def test_every_restoration_tells_the_noise_of_uniform_tissue(modality: Modality, noise: float, in_place: bool) -> None:
    volume, uniform = phantom(modality, noise)
    result = restorer(modality)(volume, expert="smooth", strength=0.5, in_place=in_place)
    left = result.volume.array[0][uniform].std(0).mean()
    assert set(result.summary["tissue_noise"]) == {"input", "result"}
    np.testing.assert_allclose(list(result.summary["tissue_noise"].values()), [noise, left], rtol=0.12)


def test_without_uniform_tissue_and_for_photos_the_estimate_alone_is_told() -> None:
    small = Volume(np.random.default_rng(0).normal(40, 9, (1, 24, 24)).astype(np.float32), Modality.CT)
    photo = Volume(np.random.default_rng(0).uniform(0, 1, (3, 96, 96)).astype(np.float32), Modality.PHOTO)
    for volume in (small, photo):
        summary = restorer(volume.modality)(volume, expert="smooth").summary
        assert "tissue_noise" not in summary
        assert summary["noise"] > summary["noise_after"] > 0


def test_mr_counts_in_percent_of_white() -> None:
    volume, uniform = phantom(Modality.MR, 30.0)
    result = restorer(Modality.MR)(volume, expert="smooth", target_noise=2.0)
    white = result.summary["tissue_noise"]["target"] / 0.02
    assert 600 < white < 900
    np.testing.assert_allclose(result.volume.array[0][uniform].std(0).mean(), 0.02 * white, rtol=0.08)


def test_time_points_count_in_percent_each_of_its_own_white() -> None:
    volume, uniform = phantom(Modality.MR, 30.0)
    both = replace(volume, array=np.concatenate([volume.array, volume.array / 20]))
    options = Options(expert="smooth", target_noise=2.0)
    alone, whole = (restorer(Modality.MR)(one, options) for one in (volume, both))
    assert 0 < whole.summary["strength"] == pytest.approx(alone.summary["strength"], rel=0.05)
    white = scaling_for(volume).scale
    for array, own in zip(whole.volume.array, (white, white / 20), strict=True):
        np.testing.assert_allclose(array[uniform].std(0).mean(), 0.02 * own, rtol=0.1)
    told = whole.summary["tissue_noise"]
    assert told["result"] == pytest.approx(told["target"], rel=0.01)
    assert not any("noise" in note for note in whole.volume.notes)


def test_anatomy_is_not_taken_for_the_noise_of_mr() -> None:
    """In the squares that CT is measured in, three times as much seems to be left, of anatomy."""
    y, x = np.mgrid[:200, :200] / 200 - 0.5
    draw, noise = np.random.default_rng(0), 25.0
    anatomy = gaussian_filter(draw.standard_normal((200, 200)), 5)
    clean = np.where(np.hypot(x, y) < 0.45, 600 + 60 * anatomy / anatomy.std(), 0.0)[..., None]
    real, imaginary = noise * draw.standard_normal((2, 200, 200, 5))
    array = np.hypot(clean + real, imaginary)[None].astype(np.float32)
    volume = Volume(array, Modality.MR, np.diag([1, 1, 5.0, 1]), slice_axis=2)
    told = restorer(Modality.MR)(volume, expert="smooth").summary["tissue_noise"]
    assert told["input"] == pytest.approx(noise, rel=0.05)
    assert 0.6 * noise / 5 < told["result"] < 1.1 * noise / 5, "a mean over 5 x 5 pixels leaves a fifth"


def test_less_noise_than_wanted_changes_nothing() -> None:
    volume, _ = phantom(Modality.CT, 10.0)
    result = restorer(Modality.CT)(volume, expert="smooth", target_noise=11.0)
    assert np.array_equal(result.volume.array, volume.array)
    assert result.summary["strength"] == 0
    (note,) = (one for one in result.volume.notes if "uniform tissue" in one)
    assert note.startswith("uniform tissue has ")
    assert note.endswith(" HU of noise, less than was asked for: nothing was to be done")


@pytest.mark.parametrize("most", [1.0, 0.4])
def test_no_more_than_the_given_strength_is_used(most: float) -> None:
    volume, _ = phantom(Modality.CT, 30.0)
    result = restorer(Modality.CT)(volume, expert="smooth", target_noise=0.5, strength=most)
    assert result.summary["strength"] == pytest.approx(most, abs=0.03)  # of this mean, least noise is left at about 1
    assert result.summary["strength"] <= most
    left = result.summary["tissue_noise"]["result"]
    assert left > 0.5
    told = f"uniform tissue has {left:.3g} HU of noise left, more than the 0.5 that were asked for"
    assert told in result.volume.notes


def grain(noise: float) -> Volume:
    """A grey photo with white noise, ``(3, 120, 132)``."""
    draw = np.random.default_rng(0)
    return Volume((0.5 + noise * draw.standard_normal((3, 120, 132))).astype(np.float32), Modality.PHOTO)


@pytest.mark.parametrize("volume", [phantom(Modality.MR, 30.0)[0], grain(0.04)], ids=["MR", "PHOTO"])
def test_a_missed_noise_is_told_in_the_unit_in_which_it_was_asked_for(volume: Volume) -> None:
    """Per cent of white, whatever the numbers of the image are; photos have no tissue."""
    place = "uniform places have" if volume.modality is Modality.PHOTO else "uniform tissue has"
    white = 1.0 if volume.modality is Modality.PHOTO else scaling_for(volume).scale
    result = restorer(volume.modality)(volume, expert="smooth", target_noise=0.2)
    left = 100 * result.summary["tissue_noise"]["result"] / white
    assert 0.2 < left < 4
    assert f"{place} {left:.3g} % of white of noise left, more than the 0.2 that were asked for" in result.volume.notes
    result = restorer(volume.modality)(volume, expert="smooth", target_noise=20.0)
    has = 100 * result.summary["tissue_noise"]["input"] / white
    told = f"{place} {has:.3g} % of white of noise, less than was asked for: nothing was to be done"
    assert told in result.volume.notes


def test_the_curve_is_what_the_blend_leaves() -> None:
    """The variance of the blend at any strength follows from three numbers."""
    volume, _ = phantom(Modality.CT, 25.0)
    plan = restorer(Modality.CT).plan(Modality.CT, Options(expert="smooth"))
    curve = curve_under(volume, plan)
    images = volume.as_slices()
    full = restorer(Modality.CT)(volume, expert="smooth").volume.as_slices()
    for strength in (0.25, 0.5, 1.0):
        blended = images + np.float32(strength) * (full - images)
        again = noise_curve(blended, full - blended, Modality.CT, 1000.0)
        assert curve.at(strength) == pytest.approx(again.at(0), rel=0.12)  # in other squares
        found = curve.strength_for(curve.at(strength))
        assert found <= strength + 1e-6
        assert curve.at(found) == pytest.approx(curve.at(strength))


def test_a_correction_that_adds_noise_is_not_used() -> None:
    assert NoiseCurve(4.0, 0.5, 1.0, 10).strength_for(1.0) == 0
    overshooting = NoiseCurve(before=4.0, shared=-8.0, removed=20.0, squares=10)  # least noise at strength 0.4
    assert overshooting.strength_for(0.1) == pytest.approx(0.4)


class Veto(torch.nn.Module):
    """A gate that calls the lower part of each image clean; ``share`` of the height, 1 for all of it."""

    classes = ("clean", "smooth")

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        height, width = (-(-side // 8) for side in image.shape[-2:])
        logits = torch.zeros(len(image), 2, height, width)
        clean = torch.arange(height) >= round((1 - self.share) * height)
        logits[:, 0, clean], logits[:, 1, ~clean] = 50.0, 50.0
        return logits


def judged(modality: Modality, share: float, degradation: str = "low-dose") -> Restorer:
    smooth = Bundle("smooth", Path(), "expert", modality, degradation, False, "1", "5" * 8, Smooth(), {"sasm": {}})
    gate = Bundle("veto", Path(), "gate", None, None, True, "1", "6" * 8, Veto(share), {"sasm": {}})
    return Restorer.of({"smooth": smooth}, gate)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_who_asks_for_a_noise_gets_it_where_the_gate_sees_nothing_to_do(share: float) -> None:
    volume, uniform = phantom(Modality.CT, 20.0)
    result = judged(Modality.CT, share)(volume, target_noise=12.0)
    np.testing.assert_allclose(result.volume.array[0][uniform].std(0).mean(), 12.0, rtol=0.05)
    assert any("smooth acts everywhere" in note for note in result.volume.notes)
    assert result.derivation.parameters["expert"] == "smooth"
    assert list(result.derivation.models) == ["smooth"]


def test_the_gate_is_followed_where_it_leaves_the_wanted_noise() -> None:
    volume, _ = phantom(Modality.CT, 20.0)
    result = judged(Modality.CT, 0.0)(volume, target_noise=12.0)
    assert result.derivation.parameters["expert"] == "gate"
    assert not any("everywhere" in note for note in result.volume.notes)


def test_photos_are_left_to_the_gate_and_a_note_says_what_to_name() -> None:
    result = judged(Modality.PHOTO, 1.0, "noise")(grain(0.04), target_noise=0.5)
    assert np.array_equal(result.volume.array, grain(0.04).array)
    has = 100 * result.summary["tissue_noise"]["input"]
    told = f"uniform places have {has:.3g} % of white of noise left, more than the 0.5 that were asked for; in photos "
    assert (
        told + "the gate alone decides where, and the expert smooth acts everywhere if it is named"
        in result.volume.notes
    )
    named = judged(Modality.PHOTO, 1.0, "noise")(grain(0.04), expert="smooth", target_noise=2.0)
    assert named.summary["tissue_noise"]["result"] == pytest.approx(0.02, rel=0.02)
    missed = judged(Modality.PHOTO, 1.0, "noise")(grain(0.04), expert="smooth", target_noise=0.1)
    assert any(note.endswith("more than the 0.1 that were asked for") for note in missed.volume.notes)


@pytest.mark.parametrize(("target", "degradation"), [(25.0, "low-dose"), (12.0, "low-resolution"), (None, "low-dose")])
def test_the_gate_is_followed_without_need_or_means(target: float | None, degradation: str) -> None:
    volume, _ = phantom(Modality.CT, 20.0)
    result = judged(Modality.CT, 1.0, degradation)(volume, target_noise=target)
    assert np.array_equal(result.volume.array, volume.array)
    assert result.derivation.parameters["expert"] == "gate"
    assert ("ask for a target noise" in result.volume.notes[-1]) == (target is None), "only where it was not done yet"


def test_images_without_tissue_are_refused() -> None:
    air = Volume(np.full((1, 64, 64), -1000, np.float32), Modality.CT)
    with pytest.raises(RefusedError, match="too little uniform tissue"):
        restorer(Modality.CT)(air, expert="smooth", target_noise=5.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"target_noise": 0.0}, "above 0, got 0"), ({"target_noise": 5.0, "refine": 0.5}, "grain of its own")],
)
def test_wrong_options_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**wrong)  # type: ignore[arg-type]
