"""Laws over every bundle folder: complete, described as MONAI asks, loadable, and runnable from any directory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run, verify_metadata, verify_net_in_out

import monai_sasm
from monai_sasm.bundles import read_metadata
from monai_sasm.evaluation.report import installed_versions, tables
from monai_sasm.evaluation.summary import summary
from monai_sasm.evaluation.tasks import LINES
from tests.bundle_cases import BUNDLES, ROOT, SCHEMA, clean_image, degraded_image, load, save
from tests.tiny_upscaler import write_pipeline
from tests.toy_gate import write_stand_ins

REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.yaml",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
TRAINABLE = ("configs/train.yaml", "configs/train_cpu.yaml")
EXPERT = ("configs/evaluate.yaml", "configs/multi_gpu_train.yaml", *TRAINABLE)
LARGEST = 8e6  # bytes of weights per bundle
GAIN = {
    "noise": 1.0,
    "low-dose": 1.0,
    "raindrop": 0.4,
    "low-resolution": 0.3,
}  # least improvement of a trained expert, dB

all_bundles = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
experts = pytest.mark.parametrize(
    "bundle",
    [path for path in BUNDLES if '"expert"' in (path / "configs" / "metadata.json").read_text()],
    ids=lambda path: path.name,
)


def section(bundle: Path) -> dict[str, Any]:
    """The ``sasm`` section of a bundle's metadata."""
    return json.loads((bundle / "configs" / "metadata.json").read_text())["sasm"]


def network_of(bundle: Path, **overrides: Any) -> torch.nn.Module:
    """The bundle's network with fresh weights."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.yaml"))
    parser["bundle_root"] = str(bundle)
    for key, value in overrides.items():
        parser[f"network_def::{key}"] = value
    return parser.get_parsed_content("network_def")


def weights_of(bundle: Path) -> Path:
    """``models/model.pt``; the test is an expected failure while the bundle is not trained."""
    weights = bundle / "models" / "model.pt"
    if not weights.is_file():
        pytest.xfail(f"{bundle.name} has no trained weights yet: models/model.pt is missing")
    return weights


def identity_copy(bundle: Path, folder: Path) -> Path:
    """A copy of an expert whose weights change nothing: what comes out then is due to reading and writing alone."""
    copy = folder / bundle.name
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("models"))
    (copy / "models").mkdir()
    torch.save(network_of(bundle, zero_init=True).state_dict(), copy / "models" / "model.pt")
    return copy


def restored(bundle: Path, source: Path, output: Path) -> Path:
    """Run ``inference.yaml`` on one file in this process; returns the result's path."""
    config = str(bundle / "configs" / "inference.yaml")
    run(config_file=config, bundle_root=str(bundle), dataset_dir=str(source), output_dir=str(output))
    return output / source.name


def test_there_are_bundles_and_experts() -> None:
    assert {"noise_photo_unet", "raindrop_photo_unet", "lowdose_ct_unet", "noise_mri_unet"} <= {p.name for p in BUNDLES}


@all_bundles
def test_files_are_there(bundle: Path) -> None:
    role, required = section(bundle)["role"], REQUIRED
    if (trainer := section(bundle).get("trained_by")) is not None:  # one family, one training configuration
        assert (bundle.parent / trainer["bundle"] / "configs" / trainer["overlay"]).is_file()
    elif role == "expert":
        required += EXPERT
    elif section(bundle).get("hub") is None and role in ("gate", "refiner", "classifier"):
        required += TRAINABLE  # weights of the hub are trained elsewhere
    assert [name for name in required if not (bundle / name).is_file()] == []
    assert not (bundle / "scripts").exists(), "code belongs in the package: scripts/ of two bundles would clash"
    assert "Apache License" in (bundle / "LICENSE").read_text()


@all_bundles
def test_weights_have_the_licence_of_their_data(bundle: Path) -> None:
    licence, told = section(bundle)["weights_license"], (bundle / "docs" / "data_license.txt").read_text()
    assert f"Licence: {licence}\n" in told
    head = (bundle / "LICENSE").read_text().split("Apache License")[0]
    ours = licence == "Apache-2.0" or section(bundle).get("hub")
    assert ours or licence in head, "who reads LICENSE alone must not take the weights for Apache-2.0"
    restricted = ("non-commercial", "research use", "BY-NC", "state none")
    data = told.split("Data\n----")[1].lower()
    assert any(word.lower() in data for word in restricted) == (
        licence in ("LicenseRef-research-only", "CC-BY-NC-SA-3.0")
    )


@all_bundles
def test_metadata_name_this_package_and_measured_numbers(bundle: Path) -> None:
    metadata, readme = read_metadata(bundle), (bundle / "docs" / "README.md").read_text()
    assert metadata["required_packages_version"]["monai_sasm"] == monai_sasm.__version__
    told = {float(number) for number in re.findall(r"(?<![\w.])\d*\.\d+", readme)}
    given = {key: value for key, value in metadata["eval_metrics"].items() if isinstance(value, float)}
    given.pop("psnr_gain_db", None)  # a difference of two numbers
    assert set(given.values()) <= told, "eval_metrics must be numbers of docs/README.md"


@all_bundles
def test_gains_are_those_of_the_first_page_of_the_results(bundle: Path) -> None:
    """What ``sasm bundles list`` says of an expert is what README and docs/RESULTS.md say."""
    metrics, name = read_metadata(bundle)["eval_metrics"], bundle.name
    told = [line for line in LINES if (line.expert, line.task) == (name, metrics.get("measured_on"))]
    assert [line.gain.protocol for line in told] == ([metrics["table"]] if "psnr_gain_db" in metrics else [])
    if told:
        page = summary(tables(SCHEMA.parents[1] / "docs" / "results"), installed_versions())
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
        (gain,) = [cells[2] for cells in rows if cells[0] == told[0].task and cells[1].startswith(f"`{name}`")]
        assert gain.startswith(f"{metrics['psnr_gain_db']:+.2f} dB")
    if section(bundle)["role"] == "expert":
        assert told or "psnr_gain_db" not in metrics


@all_bundles
def test_metadata_follow_the_schema(bundle: Path) -> None:
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(SCHEMA))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", None), ("network_data_format", {"inputs": {}}), ("sasm", {"role": "expert"}), ("numpy_version", 2)],
)
def test_the_schema_refuses_wrong_metadata(tmp_path: Path, key: str, value: Any) -> None:
    metadata = json.loads((BUNDLES[0].parent / "noise_photo_unet" / "configs" / "metadata.json").read_text())
    metadata[key] = value
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


@all_bundles
def test_network_takes_and_gives_what_the_metadata_say(bundle: Path, tmp_path: Path) -> None:
    configs = bundle / "configs"
    stand_in = {"model": str(write_pipeline(tmp_path)), "variant": ""} if "hub" in section(bundle) else {}
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.yaml"),
        bundle_root=str(bundle),
        any=32,
        **stand_in,
    )


@experts
def test_inference_has_the_properties_monai_asks_for(bundle: Path, tmp_path: Path) -> None:
    save(clean_image(section(bundle)["modality"]), section(bundle)["modality"], tmp_path)
    config = str(bundle / "configs" / "inference.yaml")
    workflow = ConfigWorkflow(config_file=config, workflow_type="infer", dataset_dir=str(tmp_path))
    workflow.initialize()
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 1


@experts
def test_noise_map_is_declared_as_the_network_is(bundle: Path) -> None:
    image = torch.rand(1, 3 if section(bundle)["modality"] == "PHOTO" else 1, 40, 56)
    network = network_of(bundle).eval()
    for weight in network.parameters():
        if not weight.any():  # a transformer starts with gates that are shut
            torch.nn.init.normal_(weight, std=0.1)
    with torch.inference_mode():
        low, high = (network(image, torch.full((1, 1, 40, 56), sigma)) for sigma in (0.0, 0.5))
    assert (not torch.equal(low, high)) == section(bundle)["noise_map"]


@all_bundles
def test_trained_weights_fit_the_network(bundle: Path) -> None:
    weights = weights_of(bundle)
    if section(bundle)["role"] == "pipeline" or "hub" in section(bundle):
        assert not network_of(bundle).state_dict(), "weights stay in other bundles, or in the hub's cache"
        assert torch.load(weights, weights_only=True) == {}
        return
    assert weights.stat().st_size <= LARGEST
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network_of(bundle).load_state_dict(state, strict=True)
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())


@experts
def test_inference_keeps_everything_but_the_pixels(bundle: Path, tmp_path: Path) -> None:
    modality = section(bundle)["modality"]
    source = save(clean_image(modality), modality, tmp_path / "in", slices=3)
    result = restored(identity_copy(bundle, tmp_path), source, tmp_path / "out")
    np.testing.assert_array_equal(load(result), load(source))
    if modality != "PHOTO":
        before, after = nibabel.load(source), nibabel.load(result)
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.get_data_dtype() == before.get_data_dtype()
        assert after.header.get_zooms() == before.header.get_zooms()


@experts
def test_trained_expert_improves_a_degraded_image(bundle: Path, tmp_path: Path) -> None:
    weights_of(bundle)
    modality, degradation = section(bundle)["modality"], section(bundle)["degradation"]
    clean = clean_image(modality)
    truth = load(save(clean, modality, tmp_path / "clean"))
    source = save(degraded_image(modality, degradation, clean), modality, tmp_path / "in")
    result = load(restored(bundle, source, tmp_path / "out"))
    before, after = (float(np.mean((image - truth) ** 2)) for image in (load(source), result))
    assert 10 * np.log10(before / after) >= GAIN[degradation]


@experts
def test_servers_can_use_the_parts_alone(bundle: Path, tmp_path: Path) -> None:
    """As MONAI Label does: transforms, inferer and network by their names, and a plain path."""
    modality = section(bundle)["modality"]
    source = save(clean_image(modality), modality, tmp_path, slices=2)
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.yaml"))
    before, infer, after = (parser.get_parsed_content(key) for key in ("preprocessing", "inferer", "postprocessing"))
    data = before({"image": str(source), "image_path": str(source)})
    with torch.inference_mode():
        data["pred"] = infer(data["image"][None], network_of(bundle, zero_init=True).eval())[0]
    restored_image = after(data)["pred"]
    # a diffusion model scales its input and back again, which costs the last digit of a float32
    np.testing.assert_allclose(restored_image.numpy(), data["image_source"].volume.array, rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(restored_image.affine.numpy(), data["image"].affine.numpy())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source], "nothing is saved"


@pytest.mark.slow
def test_inference_runs_from_any_directory(tmp_path: Path) -> None:
    bundle = identity_copy(ROOT / "bundles" / "lowdose_ct_unet", tmp_path)
    source = save(clean_image("CT"), "CT", tmp_path / "in", slices=2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = {"config_file": bundle / "configs" / "inference.yaml", "bundle_root": bundle, "dataset_dir": "../in"}
    command = [sys.executable, "-m", "monai.bundle", "run", "--output_dir", "out"]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(load(elsewhere / "out" / "image.nii.gz"), load(source))


def test_images_of_another_modality_are_refused(tmp_path: Path) -> None:
    save(clean_image("PHOTO"), "PHOTO", tmp_path / "in")
    bundle = identity_copy(ROOT / "bundles" / "lowdose_ct_unet", tmp_path)
    with pytest.raises(RuntimeError) as caught:
        restored(bundle, tmp_path / "in", tmp_path / "out")
    assert "no CT image to restore" in str(caught.value.__cause__)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh weights for the parts of the pipeline that are not trained yet."""
    parts = [path.name for path in BUNDLES if section(path)["role"] in ("expert", "gate")]
    return write_stand_ins(tmp_path_factory.mktemp("stand_ins"), parts)


@pytest.fixture(autouse=True)
def complete_house(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(stand_ins))
