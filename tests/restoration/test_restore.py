"""Restoring a volume: geometry out equals geometry in, the gate's word counts, options do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_sasm import bundles
from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.shelter import darkest, with_change
from monai_sasm.types import Modality
from tests.toy_bundles import bundle, write_bundle, write_gain_expert

CLASSES = ("clean", "plus", "minus")


class _Add(torch.nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.amount


class _LeftRight(torch.nn.Module):
    """Sends the left half of an image to the first expert and the right half to the second."""

    classes = CLASSES

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        height, width = (-(-side // 8) for side in image.shape[-2:])
        logits = torch.full((1, 3, height, width), -50.0)
        logits[:, 1, :, : width // 2] = 50
        logits[:, 2, :, width // 2 :] = 50
        return logits


class _Bright(torch.nn.Module):
    """Sends dark images to the first expert and bright ones to the second."""

    classes = CLASSES

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        height, width = (-(-side // 8) for side in image.shape[-2:])
        logits = torch.full((1, 3, height, width), -50.0)
        logits[:, 2 if float(image.mean()) > 0.55 else 1] = 50
        return logits


def restorer(modality: Modality = Modality.MR, gate: torch.nn.Module | None = None) -> Restorer:
    """Two experts that add and subtract a tenth, and a gate: by default one that gives each one half of the image."""
    experts = {
        "plus": bundle("plus", "expert", modality, _Add(0.1)),
        "minus": bundle("minus", "expert", modality, _Add(-0.1)),
    }
    return Restorer.of(experts, bundle("gate", "gate", None, gate or _LeftRight()))


@pytest.fixture
def volume() -> Volume:
    """An MR volume whose 99.5th percentile of the foreground is near 500, slices along the last axis."""
    array = np.random.default_rng(0).uniform(60, 500, (1, 16, 32, 3)).astype(np.float32)
    return Volume(array, Modality.MR, affine=np.diag([1.0, 2.0, 3.0, 1.0]), slice_axis=2)


def test_each_half_goes_to_its_expert_in_native_units(volume: Volume) -> None:
    result = restorer()(volume, Options(keep_maps=True))
    change = result.volume.array - volume.array
    scale = float(np.abs(change).max()) / 0.1
    assert 450 < scale < 550, "a tenth of the working scale is a tenth of the 99.5th percentile"
    np.testing.assert_allclose(change[0, :, :8], 0.1 * scale, rtol=1e-3)
    np.testing.assert_allclose(change[0, :, 24:], -0.1 * scale, rtol=1e-3)
    assert result.volume.affine is volume.affine
    assert result.weights["plus"].shape == (3, 16, 32)
    np.testing.assert_allclose(sum(result.weights.values()), 1, atol=1e-6)
    np.testing.assert_allclose(result.change[0], change[0, :, :, 0], atol=1e-3)
    assert result.summary["weights"]["identity"] == pytest.approx(0, abs=0.02)
    assert result.summary["passes"] == 1


@pytest.mark.parametrize(("modality", "least"), [(Modality.MR, 0.0), (Modality.CT, -100.0)])
def test_a_magnitude_stays_positive_and_hounsfield_units_need_not(modality: Modality, least: float) -> None:
    array = np.zeros((1, 16, 32, 2), np.float32)
    array[:, ::2] = 500  # no square of one value, which would come back as it is
    source = Volume(array, modality, affine=np.eye(4), slice_axis=2)
    result = restorer(modality)(source, Options(expert="minus", keep_maps=True))
    assert float(result.volume.array.min()) == pytest.approx(least, abs=0.01)
    np.testing.assert_allclose(result.change[0], (result.volume.array - array)[0, :, :, 0], atol=1e-3)


def test_strength_zero_is_the_identity_to_the_last_bit(volume: Volume) -> None:
    assert np.array_equal(restorer()(volume, Options(strength=0)).volume.array, volume.array)


def test_half_strength_is_half_the_change(volume: Volume) -> None:
    full, half = (restorer()(volume, Options(strength=s)).volume.array - volume.array for s in (1.0, 0.5))
    np.testing.assert_allclose(half, full / 2, atol=1e-3)


def test_an_expert_of_another_modality_is_never_used(volume: Volume) -> None:
    result = restorer(Modality.PHOTO)(volume)
    assert np.array_equal(result.volume.array, volume.array)
    assert result.summary["weights"]["identity"] == 1


def test_naming_an_expert_of_another_modality_is_refused(volume: Volume) -> None:
    with pytest.raises(BundleError, match=r"plus is for .*CT.*this image is MR"):
        restorer(Modality.CT)(volume, Options(expert="plus"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(volume: Volume, value: float) -> None:
    array = volume.array.copy()
    array.flat[5] = value
    with pytest.raises(RefusedError, match="finite pixels, got NaN or infinite ones; fill them first"):
        restorer()(replace(volume, array=array))


def test_a_named_expert_acts_everywhere(volume: Volume) -> None:
    change = restorer()(volume, Options(expert="plus")).volume.array - volume.array
    assert float(change.min()) > 0
    assert float(np.ptp(change)) < 1e-2


def test_progress_adds_up(volume: Volume) -> None:
    steps: list[int] = []
    restorer()(volume, progress=steps.append)
    assert sum(steps) == restorer().plan(volume.modality).work_units(volume) == 3


def test_photos_get_a_second_pass_and_grey_ones_stay_grey() -> None:
    photo = Volume(np.full((1, 24, 24), 0.5, np.float32), Modality.PHOTO)
    result = restorer(Modality.PHOTO, _Bright())(photo, Options(keep_maps=True, passes=3))
    assert result.volume.array.shape == (1, 24, 24)
    assert result.summary["passes"] == 2
    assert result.weights["plus"].min() == result.weights["minus, pass 2"].min() == 1
    np.testing.assert_allclose(result.volume.array, 0.5, atol=1e-5)  # a tenth more, then a tenth less


@pytest.mark.parametrize("in_place", [False, True])
def test_a_photo_may_be_a_view_that_runs_backwards(in_place: bool) -> None:
    pixels = np.random.default_rng(0).random((3, 16, 32), dtype=np.float32)
    backwards = Volume(pixels[:, ::-1, ::-1], Modality.PHOTO, geometry="single")
    expected = restorer(Modality.PHOTO)(backwards.with_array(np.ascontiguousarray(backwards.array)))
    result = restorer(Modality.PHOTO)(backwards, in_place=in_place)
    assert np.array_equal(result.volume.array, expected.volume.array)


def test_no_pass_repeats_what_an_earlier_one_did() -> None:
    photo = Volume(np.full((1, 24, 24), 0.5, np.float32), Modality.PHOTO)
    result = restorer(Modality.PHOTO)(photo, Options(keep_maps=True))
    assert not result.weights["plus, pass 2"][..., :4].any()
    np.testing.assert_allclose(result.volume.array[0, :, :4], 0.6, atol=1e-5)


@pytest.mark.parametrize(("share", "acts"), [(0.125, False), (0.625, True)])
def test_a_fault_that_only_a_later_pass_sees_must_fill_much_of_the_photo(share: float, acts: bool) -> None:
    class FirstPlusThenMinus(torch.nn.Module):
        """Calls the first expert everywhere; on the restored, brighter photo the second one, on a share of it."""

        classes = CLASSES

        def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            height, width = (-(-side // 8) for side in image.shape[-2:])
            logits = torch.full((1, 3, height, width), -50.0)
            again = bool(image.mean() > 0.55)
            logits[:, 0] = 50 if again else -50
            logits[:, 1] = -50 if again else 50
            if again:
                logits[:, 2, :, : round(share * width)] = 150
            return logits

    array = np.full((3, 64, 64), 0.5, np.float32)
    array[..., ::16, :] += 1e-6  # a photo of one value is left alone
    photo = Volume(array, Modality.PHOTO)
    complete = restorer(Modality.PHOTO)
    gate = bundle("gate", "gate", None, FirstPlusThenMinus())
    result = Restorer.of(complete.experts, gate)(photo).volume.array
    np.testing.assert_allclose(result[:, :, -8:], 0.6, atol=1e-5)
    np.testing.assert_allclose(result[:, :, :2], 0.5 if acts else 0.6, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strength": 1.5}, "strength must be between 0 and 1, got 1.5"),
        ({"refine": -1}, "refine must be between 0 and 1, got -1"),
        ({"passes": 0}, "passes must be at least 1"),
        ({"sigma": float("nan")}, "finite and above 0, got nan"),
        ({"sigma": 0.0}, "finite and above 0, got 0.0; leave it out, and it is estimated"),
        ({"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_options_are_checked(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**wrong)


def test_missing_pieces_are_named(volume: Volume) -> None:
    complete = restorer()
    without_gate = Restorer.of(complete.experts)
    with pytest.raises(BundleError, match="no gate named 'gate_mobilenet'; available: none"):
        without_gate(volume)
    with pytest.raises(BundleError, match="no expert named 'x'; available: minus, plus"):
        complete(volume, Options(expert="x"))
    with pytest.raises(BundleError, match="no refiner is the default for MR; leave refinement at 0"):
        complete(volume, Options(refine=0.5))


def test_derivation_names_models_and_options() -> None:
    first, second = (restorer().plan(Modality.MR, Options(strength=s)).derivation for s in (1.0, 0.5))
    assert set(first.models) == {"gate", "plus", "minus"}
    assert "strength=0.5" in second.description
    assert first.digest != second.digest
    assert first.digest == restorer().plan(Modality.MR).derivation.digest


def test_derivation_names_what_the_experts_repair() -> None:
    plan = restorer().plan(Modality.MR)
    first, second = plan.experts
    sharper = replace(plan.experts[second], degradation="low-resolution")
    both = replace(plan, experts={**plan.experts, second: sharper}).derivation
    alone = replace(plan, experts={second: sharper}).derivation
    assert alone.description.startswith("Super-resolution by monai_sasm ")
    assert alone.repairs == ("low-resolution",)
    assert set(both.repairs) == {str(plan.experts[first].degradation), "low-resolution"}
    assert plan.derivation.digest == both.digest  # names and UIDs of results follow from the networks


@pytest.mark.parametrize("changed", [{"metadata": {"sasm": {"temperature": 0.1}}}, {"config": "other"}])
def test_what_a_bundle_says_beside_its_weights_tells_results_apart(changed: dict[str, Any]) -> None:
    plan = restorer().plan(Modality.MR)
    assert plan.gate is not None
    other = replace(plan, gate=replace(plan.gate, **changed))
    assert other.derivation.digest != plan.derivation.digest
    assert other.derivation.description == plan.derivation.description


def test_a_bundle_folder_becomes_an_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "user"))
    folder = write_gain_expert(tmp_path / "trusted" / "dim_photo_toy", gain=2.0)
    loaded = Restorer("cpu", trust=[tmp_path / "trusted"])
    image = torch.rand(1, 3, 8, 9)
    torch.testing.assert_close(loaded.experts["dim_photo_toy"].restore(image), 2 * image)
    assert loaded.experts["dim_photo_toy"].sha256 == bundles.load(folder).sha256


def test_bfloat16_rounds_the_correction_only() -> None:
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    exact, rounded = (bundles.load("noise_photo_unet", precision=kind) for kind in ("float32", "bfloat16"))
    sigma = torch.full((1, 1, 40, 40), 0.1)
    change = exact.restore(image, sigma) - image
    assert float((rounded.restore(image, sigma) - image - change).abs().max()) < 0.05 * float(change.abs().max())
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'float16'"):
        bundles.load("noise_photo_unet", precision="float16")


def test_a_network_of_volumes_is_loaded(tmp_path: Path) -> None:
    """Three-dimensional convolutions, as segmenters have, know no channels-last order of images."""
    config = "network_def: {_target_: torch.nn.Conv3d, in_channels: 1, out_channels: 1, kernel_size: 1}"
    state = {"weight": torch.full((1, 1, 1, 1, 1), 3.0), "bias": torch.zeros(1)}
    folder = write_bundle(tmp_path / "toy", config, {"role": "segmenter", "modality": "MR"}, state)
    volume = torch.rand(1, 1, 2, 3, 4)
    torch.testing.assert_close(bundles.load(folder).network(volume), 3 * volume)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "models" / "model.pt").unlink(), "model.pt is missing"),
        (lambda root: (root / "configs" / "inference.yaml").unlink(), "has none of"),
        (lambda root: (root / "configs" / "metadata.json").write_text("{"), "not valid JSON"),
        (lambda root: (root / "configs" / "metadata.json").write_text('{"sasm": {"role": "x"}}'), "whose 'role'"),
        (
            lambda root: (root / "configs" / "metadata.json").write_text(
                '{"sasm": {"role": "expert", "modality": "US", "degradation": "noise"}}'
            ),
            r"sasm.modality must be one of \['CT', 'MR', 'PHOTO'\], got 'US'",
        ),
        (lambda root: torch.save({"other": torch.zeros(1)}, root / "models" / "model.pt"), "does not fit the network"),
    ],
    ids=["no weights", "no config", "bad json", "bad role", "bad modality", "wrong weights"],
)
def test_an_incomplete_bundle_is_explained(tmp_path: Path, spoil, message: str) -> None:
    root = write_gain_expert(tmp_path / "toy", gain=2.0)
    spoil(root)
    with pytest.raises(BundleError, match=message):
        bundles.load(root)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(BundleError, match=r"no bundle named 'nothing'; available: .*noise_photo_unet"):
        bundles.load("nothing")


def test_rounding_takes_no_magnitude_below_zero() -> None:
    native = np.array([[1e-3, 5.0], [-2.0, 3.0]], np.float32)
    change = np.array([[-1.0000001e-3, -9.0], [-1.0, 1.0]], np.float32)
    assert with_change(native[:1], change[:1], darkest(native[:1], Modality.MR.profile)).min() == 0
    assert with_change(native, change, darkest(native, Modality.MR.profile)).min() == -2, "the darkest of the input"
    np.testing.assert_array_equal(with_change(native, change, darkest(native, Modality.CT.profile)), native + change)
