"""A new expert joins: the re-fitted head knows it, and remembers the others."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_sasm.bundles import default_gate, gate_classes, load
from monai_sasm.cli.main import main
from monai_sasm.errors import BundleError
from monai_sasm.restoration.restore import mixing_weights
from monai_sasm.restoration.restorer import Restorer, classes_of
from monai_sasm.training.gate_copy import REHEARSAL_FILE, GateHead, remove_bundle, without
from monai_sasm.training.gate_head import add_bundle, fit_head
from monai_sasm.types import Modality
from tests.bundle_cases import ROOT
from tests.toy_bundles import write_gain_expert
from tests.toy_gate import copy_bundle, photos, write_gate, write_stand_ins

DIM = 0.35  # what is left of the light
EXPERTS = ("noise_photo_unet", "raindrop_photo_unet", "lowdose_ct_unet", "noise_mri_unet")


def save_photo(image: np.ndarray, path: Path) -> None:
    """``(3, H, W)`` uint8 as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.transpose(1, 2, 0)).save(path)


def dimmed(image: np.ndarray) -> np.ndarray:
    """Less light, 8 bit."""
    return np.round(image * DIM).astype(np.uint8)


def example_folder(folder: Path) -> Path:
    """Clean photos and their dimmed partners."""
    for number, photo in enumerate(photos()):
        for part, piece in enumerate((photo[:, :96], photo[:, :, :112])):
            save_photo(piece, folder / "clean" / f"{number}-{part}.png")
            save_photo(dimmed(piece), folder / "noisy" / f"{number}-{part}.png")
    return folder


def shipped_hashes() -> dict[str, str]:
    """Every file of the shipped bundles, by content."""
    files = sorted(path for path in (ROOT / "bundles").rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.parts[-2] == "configs"}


def rows(count: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Two features, of which the first tells class 0 from class 1; class 2 is forbidden."""
    features = torch.randn(count, 2, generator=generator)
    target = torch.zeros(count, 3)
    target[torch.arange(count), (features[:, 0] > 0).long()] = 1
    allowed = torch.tensor([True, True, False]).expand(count, 3)
    return {"features": features * torch.tensor([5.0, 0.1]) + 3, "target": target, "allowed": allowed}


def test_fit_recovers_a_separable_problem() -> None:
    training, fresh = (rows(400, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    weight, bias = fit_head(training, torch.zeros(3, 2), torch.zeros(3))
    predicted = (fresh["features"] @ weight.T + bias)[:, :2].argmax(1)
    assert float((predicted == fresh["target"].argmax(1)).float().mean()) > 0.97
    assert torch.equal(weight[2], torch.zeros(2)), "a class that no row allows stays where it was"


def test_fit_leaves_a_right_head_alone() -> None:
    """Targets that the old head gives itself are the optimum: a converged head must not wander off."""
    training = rows(400, torch.Generator().manual_seed(0))
    weight, bias = torch.tensor([[0.2, 1.0], [-0.3, 0.5], [0.1, 0.0]]), torch.tensor([0.3, -0.2, 0.0])
    logits = (training["features"] @ weight.T + bias).masked_fill(~training["allowed"], -1e4)
    new_weight, new_bias = fit_head(training | {"target": torch.softmax(logits, 1)}, weight, bias)
    again = (training["features"] @ new_weight.T + new_bias).masked_fill(~training["allowed"], -1e4)
    torch.testing.assert_close(torch.softmax(again, 1), torch.softmax(logits, 1), atol=2e-3, rtol=0)


def test_a_constant_feature_gets_no_weight() -> None:
    training = rows(100, torch.Generator().manual_seed(0))
    training["features"][:, 1] = 0.1
    weight, _ = fit_head(training, torch.zeros(3, 2), torch.zeros(3))
    assert float(weight[:, 1].abs().max()) < 1e-2


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A user folder to which an expert for dimmed photos was added."""
    root = tmp_path_factory.mktemp("joined")
    user = root / "user"
    before = shipped_hashes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SASM_BUNDLES", str(user))
        write_gate(user)
        write_stand_ins(user, EXPERTS)
        expert = write_gain_expert(root / "dim_photo_toy", gain=1 / DIM)
        gate = add_bundle(expert, example_folder(root / "examples"))
        restorer = Restorer("cpu")
    assert shipped_hashes() == before
    return {"gate": gate, "user": user, "expert": expert, "restorer": restorer}


def test_the_new_gate_is_a_whole_bundle(joined: dict[str, Path]) -> None:
    old, new = (json.loads((r / "configs" / "classes.json").read_text()) for r in (_shipped(), joined["gate"]))
    assert joined["gate"] == joined["user"] / "gate_mobilenet_extended"
    assert new == [*old, "dim_photo_toy"]
    assert load(joined["gate"]).network.classes == tuple(new)
    metadata = json.loads((joined["gate"] / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == len(new)
    assert metadata["sasm"]["extends"] == "gate_mobilenet"
    assert (joined["user"] / "dim_photo_toy" / "models" / "model.pt").is_file()
    rehearsal = torch.load(joined["gate"] / "models" / REHEARSAL_FILE, weights_only=True)
    assert {len(value) for value in rehearsal.values()} == {len(rehearsal["target"])}
    assert rehearsal["target"].shape[1] == rehearsal["allowed"].shape[1] == len(new)
    assert sorted(path.name for path in joined["user"].iterdir() if path.name.startswith("tmp")) == []


@pytest.mark.parametrize(("number", "part"), [(0, 0), (1, 1), (2, 0)])
def test_the_new_gate_calls_the_new_expert_where_it_helps(joined: dict, number: int, part: int) -> None:
    clean = photos()[number][:, 32:, :96] if part else photos()[number][:, 24:120, 32:]
    weights = {}
    for name, image in (("clean", clean), ("dimmed", dimmed(clean))):
        tensor = torch.from_numpy(image.astype(np.float32) / 255)[None]
        sigma = joined["restorer"].noise_estimator(tensor)
        mean = mixing_weights(tensor, sigma, joined["restorer"].plan(Modality.PHOTO)).mean((0, 2, 3))
        weights[name] = dict(zip(joined["restorer"].gate.network.classes, mean.tolist(), strict=True))
    assert max(weights["clean"], key=weights["clean"].get) == "clean"
    assert max(weights["dimmed"], key=weights["dimmed"].get) == "dim_photo_toy"


def test_the_extended_gate_is_the_default_because_it_is_named(joined: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(joined["user"]))
    assert joined["restorer"].gate.name == default_gate() == "gate_mobilenet_extended"
    assert (joined["user"] / "default_gate.txt").read_text() == "gate_mobilenet_extended\n"
    old = json.loads((joined["user"] / "gate_mobilenet" / "configs" / "classes.json").read_text())
    assert gate_classes(joined["user"] / "gate_mobilenet") == old
    assert classes_of(Restorer("cpu").require_gate("gate_mobilenet")) == tuple(old)


@pytest.fixture
def user(joined: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the user's bundle folder, which a test may change."""
    user = tmp_path / "user"
    shutil.copytree(joined["user"], user)
    monkeypatch.setenv("SASM_BUNDLES", str(user))
    return user


@pytest.mark.slow
def test_what_was_extended_is_extended_further_and_never_lost(
    user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expert = write_gain_expert(tmp_path / "darker_photo_toy", gain=1 / DIM)
    examples = example_folder(tmp_path / "examples")
    with pytest.raises(FileExistsError, match=r"gate_mobilenet_extended exists already; extend it \(gate_name="):
        add_bundle(expert, examples, steps=2, gate_name="gate_mobilenet")
    assert not (user / expert.name).exists()
    with pytest.raises(SystemExit) as ended:
        main(["bundles", "add", str(expert), "--examples", str(examples), "--steps", "2"])
    told = capsys.readouterr()
    assert (ended.value.code or 0, told.out) == (0, f"{user / 'gate_mobilenet_extended'}\n")
    assert "gate_mobilenet_extended extends gate_mobilenet by darker_photo_toy" in told.err
    assert "it is the default gate now; `sasm bundles gate gate_mobilenet` goes back" in told.err
    assert gate_classes(user / "gate_mobilenet_extended")[-2:] == ["dim_photo_toy", "darker_photo_toy"]

    elsewhere = tmp_path / "elsewhere"
    expert.rename(tmp_path / "dusky_photo_toy")
    arguments = ["bundles", "add", str(tmp_path / "dusky_photo_toy"), "--examples", str(examples), "--steps", "2"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--gate", "gate_mobilenet", "-o", str(elsewhere)])
    assert f"use it by --gate gate_mobilenet_extended --trust {elsewhere}" in capsys.readouterr().err
    assert sorted(path.name for path in elsewhere.iterdir()) == ["dusky_photo_toy", "gate_mobilenet_extended"]
    assert len(gate_classes(user / "gate_mobilenet_extended")) == 1 + len(EXPERTS) + 2


def rehearsed(gate: Path) -> dict[str, torch.Tensor]:
    return torch.load(gate / "models" / REHEARSAL_FILE, weights_only=True)


def test_an_expert_is_not_replaced_unasked(joined: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(joined["user"]))
    with pytest.raises(FileExistsError, match="'dim_photo_toy' exists already; replace it by overwrite=True"):
        add_bundle(joined["expert"], tmp_path)
    shipped = write_gain_expert(tmp_path / "noise_photo_unet", gain=2.0)
    with pytest.raises(FileExistsError, match=r"'noise_photo_unet' exists already, .*; rename the new one"):
        add_bundle(shipped, tmp_path, tmp_path / "elsewhere", overwrite=True)


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_expert_is_learnt_anew(user: Path, tmp_path: Path, by_hand: bool) -> None:
    before = rehearsed(user / "gate_mobilenet_extended")
    if by_hand:
        shutil.rmtree(user / "dim_photo_toy")
    retrained = write_gain_expert(tmp_path / "dim_photo_toy", gain=7.0)
    (retrained / "new.txt").write_text("retrained")
    arguments = ["bundles", "add", str(retrained), "--examples", str(example_folder(tmp_path / "examples"))]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--steps", "2", *([] if by_hand else ["--overwrite"])])
    assert not ended.value.code
    assert (user / "dim_photo_toy" / "new.txt").read_text() == "retrained"
    gate = user / "gate_mobilenet_extended"
    assert gate_classes(gate) == [*gate_classes(_shipped()), "dim_photo_toy"], "once, not twice"
    assert load(gate).network.head.weight.shape[0] == len(gate_classes(gate))
    after = rehearsed(gate)
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in before.items()}
    assert torch.equal(after["target"], before["target"]), "the same examples, not twice as many"
    assert not [path for path in user.iterdir() if path.name.startswith((".", "tmp"))]


def test_an_expert_is_learnt_anew_by_the_gate_that_calls_it(user: Path, tmp_path: Path) -> None:
    """The gate that was extended is the default again, or named: the extension is still the one to learn."""
    examples = str(example_folder(tmp_path / "examples"))
    retrained = write_gain_expert(tmp_path / "dim_photo_toy", gain=7.0)
    (retrained / "new.txt").write_text("retrained")
    arguments = ["bundles", "add", str(retrained), "--examples", examples, "--steps", "2", "--overwrite"]
    for command in (["bundles", "gate", "gate_mobilenet"], arguments, [*arguments, "--gate", "gate_mobilenet"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert not ended.value.code
    assert (user / "dim_photo_toy" / "new.txt").read_text() == "retrained"
    assert gate_classes(user / "gate_mobilenet_extended") == [*gate_classes(_shipped()), "dim_photo_toy"]
    assert default_gate() == "gate_mobilenet_extended"
    other = write_gain_expert(tmp_path / "dusk_photo_toy", gain=2.0)
    with pytest.raises(FileExistsError, match="gate_mobilenet_extended exists already"):
        add_bundle(other, Path(examples), steps=2, gate_name="gate_mobilenet", overwrite=True)


def test_a_removed_expert_is_forgotten(
    joined: dict, user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped, gate = gate_classes(_shipped()), user / "gate_mobilenet_extended"
    add_bundle(write_gain_expert(tmp_path / "dusk_photo_toy", gain=2), example_folder(tmp_path / "examples"), steps=2)
    two, weight = rehearsed(gate), load(gate).network.head.weight.detach().clone()
    for arguments in (["remove", "dim_photo_toy"], ["list"]):
        with pytest.raises(SystemExit) as ended:
            main(["bundles", *arguments])
        assert not ended.value.code
        assert "calls dim_photo_toy" not in capsys.readouterr().err.replace("no longer calls dim_photo_toy", "")
    assert not (user / "dim_photo_toy").exists()
    assert gate_classes(gate) == [*shipped, "dusk_photo_toy"]
    left = [index for index in range(len(shipped) + 2) if index != len(shipped)]
    assert torch.equal(load(gate).network.head.weight, weight[left]), "the others are told apart as before"
    one, kept = rehearsed(gate), two["owner"] != len(shipped)
    assert 0 < kept.sum() < len(kept)
    assert torch.equal(one["features"], two["features"][kept])
    assert torch.equal(one["owner"], two["owner"][kept].clamp_max(len(shipped)))
    assert default_gate() == "gate_mobilenet_extended"

    with pytest.raises(SystemExit) as ended:
        main(["bundles", "remove", "dusk_photo_toy"])
    assert not ended.value.code
    told = capsys.readouterr().err
    assert "gate_mobilenet_extended no longer calls dusk_photo_toy\ndefault gate: gate_mobilenet, calls" in told
    assert default_gate() == "gate_mobilenet"
    assert {path.name for path in user.iterdir()} == {
        path.name for path in joined["user"].iterdir() if path.name.startswith(("gate_mobilenet", *EXPERTS))
    } - {"gate_mobilenet_extended"}


@pytest.mark.parametrize("name", ["noise_photo_unet", "dim_photo_toy/..", "nothing"])
def test_only_what_was_added_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path))
    write_gain_expert(tmp_path / "dim_photo_toy", gain=2)
    with pytest.raises(BundleError, match=r"no bundle named .*; it has dim_photo_toy"):
        remove_bundle(name)
    assert (tmp_path / "dim_photo_toy" / "models").is_dir()


def test_the_default_gate_is_never_one_that_is_gone(user: Path) -> None:
    assert default_gate() == "gate_mobilenet_extended"
    assert remove_bundle("gate_mobilenet_extended") == []
    assert default_gate() == "gate_mobilenet"


def test_the_default_gate_may_have_been_deleted_by_hand(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(user / "gate_mobilenet_extended")
    with pytest.raises(SystemExit) as ended:
        main(["bundles", "remove", "dim_photo_toy"])
    assert not ended.value.code
    assert not (user / "dim_photo_toy").exists()
    assert "no gate named 'gate_mobilenet_extended', which" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["bundles", "remove", "gate_mobilenet_extended"])
    assert not ended.value.code
    assert default_gate() == "gate_mobilenet"
    assert "default gate: gate_mobilenet, calls" in capsys.readouterr().err
    with pytest.raises(BundleError, match="no bundle named 'gate_mobilenet_extended'"):
        remove_bundle("gate_mobilenet_extended")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "user"))
    gate = copy_bundle("gate_mobilenet", tmp_path / "user", width=8)
    (gate / "models" / REHEARSAL_FILE).unlink(missing_ok=True)
    expert = write_gain_expert(tmp_path / "toy", gain=2.0)
    with pytest.raises(BundleError, match=r"rehearsal_features.pt is missing.*forget the old classes"):
        add_bundle(expert, tmp_path)
    with pytest.raises(BundleError, match="role 'gate'; only bundles with role 'expert'"):
        add_bundle(gate, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("input", "none of clean, gate, input, got 'input'"),
        ("gate", "none of clean, gate, input, got 'gate'"),
        ("my expert; v2", "letters, digits, '_' and '-'"),
        ("Lowdose_CT_unet", "a bundle named 'lowdose_ct_unet' exists already"),
    ],
)
def test_only_what_new_would_name_so_is_added(user: Path, tmp_path: Path, name: str, reason: str) -> None:
    expert = write_gain_expert(tmp_path / name, gain=1 / DIM)
    with pytest.raises((ValueError, FileExistsError), match=reason):
        add_bundle(expert, example_folder(tmp_path / "examples"))
    assert not (user / name).exists()
    assert name not in gate_classes(user / "gate_mobilenet_extended")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.full((3, 3, 1, 1), float("nan")), "bias": torch.zeros(3)}, "makes NaN or infinite values"),
        ({"weight": torch.ones(1, 1, 1, 1), "bias": torch.zeros(1)}, "does not fit the network"),
    ],
)
def test_what_does_not_run_is_not_added(
    user: Path, tmp_path: Path, state: dict[str, torch.Tensor], reason: str
) -> None:
    expert = write_gain_expert(tmp_path / "broken", gain=1 / DIM)
    torch.save(state, expert / "models" / "model.pt")
    with pytest.raises(BundleError, match=reason):
        add_bundle(expert, example_folder(tmp_path / "examples"))
    assert not (user / "broken").exists()
    assert "broken" not in gate_classes(user / "gate_mobilenet_extended")


def test_what_takes_only_some_sizes_is_not_added(user: Path, tmp_path: Path) -> None:
    expert = write_gain_expert(tmp_path / "blocks", gain=1.0)
    config = "network_def:\n  _target_: tests.training.test_gate_head.Blocks\n"
    (expert / "configs" / "inference.yaml").write_text(config)
    torch.save(Blocks().state_dict(), expert / "models" / "model.pt")
    with pytest.raises(BundleError, match=r"its shape \(1, 3, 61, 75\), got \(1, 3, 56, 72\)"):
        add_bundle(expert, example_folder(tmp_path / "examples"))


class Blocks(torch.nn.Sequential):
    """Gives back whole blocks of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.ConvTranspose2d(8, 3, 8, 8))


def _shipped() -> Path:
    return ROOT / "bundles" / "gate_mobilenet"


def test_a_class_that_is_there_twice_goes_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.eye(4).repeat(3, 1)
    owner = torch.tensor([0, 0, 2, 3] * 3)
    examples = {"features": torch.randn(12, 2, generator=generator), "target": target, "allowed": target >= 0}
    head = GateHead(torch.nn.Identity(), ("clean", "a", "b", "b"), torch.arange(8.0).view(4, 2), torch.arange(4.0), {  # type: ignore[arg-type]
        **examples, "owner": owner,
    })  # fmt: skip
    left = without(head, "b")
    assert left.classes == ("clean", "a")
    assert left.weight.tolist() == [[0, 1], [2, 3]]
    assert left.bias.tolist() == [0, 1]
    assert torch.equal(left.rows["features"], examples["features"][owner == 0])
    assert torch.equal(left.rows["target"], torch.eye(2).repeat(3, 1))
    assert left.rows["owner"].tolist() == [0] * 6
    assert left.rows["allowed"].shape == (6, 2)
