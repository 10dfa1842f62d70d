"""Configurations that are none, and weights that are not those that were shipped: named, never a traceback."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from monai_sasm import bundles
from monai_sasm.bundles import shipped
from monai_sasm.cli.main import main
from monai_sasm.errors import BundleError
from tests.data import CHECKOUT
from tests.toy_bundles import write_gain_expert

CONTENTS = {
    "bytes": b"\xff\xfe\x00", "list": b"- 1\n- 2", "number": b"3", "nothing": b"", "open": b"{", "deep": b"[" * 5000,
    "code": b"a: !!python/object/apply:os.system ['touch owned']", "no network": b"network_def: 3",
    "nowhere": b"network_def:\n  _target_: nowhere.Nothing", "no name": b"network_def: {_target_: 3}",
    "circle": b"a: &a [*a]\nnetwork_def: *a", "tab": b"\t- x", "reference": b"network_def: '@nowhere'",
    "error": b"network_def: '$1/0'", "key": b"? [1,2]\n: 3", "null": b"null", "list of layers": b"network_def: []",
    "arguments": b"network_def: {_target_: torch.nn.Conv2d}", "zero": b"\x00", "ends": b"bundle_root: [",
}  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_configuration_that_is_none_is_named(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_gain_expert(tmp_path / "trust" / "toy_photo", 0.5)
    (root / "configs" / "inference.yaml").write_bytes(content)
    with pytest.raises(BundleError, match=r"inference\.yaml"):
        bundles.load(root)
    picture = tmp_path / "a.tif"
    tifffile.imwrite(picture, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(picture), "-o", str(tmp_path / "out"), "--trust", str(root.parent), "--expert", root.name])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "inference.yaml" in told
    assert "Traceback" not in told
    assert not list(Path.cwd().glob("owned"))


def test_the_list_of_shipped_weights_is_right() -> None:
    spec = importlib.util.spec_from_file_location("list_weights", CHECKOUT / "scripts" / "list_weights.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.listed(CHECKOUT / "bundles")
    assert len(found) > 15
    assert json.loads(shipped.LIST.read_text()) == found, "weights have changed: scripts/list_weights.py"


def test_other_weights_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = "noise_mri_unet"
    shutil.copytree(CHECKOUT / "bundles" / name, tmp_path / name)
    monkeypatch.setattr("monai_sasm.bundles.loading.shipped_folder", lambda: tmp_path)
    weights = tmp_path / name / "models" / "model.pt"
    assert bundles.load(tmp_path / name).sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "are not those" not in caplog.text
    content = bytearray(weights.read_bytes())
    content += b"\0"  # a zip archive may end with a comment
    monkeypatch.setattr(shipped, "shipped_weights", lambda: {f"{name}/model.pt": hashlib.sha256(content).hexdigest()})
    bundles.load(tmp_path / name)
    assert f"the weights of {name}/model.pt are not those that this version came with" in caplog.text


@pytest.mark.parametrize("options", [["--strength", "0"], ["--expert", "toy_photo", "--strength", "0"]])
def test_strength_0_is_the_input_to_the_last_bit(options: list[str], trust: Path, tmp_path: Path) -> None:
    """Grey photos of floats, on their way through three channels and back."""
    grey = np.random.default_rng(0).random((70, 90), np.float32)
    colour = np.random.default_rng(1).random((70, 90, 3), np.float32)
    (tmp_path / "in").mkdir()
    for name, pixels in (("grey", grey), ("colour", colour)):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", pixels)
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--trust", str(trust), "-q", *options])
    assert not ended.value.code
    for name, pixels in (("grey", grey), ("colour", colour)):
        found = tifffile.imread(tmp_path / "out" / f"{name}.tif")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, pixels)
