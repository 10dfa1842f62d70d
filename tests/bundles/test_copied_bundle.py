"""A copy of a bundle is a bundle: whatever runs its configuration runs its own weights."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run, verify_metadata

from monai_sasm.bundles import available, bundle_root, load, new_bundle, read_metadata
from monai_sasm.errors import BundleError
from monai_sasm.io.formats import open_images
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.bundle_cases import BUNDLES, ROOT, SCHEMA, clean_image, degraded_image
from tests.bundle_cases import load as load_image
from tests.bundle_cases import save as save_image
from tests.command import sasm

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
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: neither the checkout nor a bundle."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))
    return tmp_path / "elsewhere"


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


def test_a_new_bundle_is_complete_and_claims_nothing(tmp_path: Path) -> None:
    root = new_bundle("my_ct", "lowdose_ct_unet", tmp_path / "mine")
    assert root == tmp_path / "mine" / "my_ct"
    assert list((tmp_path / "mine").iterdir()) == [root]
    verify_metadata(meta_file=str(root / "configs" / "metadata.json"), filepath=str(SCHEMA))
    metadata, shipped = read_metadata(root), read_metadata(SHIPPED)
    assert (metadata["name"], metadata["version"], metadata["changelog"], metadata["eval_metrics"]) == (
        "my_ct", "0.0.1", {"0.0.1": f"Copy of lowdose_ct_unet {shipped['version']}, not trained yet"}, {},
    )  # fmt: skip
    kept = {key: value for key, value in shipped["sasm"].items() if key != "range"}  # that of the shipped weights
    assert metadata["sasm"] == kept | {"copy_of": f"lowdose_ct_unet {shipped['version']}"}
    readme = (root / "docs" / "README.md").read_text()
    assert "rewrite this file" in readme
    assert "PSNR" not in readme
    assert "|" not in readme
    assert (root / "LICENSE").read_text() == (SHIPPED / "LICENSE").read_text()
    assert (root / "models" / "model.pt").read_bytes() == (SHIPPED / "models" / "model.pt").read_bytes()
    assert "lowdose_ct_unet" not in "".join(path.read_text() for path in (root / "configs").glob("*.yaml"))


def test_thin_slices_of_a_copy_are_made_by_its_own_weights(tmp_path: Path) -> None:
    root = new_bundle("my_mri", "superres_mri_unet", tmp_path)
    house = Restorer(trust=[root])
    weights = [house.expert("my_mri", thinning=thinning).sha256 for thinning in (False, True)]
    assert weights[0] == weights[1] != house.expert("superres_mri_unet", thinning=True).sha256


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", "/a", "a.b", "-a", "_a", "a b", "ä", "a\n", "clean", "Gate", "input", "x" * 65],
)
def test_silly_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bundle's name has at most 64 letters"):
        new_bundle(name, "lowdose_ct_unet", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    for name in ("noise_mri_unet", "Noise_MRI_unet"):
        with pytest.raises(FileExistsError, match="a bundle of that name exists already"):
            new_bundle(name, "lowdose_ct_unet", mine)
    with pytest.raises(BundleError, match=r"'phrenology' is no bundle; available: .*lowdose_ct_unet"):
        new_bundle("my_ct", "phrenology", mine)
    assert not mine.exists()
    (mine / "my_ct").mkdir(parents=True)
    (mine / "linked").symlink_to(tmp_path / "nowhere")
    for name in ("my_ct", "linked"):
        with pytest.raises(FileExistsError, match="exists already; remove it or choose another name"):
            new_bundle(name, "lowdose_ct_unet", mine)
    assert sorted(path.name for path in mine.iterdir()) == ["linked", "my_ct"]
    assert list((mine / "my_ct").iterdir()) == []

    user = tmp_path / "user"
    monkeypatch.setenv("SASM_BUNDLES", str(user))
    second = new_bundle("second_ct", new_bundle("first_ct", "lowdose_ct_unet", user), user)
    assert read_metadata(second)["sasm"]["copy_of"] == "first_ct 0.0.1"
    assert available()["second_ct"] == second


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_no_copy_writes_where_a_shipped_bundle_writes(bundle: Path, tmp_path: Path) -> None:
    taken = {line for one in BUNDLES for path in one.rglob("*.yaml") for line in outputs(path)}
    root = new_bundle("mine", bundle.name, tmp_path)
    own = [line for path in root.rglob("*.yaml") for line in outputs(path)]
    assert not taken & set(own)
    assert len(own) == len([line for path in bundle.rglob("*.yaml") for line in outputs(path)])


def outputs(config: Path) -> list[str]:
    """Lines that name a default folder of training or evaluation."""
    return [line for line in config.read_text().splitlines() if re.match("output_dir: .*(runs|evaluation)/", line)]


def test_a_copied_refiner_does_not_become_the_default(tmp_path: Path) -> None:
    root = new_bundle("z_refiner", "refine_photo_flow", tmp_path / "mine")
    assert "default" not in read_metadata(root)["sasm"]


@pytest.fixture
def mine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A bundle made by the command line, whose own weights change nothing."""
    assert sasm("bundles", "new", "my_ct", "--from", "lowdose_ct_unet", "-o", tmp_path / "mine") == 0
    told = capsys.readouterr()
    assert Path(told.out.strip()) == tmp_path / "mine" / "my_ct"
    for command in ("sasm restore", "configs/train.yaml", "sasm bundles check", "sasm evaluate", "sasm bundles add"):
        assert command in told.err
    return silence(Path(told.out.strip()))


@pytest.mark.slow
def test_a_new_bundles_weights_run_through_monai(mine: Path, source: Path, elsewhere: Path) -> None:
    options = {"config_file": mine / "configs" / "inference.yaml", "dataset_dir": source, "output_dir": "out"}
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(elsewhere), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(load_image(elsewhere / "out" / source.name), load_image(source))


def test_a_new_experts_weights_run_through_restore(mine: Path, source: Path, tmp_path: Path) -> None:
    common = ("--modality", "CT", "--device", "cpu", "--trust", mine)
    assert sasm("restore", source, "-o", tmp_path / "mine_out", "--expert", "my_ct", *common) == 0
    assert sasm("restore", source, "-o", tmp_path / "shipped_out", "--expert", "lowdose_ct_unet", *common) == 0
    np.testing.assert_array_equal(load_image(tmp_path / "mine_out" / source.name), load_image(source))
    assert not np.array_equal(load_image(tmp_path / "shipped_out" / source.name), load_image(source))


def test_a_new_experts_weights_are_evaluated(mine: Path, source: Path, tmp_path: Path) -> None:
    save_image(clean_image("CT"), "CT", tmp_path / "pairs" / "clean")
    shutil.copytree(source.parent, tmp_path / "pairs" / "noisy")
    chosen = ("--bundle", "lowdose_ct_unet", "--bundle", mine, "--trust", mine, "--device", "cpu")
    assert sasm("evaluate", *chosen, "--data", tmp_path / "pairs", "-o", tmp_path / "table") == 0
    with next((tmp_path / "table").glob("*.csv")).open(newline="") as rows:
        errors = {row["method"]: row["RMSE"] for row in csv.DictReader(rows)}
    assert errors["my_ct"] == errors["input"]
    assert errors["lowdose_ct_unet"] != errors["input"]


def test_the_gate_calls_what_is_there_in_an_experts_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An expert replaced under its own name, by the user's folder; and a gate of one's own, by its name."""
    volume = next(iter(open_images(source, Modality.CT)))
    before = volume.array.copy()
    assert not np.array_equal(Restorer("cpu")(volume).volume.array, before)
    user = tmp_path / "user"
    shutil.copytree(SHIPPED, user / SHIPPED.name)
    silence(user / SHIPPED.name)
    monkeypatch.setenv("SASM_BUNDLES", str(user))
    np.testing.assert_array_equal(Restorer("cpu")(volume).volume.array, before)

    gate = new_bundle("my_gate", "gate_mobilenet", tmp_path / "mine")
    state = torch.load(gate / "models" / "model.pt", weights_only=True)
    state["head.weight"], state["head.bias"] = torch.zeros_like(state["head.weight"]), state["head.bias"].clone()
    state["head.bias"][0] = 1e4  # always the identity
    torch.save(state, gate / "models" / "model.pt")
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))
    restorer = Restorer("cpu", trust=[gate])
    assert "my_gate" in restorer.plan(Modality.CT, Options(gate="my_gate")).models
    np.testing.assert_array_equal(restorer(volume, gate="my_gate").volume.array, before)
    assert not np.array_equal(restorer(volume).volume.array, before)


def test_training_writes_under_the_new_name_and_starts_from_its_own_weights(mine: Path, tmp_path: Path) -> None:
    train, evaluate = (str(mine / "configs" / f"{name}.yaml") for name in ("train", "evaluate"))
    weights = str(mine / "models" / "model.pt")
    workflow = ConfigWorkflow(config_file=train, workflow_type="train", initial_weights=weights, device="cpu")
    workflow.initialize()
    assert workflow.parser["output_dir"] == "./runs/my_ct"
    network = workflow.parser.get_parsed_content("network")
    assert not network.tail.weight.any()
    assert ConfigParser.load_config_file(evaluate)["output_dir"] == "./evaluation/my_ct"
    measured = ConfigWorkflow(config_file=[train, evaluate], workflow_type="train", device="cpu")
    measured.add_property("weights", required="yes", config_id="weights")
    measured.initialize()
    assert measured.weights == weights


def _first(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class Smoothing(torch.nn.Module):
    """A network of somebody's own: blends with the mean around each pixel as far as the noise it is told; 0 if none."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(5.0))

    def forward(self, image: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        share = (self.gain * sigma).clamp(max=1) if sigma is not None else 0
        return image + share * (torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False) - image)


@pytest.fixture
def own_network(tmp_path: Path) -> Path:
    """A copy with another network under ``network_def``."""
    root = new_bundle("own_ct", "lowdose_ct_unet", tmp_path)
    config = root / "configs" / "inference.yaml"
    text = re.sub(
        r"network_def: \{.*?\n(?=network:)",
        "network_def: {_target_: tests.bundles.test_copied_bundle.Smoothing}\n",
        config.read_text(),
        flags=re.DOTALL,
    )
    config.write_text(text)
    torch.save(Smoothing().state_dict(), root / "models" / "model.pt")
    return root


def test_a_network_of_ones_own_is_told_the_noise_by_monai_too(own_network: Path, source: Path, tmp_path: Path) -> None:
    assert changed(str(own_network / "configs" / "inference.yaml"), source, tmp_path / "monai", precision="float32")
    (volume,) = open_images(source, "CT")
    restorer = Restorer("cpu", trust=[own_network], precision="float32")
    restorer(volume, expert="own_ct").save(tmp_path / "sasm")
    assert np.abs(load_image(tmp_path / "sasm" / source.name) - load_image(tmp_path / "monai" / source.name)).max() <= 1


@pytest.mark.parametrize(
    ("origin", "config"),
    [("lowdose_ct_unet", "inference"), ("lowdose_ct_unet", "train"), ("noise_photo_unet", "train")],
)
def test_another_modality_in_the_metadata_alone_is_refused(
    origin: str, config: str, source: Path, tmp_path: Path
) -> None:
    root = new_bundle("own_mr", origin, tmp_path)
    path = root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["sasm"]["modality"] = "MR"
    path.write_text(json.dumps(metadata))
    with pytest.raises(RuntimeError) as caught:
        run(config_file=str(root / "configs" / f"{config}.yaml"), dataset_dir=str(source.parent), output_dir="out")
    reads = "PHOTO" if "photo" in origin else "CT"
    assert f"reads {reads}, and sasm.modality of the bundle's metadata is MR" in str(_first(caught.value))
    assert not Path("out").exists()
