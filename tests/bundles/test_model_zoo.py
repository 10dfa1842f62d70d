"""What MONAI's model zoo and Hugging Face's hub ask of a bundle, of every bundle.

``SASM_MODEL_ZOO=FOLDER``, a clone of Project-MONAI/model-zoo, runs the zoo's own ``ci/verify_bundle.py`` as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from monai_sasm.bundles import load
from scripts.hugging_face import LICENCES, card, lay_out
from tests.bundle_cases import BUNDLES, SCHEMA

ZOO = os.environ.get("SASM_MODEL_ZOO")
LARGEST = 8e6  # bytes of a file; the zoo wants larger ones listed in large_files.yml and kept elsewhere
VERIFY = """
import sys
sys.path.insert(0, "ci")
import bundle_custom_data
bundle_custom_data.exclude_verify_torchscript_list.append({name!r})  # recorded, not compiled: sasm bundles export
from verify_bundle import verify
verify({name!r}, "models", "full")
"""

all_bundles = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)


def metadata_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


@all_bundles
def test_the_directory_is_what_the_zoo_asks_for(bundle: Path) -> None:
    for name in ("LICENSE", "configs/metadata.json", "models/model.pt", "docs/README.md", "docs/data_license.txt"):
        assert (bundle / name).is_file(), name
    assert [path.suffix for path in bundle.glob("configs/inference.*")] == [".yaml"]
    assert not list(bundle.glob("large_files.*"))
    files = [path for path in bundle.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.name: path.stat().st_size for path in files if path.stat().st_size > LARGEST} == {}
    assert [path for path in files if path.is_symlink()] == []


@all_bundles
def test_versions_and_requirements_are_told(bundle: Path) -> None:
    metadata = metadata_of(bundle)
    assert metadata["version"] in metadata["changelog"]
    assert max(metadata["changelog"], key=lambda text: tuple(map(int, text.split(".")))) == metadata["version"]
    assert "monai_sasm" in metadata["required_packages_version"]
    assert {"eval_metrics", "intended_use", "references", "data_source"} <= set(metadata)
    served = metadata["sasm"]["role"] in ("expert", "pipeline", "segmenter")  # by the app for MONAI Label
    assert ("monai-label" in metadata.get("supported_apps", {})) == served


@all_bundles
def test_a_repository_of_the_hub_holds_the_bundle_and_a_card(bundle: Path, tmp_path: Path) -> None:
    folder = lay_out(bundle, tmp_path)
    for path in bundle.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (folder / path.relative_to(bundle)).read_bytes() == path.read_bytes()
    _, head, text = (folder / "README.md").read_text().split("---\n", maxsplit=2)
    facts, licence = yaml.safe_load(head), metadata_of(bundle)["sasm"]["weights_license"]
    assert facts["library_name"] == "monai"
    assert facts["license"] == LICENCES.get(licence, "other")
    if facts["license"] == "other":
        assert facts["license_name"] == "research-only"
        assert (folder / facts["license_link"]).is_file(), "who takes the weights must find their terms"
    assert "not a medical device" in text
    assert f"--name {bundle.name} --source huggingface_hub" in text
    with pytest.raises(FileExistsError):
        lay_out(bundle, tmp_path)


def test_a_bundle_without_weights_or_terms_is_not_laid_out(tmp_path: Path) -> None:
    copy = tmp_path / "lowdose_ct_unet"
    shutil.copytree(next(one for one in BUNDLES if one.name == copy.name), copy)
    (copy / "docs" / "data_license.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lowdose_ct_unet has no docs/data_license\.txt"):
        lay_out(copy, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_bundle_taken_from_the_hub_runs_its_own_weights(tmp_path: Path) -> None:
    """The folder that ``monai.bundle download`` leaves behind, loaded from where it lies."""
    bundle = next(one for one in BUNDLES if one.name == "lowdose_ct_unet")
    folder = lay_out(bundle, tmp_path)
    assert card(bundle) == (folder / "README.md").read_text()
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    name = next(iter(state))
    state[name] = state[name] + 1
    torch.save(state, folder / "models" / "model.pt")
    taken, shipped = (load(one, extra=(tmp_path,)).network.state_dict() for one in (folder, bundle.name))
    (key,) = (key for key in taken if key.endswith(name))
    torch.testing.assert_close(taken[key], state[name].float())
    assert set(taken) == set(shipped)


@pytest.mark.slow
@pytest.mark.skipif(not ZOO, reason="SASM_MODEL_ZOO names no clone of Project-MONAI/model-zoo")
@all_bundles
def test_the_zoos_own_check_passes(bundle: Path, tmp_path: Path) -> None:
    if "hub" in metadata_of(bundle)["sasm"]:
        pytest.skip("its weights lie on a hub and are not fetched by tests")
    shutil.copytree(Path(str(ZOO)) / "ci", tmp_path / "ci")
    target = tmp_path / "models" / bundle.name
    shutil.copytree(bundle, target)
    (target / "eval").mkdir()
    shutil.copy(SCHEMA, target / "eval" / "schema.json")  # the zoo's is fetched by its prepare_schema.py
    (tmp_path / "models" / "model_info.json").write_text("{}")
    command = (sys.executable, "-c", VERIFY.format(name=bundle.name))
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "data shape is verified correctly" in result.stdout
