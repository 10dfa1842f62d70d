"""What the server can do follows from the bundles that are there; what a request may say follows from the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_sasm.bundles import DEFAULT_GATE
from monai_sasm.errors import BundleError
from monai_sasm.label.models import models
from monai_sasm.label.requests import extension_of, options_of, parameters
from monai_sasm.restoration.options import Options
from tests.bundle_cases import clean_image, save
from tests.toy_bundles import write_bundle, write_gain_expert, write_trusting_gate


@pytest.fixture(autouse=True)
def empty_house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("monai_sasm.bundles.finding.shipped_folder", lambda: tmp_path / "shipped")
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "mine"))


def write_segmenter(folder: Path, section: dict[str, Any], channel_def: dict[str, str], channels: int = 1) -> Path:
    root = write_bundle(folder, "network_def: {_target_: torch.nn.Identity}", {"role": "segmenter", **section}, {})
    path = root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text()) | {
        "network_data_format": {
            "inputs": {"image": {"num_channels": channels}}, "outputs": {"pred": {"channel_def": channel_def}},
        }
    }  # fmt: skip
    path.write_text(json.dumps(metadata))
    return root


def test_roles_make_the_list(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write_gain_expert(mine / "mri_a", 2, "MR")
    write_gain_expert(mine / "mri_b", 2, "MR", "low-resolution")
    write_bundle(mine / "whole", "", {"role": "pipeline"}, {})
    write_segmenter(mine / "heart", {"modality": "MR"}, {"0": "background", "1": "left ventricle"})
    assert [model.name for model in models()] == ["heart", "mri_a", "mri_b"]  # nothing that needs a gate
    write_trusting_gate(mine / DEFAULT_GATE, ["mri_a"])
    found = {model.name: model for model in models()}
    assert list(found) == ["heart", "restore_then_heart", "mri_a", "mri_b", "whole_mr"]
    assert found["mri_b"].expert == "mri_b"
    assert found["whole_mr"].choices == ("mri_a", "mri_b")
    assert found["heart"].labels == {"left ventricle": 1}
    assert not found["heart"].restores
    assert found["restore_then_heart"].restores
    (mine / "mri_b" / "models" / "model.pt").unlink()
    assert "mri_b" not in [model.name for model in models()]


def test_labels_of_overlapping_regions_are_named_apart(tmp_path: Path) -> None:
    regions = {"0": "tumour core", "1": "whole tumour", "2": "enhancing tumour"}
    section = {"modality": "MR", "labels": {"1": "necrosis", "2": "oedema", "4": "enhancing tumour"}}
    write_segmenter(tmp_path / "mine" / "tumour", section, regions, channels=2)
    model = models()[0]
    assert model.labels == {"necrosis": 1, "oedema": 2, "enhancing tumour": 4}
    assert model.channels == 2


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    write_gain_expert(tmp_path / "mine" / "mri_a", 2, "MR")
    write_bundle(tmp_path / "mine" / "whole", "", {"role": "pipeline"}, {})
    write_trusting_gate(tmp_path / "mine" / DEFAULT_GATE, ["mri_a"])
    return next(model for model in models() if model.name == "whole_mr")


def test_what_a_viewer_shows_is_what_it_may_send_back(pipeline: Any) -> None:
    shown = parameters(pipeline)
    assert shown == {"strength": 1.0, "sigma": "", "target_noise": "", "expert": ["gate", "mri_a"]}
    assert options_of(pipeline, shown) == Options()
    assert options_of(pipeline, {"strength": "0.5", "sigma": 20, "passes": "2", "expert": "mri_a"}) == Options(
        expert="mri_a", strength=0.5, sigma=20.0, passes=2
    )


def test_the_server_may_be_given_another_gate(pipeline: Any, tmp_path: Path) -> None:
    from monai_sasm.label.service import InferenceService

    write_gain_expert(tmp_path / "mine" / "mri_b", 3, "MR")
    write_trusting_gate(tmp_path / "mine" / "z_gate", ["mri_b"])
    image = save(clean_image("MR"), "MR", tmp_path / "in")
    used = {}
    for gate, request in ((None, {}), ("z_gate", {}), ("z_gate", {"expert": "mri_a"})):
        service = InferenceService("cpu", gate=gate)
        path, report = service.prepare(pipeline, {"image": str(image), **request})(lambda _: None)
        path.unlink()
        used[gate, request.get("expert")] = set(report["models"])
    assert used == {
        (None, None): {DEFAULT_GATE, "mri_a"}, ("z_gate", None): {"z_gate", "mri_b"}, ("z_gate", "mri_a"): {"mri_a"},
    }  # fmt: skip
    with pytest.raises(BundleError, match="no gate named 'absent'; available: gate_mobilenet, z_gate"):
        models(gate="absent")


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"strength": "full"}, {"sigma": "nan"}, {"expert": "other"}])
def test_wrong_parameters_are_refused(pipeline: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        options_of(pipeline, wrong)


def test_extensions(pipeline: Any) -> None:
    assert extension_of(pipeline, {}) is None
    assert extension_of(pipeline, {"result_extension": ".NRRD", "result_dtype": "uint8"}) == ".nrrd"
    with pytest.raises(ValueError, match=r"written as .nii.gz"):
        extension_of(pipeline, {"result_extension": ".jpg"})


def test_a_segmenter_of_another_number_of_images_says_so(tmp_path: Path) -> None:
    import numpy as np

    from monai_sasm.io.volume import Volume
    from monai_sasm.label.segmenting import Segmenter
    from monai_sasm.types import Modality

    root = write_segmenter(tmp_path / "mine" / "tumour", {"modality": "MR"}, {}, channels=2)
    steps = "preprocessing: []\ninferer: null\npostprocessing: {_target_: monai.transforms.Compose, transforms: []}\n"
    with open(root / "configs" / "inference.yaml", "a") as file:
        file.write("\n" + steps)
    segmenter = Segmenter(root, torch.device("cpu"))
    with pytest.raises(ValueError, match="takes 2 image"):
        segmenter(Volume(np.zeros((1, 4, 4, 4), np.float32), Modality.MR, np.eye(4), 2))
