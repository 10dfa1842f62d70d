"""A restorer loads what the gate can call and no more; what is broken harms only the images that need it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_sasm.bundles import DEFAULT_GATE, choose_default_gate, classes_for, shipped_folder
from monai_sasm.errors import BundleError
from monai_sasm.io.formats import save
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
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
    break_weights(shelf / "photo_slow")
    break_weights(shelf / "mr_thrice")
    restorer = Restorer("cpu")
    plan = restorer.plan(Modality.PHOTO)
    assert plan.classes == ("identity", "photo_twice", "mr_thrice", "never_installed")
    assert {index: expert.name for index, expert in plan.experts.items()} == {1: "photo_twice"}
    assert set(plan.models) == {DEFAULT_GATE, "photo_twice"}
    np.testing.assert_allclose(restorer(photo(), passes=1).volume.array, 0.2, atol=1e-6)
    with pytest.raises(BundleError, match=r"no expert named 'photo_fast'; available: mr_thrice, photo_slow, photo_twi"):
        restorer(photo(), expert="photo_fast")
    with pytest.raises(TypeError, match="give options, or its fields by name, not both"):
        restorer(photo(), Options(), passes=1)


def test_a_named_expert_is_loaded_alone(shelf: Path) -> None:
    (shelf / DEFAULT_GATE / "models" / "model.pt").unlink()
    restorer = Restorer("cpu")
    assert set(restorer.plan(Modality.PHOTO, Options(expert="photo_slow")).models) == {"photo_slow"}
    np.testing.assert_allclose(restorer(photo(), Options(expert="photo_slow")).volume.array, 0.5, atol=1e-6)
    with pytest.raises(
        BundleError, match=r"no expert named 'gate_mobilenet'; available: mr_thrice, photo_slow, photo_twice"
    ):
        restorer.check(Options(expert=DEFAULT_GATE))


def break_weights(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()


def break_config(bundle: Path) -> None:
    (bundle / "configs" / "inference.yaml").write_text("network_def: {_target_: no_such_library.Network}")


def break_metadata(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").write_text("{")


@pytest.mark.parametrize("spoil", [break_weights, break_config, break_metadata])
def test_a_broken_bundle_the_gate_does_not_call_is_no_matter(shelf: Path, spoil) -> None:
    spoil(shelf / "photo_slow")
    restorer = Restorer("cpu")
    np.testing.assert_allclose(restorer(photo(), Options(passes=1)).volume.array, 0.2, atol=1e-6)
    with pytest.raises((BundleError, ImportError)):
        restorer.check(Options(expert="photo_slow"))


@pytest.mark.parametrize("spoil", [break_weights, break_config])
def test_a_broken_expert_stops_only_the_images_it_is_for(shelf: Path, spoil) -> None:
    spoil(shelf / "mr_thrice")
    restorer = Restorer("cpu")
    np.testing.assert_allclose(restorer(photo(), Options(passes=1)).volume.array, 0.2, atol=1e-6)
    with pytest.raises(BundleError, match=r"mr_thrice cannot be loaded: .*; repair the bundle, or name an expert"):
        restorer(mr())


def test_a_broken_gate_is_an_error(shelf: Path) -> None:
    break_weights(shelf / DEFAULT_GATE)
    with pytest.raises(BundleError, match=r"model.pt is missing"):
        Restorer("cpu").check(Options())
    shutil.rmtree(shelf / DEFAULT_GATE)
    with pytest.raises(BundleError, match="no gate named 'gate_mobilenet'; available: none"):
        Restorer("cpu")(photo())


def test_the_gate_is_named_and_not_found_by_alphabet(shelf: Path, tmp_path: Path, monkeypatch) -> None:
    write_trusting_gate(shelf / "z_gate", ["photo_slow"])
    restorer = Restorer("cpu")
    assert restorer.classes == ("clean", "photo_twice", "mr_thrice", "never_installed")
    assert set(restorer.plan(Modality.PHOTO, Options(gate="z_gate")).models) == {"photo_slow", "z_gate"}
    np.testing.assert_allclose(restorer(photo(), passes=1, gate="z_gate").volume.array, 0.5, atol=1e-6)
    np.testing.assert_allclose(restorer(photo(), passes=1).volume.array, 0.2, atol=1e-6)
    for name in ("absent", "photo_slow"):
        with pytest.raises(BundleError, match=rf"no gate named '{name}'; available: gate_mobilenet, z_gate"):
            restorer.check(Options(gate=name))
    with pytest.raises(ValueError, match="a named expert acts without a gate"):
        Options(expert="photo_slow", gate="z_gate")

    user = tmp_path / "user"
    monkeypatch.setenv("SASM_BUNDLES", str(user))
    choose_default_gate("z_gate")
    assert Restorer("cpu").classes == ("clean", "photo_slow")
    break_metadata(shelf / "z_gate")
    with pytest.raises(BundleError, match=r"z_gate/configs/metadata.json is not valid JSON"):
        Restorer("cpu")(photo())
    shutil.rmtree(shelf / "z_gate")
    with pytest.raises(BundleError, match=r"no gate named 'z_gate', which .*default_gate.txt makes the default"):
        Restorer("cpu")(photo())
    choose_default_gate(DEFAULT_GATE)
    assert list(user.iterdir()) == []
    assert Restorer("cpu").classes[1] == "photo_twice"


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
    restorer = Restorer("cpu")
    assert set(restorer.experts) == {"photo_twice", "photo_slow", "mr_thrice"}
    np.testing.assert_allclose(restorer(photo(), passes=1).volume.array, 0.2, atol=1e-6)
    assert classes_for(restorer.classes, "PHOTO") == [True, True, False, False]
    assert [record.message for record in caplog.records if str(bad) in record.message]


def write_refiner(folder: Path, **section: object) -> Path:
    state = {"weight": torch.ones(3, 3, 1, 1), "bias": torch.zeros(3)}
    config = "network_def: {_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 3, kernel_size: 1}"
    return write_bundle(folder, config, {"role": "refiner", "modality": "PHOTO", **section}, state)


def test_refiners_are_loaded_on_request(shelf: Path) -> None:
    write_refiner(shelf / "fine", default=True)
    write_refiner(shelf / "heavy", opt_in=True)
    break_weights(write_refiner(shelf / "broken"))

    restorer = Restorer("cpu")
    assert list(restorer.refiners) == ["broken", "fine", "heavy"]
    assert set(restorer.plan(Modality.PHOTO).models) == {DEFAULT_GATE, "photo_twice"}
    assert set(restorer.plan(Modality.PHOTO, Options(refine=0.5)).models) == {DEFAULT_GATE, "photo_twice", "fine"}
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
    restorer = Restorer("cpu")
    with pytest.raises(BundleError, match=r"no refiner is the default for CT; .* \(installed: fine\)"):
        restorer.choose_refiner(Modality.CT)
    with pytest.raises(BundleError, match=r"fine is made for PHOTO .* this CT image .* force_refiner=True"):
        restorer.choose_refiner(Modality.CT, "fine")
    assert restorer.choose_refiner(Modality.CT, "fine", force=True) == "fine"
    with pytest.raises(BundleError, match="no refiner is the default for CT"):
        restorer.choose_refiner(Modality.CT, force=True)


def test_the_shipped_gate_finds_its_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path))
    restorer: Restorer = Restorer("cpu")
    classes = json.loads((shipped_folder() / DEFAULT_GATE / "configs" / "classes.json").read_text())
    called = [expert.name for modality in Modality.known() for expert in restorer.plan(modality).experts.values()]
    assert sorted(called) == sorted(classes[1:])


def test_a_called_expert_that_is_gone_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "user"))
    write_gain_expert(tmp_path / "user" / "here", 0.5)
    write_trusting_gate(tmp_path / "user" / "own_gate", ["here", "gone"])
    restorer = Restorer("cpu")
    for _ in range(2):
        assert list(restorer.plan(Modality.PHOTO, Options(gate="own_gate")).experts) == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "own_gate calls gone, which is not there: where that should act, others do or none; put it back, or let "
        "the gate forget it by `sasm bundles remove gone`"
    ]


def test_a_folder_for_a_name_is_told_the_way() -> None:
    with pytest.raises(BundleError, match=r"no expert named '/my/own'; .*name it: trust=\['/my/own'\]$"):
        Restorer("cpu").expert("/my/own")


@pytest.mark.parametrize("image", [np.zeros((3, 16, 16), np.float32), "photo.png"])
def test_an_array_or_a_path_is_told_how_to_become_an_image(shelf: Path, tmp_path: Path, image: object) -> None:
    told = rf"Volume.from_array\(ARRAY, AFFINE, modality=...\), got {type(image).__name__}"
    with pytest.raises(TypeError, match=told):
        Restorer()(image)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=told):
        save(image, tmp_path / "a.png")  # type: ignore[arg-type]


def test_a_notebook_shows_an_image_and_a_result_on_one_line(shelf: Path) -> None:
    scan = Volume(np.zeros((1, 4, 5, 6), np.float32), Modality.CT, np.diag([0.7, 0.7, 3, 1]), 2, "scan")
    assert repr(scan) == "Volume('scan', CT in HU, (1, 4, 5, 6), 0.7 x 0.7 x 3 mm, regular)"
    result = Restorer()(photo(), keep_maps=True)
    assert repr(result) == (
        "Restored(Volume('image', PHOTO in sRGB, (3, 16, 16), regular), changed=True, "
        f"weights={result.summary['weights']}, maps=['weights', 'change'])"
    )
    assert "Conv" not in repr(result.plan)
    assert (result == result, result == replace(result)) == (True, False)
    assert len({result, result}) == 1
