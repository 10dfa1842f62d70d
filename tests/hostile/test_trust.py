"""Bundles from strangers: their configurations can run code, so none is looked into unless somebody trusts its folder;
weights run nothing, whoever made them.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import monai_sasm
from monai_sasm import bundles
from monai_sasm.errors import BundleError
from tests.command import sasm as run
from tests.data import CHECKOUT
from tests.hostile.test_folders import write
from tests.toy_bundles import write_gain_expert

STRANGER = "stranger_photo"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """A file that is there once somebody's code has run."""
    return tmp_path / "owned"


@pytest.fixture
def stranger(tmp_path: Path, owned: Path) -> Path:
    """A folder with an expert whose configuration runs code when its network is asked for."""
    bundle = write_gain_expert(tmp_path / "download" / STRANGER, 0.5)
    config = bundle / "configs" / "inference.yaml"
    code = f"$__import__('pathlib').Path('{owned.as_posix()}').touch() or 3"
    config.write_text(config.read_text().replace("in_channels: 3", f'in_channels: "{code}"'))
    write("png.png", tmp_path / "download" / "a.png")
    return bundle.parent


@pytest.fixture
def sasm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in a folder of strangers: exit code and stderr."""
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))

    def call(*arguments: Any) -> tuple[int, str]:
        return run(*arguments, "--device", "cpu"), capsys.readouterr().err

    return call


@pytest.mark.parametrize("name", [STRANGER, f"./{STRANGER}", f"download/{STRANGER}", f"../download/{STRANGER}"])
def test_a_strangers_bundle_is_not_run(
    name: str, stranger: Path, owned: Path, sasm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stranger)
    out = stranger.parent / "out"
    for command in (("restore", stranger, "-o", out), ("batch", stranger, out)):
        code, told = sasm(*command, "--expert", name)
        assert code == 2
        assert f"no expert named '{name}'" in told
        assert "Traceback" not in told
    with pytest.raises(BundleError, match="no bundle named"):
        bundles.load(name)
    assert not owned.exists()


def test_a_trusted_one_is(stranger: Path, owned: Path, sasm: Command) -> None:
    """The code above would have run; and one trusts a folder, not a name."""
    bundles.available([stranger])
    assert not owned.exists()
    out = stranger.parent / "out"
    assert sasm("restore", stranger / "a.png", "-o", out, "--expert", STRANGER, "--trust", stranger)[0] == 0
    assert owned.exists()


class Payload:
    """Runs code when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_run_no_code(legacy: bool, tmp_path: Path, owned: Path, sasm: Command) -> None:
    bundle = write_gain_expert(tmp_path / "download" / "toy_photo", 0.5)
    weights = bundle / "models" / "model.pt"
    torch.save({"weight": Payload(owned)}, weights, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BundleError, match="holds more than numbers"):
        bundles.load(bundle)
    image = write("png.png", tmp_path / "a.png")
    code, told = sasm("restore", image, "-o", tmp_path / "out", "--expert", "toy_photo", "--trust", bundle.parent)
    assert (code, "Traceback" in told) == (2, False)
    assert "holds more than numbers" in told
    assert not owned.exists()
    torch.load(weights, weights_only=False)
    assert owned.exists()  # it would have


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_damaged_weights_are_named(content: bytes, tmp_path: Path) -> None:
    bundle = write_gain_expert(tmp_path / "toy_photo", 0.5)
    (bundle / "models" / "model.pt").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.pt"):
        bundles.load(bundle)


def test_nothing_is_ever_unpickled() -> None:
    """``torch.load`` always with ``weights_only=True``, ``numpy.load`` never with ``allow_pickle``, no ``pickle``."""
    package = Path(monai_sasm.__file__).parent
    found = 0
    for path in [*package.rglob("*.py"), *(CHECKOUT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            called = ast.unparse(node.func)
            if called == "torch.load":
                found += 1
                assert given.get("weights_only") == "True", f"{path}:{node.lineno}"
            assert called not in ("pickle.load", "pickle.loads", "joblib.load"), f"{path}:{node.lineno}"
            assert "allow_pickle" not in given, f"{path}:{node.lineno}"
    assert found >= 5
