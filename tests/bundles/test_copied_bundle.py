"""A copy of a bundle is a bundle: whatever runs its configuration runs its own weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run

from monai_sasm.bundles import bundle_root, load
from monai_sasm.errors import BundleError
from tests.bundle_cases import ROOT, clean_image, degraded_image
from tests.bundle_cases import load as load_image
from tests.bundle_cases import save as save_image

SHIPPED = ROOT / "bundles" / "lowdose_ct_unet"


def silence(bundle: Path) -> Path:
    """Zero the last layer of a residual network: it gives each image back as it is, to the last bit."""
    weights = bundle / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    for key in ("tail.weight", "tail.bias"):
        state[key] = torch.zeros_like(state[key])
    torch.save(state, weights)
    return bundle


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy under another name, whose own weights change nothing."""
    return silence(Path(shutil.copytree(SHIPPED, tmp_path / "my_ct")))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A CT at low dose, which the shipped weights change."""
    return save_image(degraded_image("CT", "low-dose", clean_image("CT")), "CT", tmp_path / "in", slices=1)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: neither the checkout nor a bundle."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))


def changed(config: object, source: Path, output: Path, **options: object) -> bool:
    """Whether a run of a configuration changes the image."""
    run(config_file=config, dataset_dir=str(source), output_dir=str(output), **options)
    return not np.array_equal(load_image(output / source.name), load_image(source))


def test_a_copy_runs_its_own_weights(copy: Path, source: Path, tmp_path: Path) -> None:
    assert changed(str(SHIPPED / "configs" / "inference.yaml"), source, tmp_path / "shipped")
    assert not changed(str(copy / "configs" / "inference.yaml"), source, tmp_path / "absolute")
    assert not changed("../my_ct/configs/inference.yaml", source, tmp_path / "relative")


def test_a_copy_runs_from_within_itself(copy: Path, source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(copy / "configs")
    assert not changed("inference.yaml", source, tmp_path / "out")
    monkeypatch.chdir(copy)
    assert not changed("configs/inference.yaml", source, tmp_path / "out2")


def test_an_overlay_from_anywhere_leaves_the_root_alone(copy: Path, source: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("chunk: 1\n")
    config = [str(copy / "configs" / "inference.yaml"), str(overlay)]
    assert not changed(config, source, tmp_path / "out")


def test_a_given_root_wins(copy: Path, source: Path, tmp_path: Path) -> None:
    shipped = str(SHIPPED / "configs" / "inference.yaml")
    assert not changed(shipped, source, tmp_path / "out", bundle_root=str(copy))


def test_workflows_of_two_bundles_do_not_mix(copy: Path) -> None:
    both = [
        ConfigWorkflow(config_file=str(root / "configs" / "inference.yaml"), workflow_type="infer")
        for root in (copy, SHIPPED)
    ]
    for workflow in both:
        workflow.initialize()
    assert [workflow.bundle_root for workflow in both] == [str(copy), str(SHIPPED)]
    workflow = ConfigWorkflow(config_file=str(copy / "configs" / "train.yaml"), workflow_type="train")
    workflow.initialize()
    assert workflow.bundle_root == str(copy)


def test_where_the_folder_cannot_be_known_nothing_runs(copy: Path, source: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(copy / "configs" / "inference.yaml"))
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("bundle_root")
    assert isinstance(caught.value.__cause__, BundleError)
    assert "no workflow runs one: set bundle_root" in str(caught.value.__cause__)
    with pytest.raises(BundleError, match="no workflow runs one"):
        bundle_root()

    stray = shutil.copy(copy / "configs" / "inference.yaml", tmp_path / "stray.yaml")
    with pytest.raises(RuntimeError) as caught:
        changed(str(stray), source, tmp_path / "out")
    assert "not the configs folder of a bundle" in str(_first(caught.value))
    assert not (tmp_path / "out").exists()


class Nested(torch.nn.Module):
    """A network of which a part is another bundle, read by a parser of its own while a workflow is running."""

    def __init__(self, config: str) -> None:
        super().__init__()
        parser = ConfigParser()
        parser.read_config(config)
        self.root = parser.get_parsed_content("bundle_root")


def test_a_parser_inside_a_workflow_does_not_take_the_workflows_folder(copy: Path) -> None:
    other = str(SHIPPED / "configs" / "inference.yaml")
    config = [str(copy / "configs" / "inference.yaml")]
    workflow = ConfigWorkflow(
        config_file=config, network_def={"_target_": "tests.bundles.test_copied_bundle.Nested", "config": other}
    )
    workflow.add_property("net", required="yes", config_id="network_def")
    workflow.initialize()
    with pytest.raises(RuntimeError) as caught:
        workflow.net  # noqa: B018
    assert "no workflow runs one" in str(_first(caught.value))


def test_loading_takes_the_folder_it_is_given(copy: Path) -> None:
    bundle, shipped = load(copy), load(SHIPPED)
    image = torch.rand(1, 1, 40, 40)
    assert torch.equal(bundle.restore(image), image)
    assert not torch.equal(shipped.restore(image), image)
    assert (bundle.name, bundle.sha256 != shipped.sha256) == ("my_ct", True)


def _first(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
