"""The house loads what the gate can call and no more; what is broken harms only the images that need it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_sasm.bundles import DEFAULT_GATE, choose_default_gate, classes_for, shipped_folder
from monai_sasm.errors import BundleError
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.restore import Options, restore
from monai_sasm.restoration.restorer import Restorer, load_restorer
from monai_sasm.types import Modality
from tests.toy_bundles import write_bundle, write_gain_expert, write_trusting_gate


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundles, the only ones there are: a gate, a photo and an MR expert it calls, and one it does not."""
    folder = tmp_path / "bundles"
    monkeypatch.setattr("monai_sasm.bundles.finding.shipped_folder", lambda: folder)
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))
    write_trusting_gate(folder / DEFAULT_GATE, ["photo_twice", "mr_thrice", "never_installed"])
    write_gain_expert(folder / "photo_twice", 2.0)
    write_gain_expert(folder / "mr_thrice", 3.0, modality="MR")
    write_gain_expert(folder / "photo_slow", 5.0)
    return folder


def photo() -> Volume:
    return Volume(np.full((3, 16, 16), 0.1, np.float32), Modality.PHOTO)


def mr() -> Volume:
    return Volume(np.full((1, 16, 16), 100, np.float32), Modality.MR)


def test_only_the_gates_classes_are_loaded(shelf: Path) -> None:
    restorer = load_restorer("cpu")
    assert set(restorer.experts) == {"photo_twice", "mr_thrice"}
    assert set(restorer.models()) == {DEFAULT_GATE, "photo_twice", "mr_thrice"}
    assert restorer.classes() == ("clean", "photo_twice", "mr_thrice", "never_installed")
    np.testing.assert_allclose(restore(photo(), restorer, Options(passes=1)).volume.array, 0.2, atol=1e-6)
    with pytest.raises(BundleError, match=r"no expert named 'photo_slow'; available: mr_thrice, photo_twice; load_res"):
        restore(photo(), restorer, Options(expert="photo_slow"))


def test_a_named_expert_is_loaded_alone(shelf: Path) -> None:
    (shelf / DEFAULT_GATE / "models" / "model.pt").unlink()
    restorer = load_restorer("cpu", only=["photo_slow"])
    assert (set(restorer.experts), restorer.gate) == ({"photo_slow"}, None)
    np.testing.assert_allclose(restore(photo(), restorer, Options(expert="photo_slow")).volume.array, 0.5, atol=1e-6)
    with pytest.raises(BundleError, match=r"no expert named .gate_mobilenet.; available: mr_thrice, photo_slow"):
        load_restorer("cpu", only=[DEFAULT_GATE])


def break_weights(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()


def break_config(bundle: Path) -> None:
    (bundle / "configs" / "inference.yaml").write_text("network_def: {_target_: no_such_library.Network}")


def break_metadata(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").write_text("{")


@pytest.mark.parametrize("spoil", [break_weights, break_config, break_metadata])
def test_a_broken_bundle_the_gate_does_not_call_is_no_matter(shelf: Path, spoil) -> None:
    spoil(shelf / "photo_slow")
    restorer = load_restorer("cpu")
    np.testing.assert_allclose(restore(photo(), restorer, Options(passes=1)).volume.array, 0.2, atol=1e-6)
    with pytest.raises((BundleError, ImportError)):
        load_restorer("cpu", only=["photo_slow"])


@pytest.mark.parametrize("spoil", [break_weights, break_config])
def test_a_broken_expert_stops_only_the_images_it_is_for(shelf: Path, spoil) -> None:
    spoil(shelf / "mr_thrice")
    restorer = load_restorer("cpu")
    np.testing.assert_allclose(restore(photo(), restorer, Options(passes=1)).volume.array, 0.2, atol=1e-6)
    with pytest.raises(BundleError, match=r"mr_thrice cannot be loaded: .*; repair the bundle, or name an expert"):
        restore(mr(), restorer)


def test_a_broken_gate_is_an_error(shelf: Path) -> None:
    break_weights(shelf / DEFAULT_GATE)
    with pytest.raises(BundleError, match=r"model.pt is missing"):
        load_restorer("cpu")
    shutil.rmtree(shelf / DEFAULT_GATE)
    with pytest.raises(BundleError, match="no gate bundle is installed"):
        restore(photo(), load_restorer("cpu"))


def test_the_gate_is_named_and_not_found_by_alphabet(shelf: Path, tmp_path: Path, monkeypatch) -> None:
    write_trusting_gate(shelf / "z_gate", ["photo_slow"])
    assert load_restorer("cpu").classes() == ("clean", "photo_twice", "mr_thrice", "never_installed")
    restorer = load_restorer("cpu", gate="z_gate")
    assert (set(restorer.experts), set(restorer.models())) == ({"photo_slow"}, {"photo_slow", "z_gate"})
    np.testing.assert_allclose(restore(photo(), restorer, Options(passes=1)).volume.array, 0.5, atol=1e-6)
    with pytest.raises(BundleError, match=r"no gate named 'absent'; available: gate_mobilenet, z_gate"):
        load_restorer("cpu", gate="absent")
    with pytest.raises(BundleError, match="photo_slow has role 'expert'; only a bundle with role 'gate'"):
        load_restorer("cpu", gate="photo_slow")
    with pytest.raises(ValueError, match="a named expert acts without a gate"):
        Options(expert="photo_slow", gate="z_gate")

    user = tmp_path / "user"
    monkeypatch.setenv("SASM_BUNDLES", str(user))
    choose_default_gate("z_gate")
    assert set(load_restorer("cpu").experts) == {"photo_slow"}
    shutil.rmtree(shelf / "z_gate")
    with pytest.raises(BundleError, match=r"no gate named 'z_gate', which .*default_gate.txt makes the default"):
        load_restorer("cpu")
    choose_default_gate(DEFAULT_GATE)
    assert list(user.iterdir()) == []
    assert load_restorer("cpu").classes()[1] == "photo_twice"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "null", "7", '{"sasm": []}', '{"sasm": {"role": "wizard"}}', '{"sasm": {"role": ["gate"]}}',
     b"\xff\xfe{", '{"sasm": {"role": "expert", "modality": "CT"}}',
     '{"sasm": {"role": "segmenter", "modality": "PET"}}',
     '{"sasm": {"role": "expert", "modality": "CT", "degradation": ["noise"]}}', "[" * 100_000],
)  # fmt: skip
def test_one_bad_bundle_is_left_out_with_a_warning(
    shelf: Path, content: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one whose name the gate knows: it counts as not installed."""
    bad = write_gain_expert(shelf / "never_installed", 7.0) / "configs" / "metadata.json"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    restorer = load_restorer("cpu")
    assert set(restorer.experts) == {"photo_twice", "mr_thrice"}
    np.testing.assert_allclose(restore(photo(), restorer, Options(passes=1)).volume.array, 0.2, atol=1e-6)
    assert classes_for(restorer.classes(), "PHOTO") == [True, True, False, False]
    assert [record.message for record in caplog.records if str(bad) in record.message]


def write_refiner(folder: Path, **section: object) -> Path:
    state = {"weight": torch.ones(3, 3, 1, 1), "bias": torch.zeros(3)}
    config = "network_def: {_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 3, kernel_size: 1}"
    return write_bundle(folder, config, {"role": "refiner", "modality": "PHOTO", **section}, state)


def test_refiners_are_loaded_on_request(shelf: Path) -> None:
    write_refiner(shelf / "fine", default=True)
    write_refiner(shelf / "heavy", opt_in=True)
    break_weights(write_refiner(shelf / "broken"))

    restorer = load_restorer("cpu")
    assert list(restorer.refiners) == ["broken", "fine", "heavy"]
    assert set(restorer.models()) == {DEFAULT_GATE, "photo_twice", "mr_thrice"}
    assert restorer.choose_refiner(Modality.PHOTO) == "fine"
    assert restorer.choose_refiner(Modality.PHOTO, "heavy") == "heavy"
    assert restorer.refiner("heavy") is restorer.refiner("heavy"), "loaded once"
    assert restorer.refiner("heavy").role == "refiner"
    with pytest.raises(BundleError, match="no refiner named 'photo_slow'; available: broken, fine, heavy"):
        restorer.refiner("photo_slow")
    with pytest.raises(BundleError, match=r"model.pt is missing"):
        restorer.refiner("broken")


def test_a_refiner_of_another_modality_must_be_forced(shelf: Path) -> None:
    write_refiner(shelf / "fine", default=True)
    restorer = load_restorer("cpu")
    with pytest.raises(BundleError, match=r"no refiner is the default for CT; .* \(installed: fine\)"):
        restorer.choose_refiner(Modality.CT)
    with pytest.raises(BundleError, match=r"fine is made for PHOTO .* this CT image .* --force-refiner"):
        restorer.choose_refiner(Modality.CT, "fine")
    assert restorer.choose_refiner(Modality.CT, "fine", force=True) == "fine"
    with pytest.raises(BundleError, match="no refiner is the default for CT"):
        restorer.choose_refiner(Modality.CT, force=True)


def test_the_shipped_gate_finds_its_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path))
    restorer: Restorer = load_restorer("cpu")
    classes = json.loads((shipped_folder() / DEFAULT_GATE / "configs" / "classes.json").read_text())
    assert sorted(restorer.experts) == sorted(classes[1:])
    assert dict(restorer.unusable) == {}
