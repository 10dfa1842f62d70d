"""What `sasm view` and `sasm label-server` are started with is seen before they serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_sasm.cli import label
from monai_sasm.cli.main import main
from monai_sasm.restoration.restorer import torch_device
from monai_sasm.view import serving

WRONG = {
    "device": (["--device", "foo"], "device 'foo' is not there; choose one of auto, cpu"),
    "number": (["--device", "cpu:foo"], "device 'cpu:foo' is none; choose cpu or one by its number"),
    "gate": (["--gate", "foo"], "no gate named 'foo'; available: gate_mobilenet"),
}


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command that must not come to serving; gives exit code, stdout and stderr."""
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))
    monkeypatch.setattr(serving, "serve", lambda *arguments, **keywords: pytest.fail("it serves"))
    monkeypatch.setattr(label.os, "execv", lambda *arguments: pytest.fail("it serves"))
    monkeypatch.setattr(label, "find_spec", lambda name: name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        return end.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("command", [["view", "--no-open"], ["label-server", "."]])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_there_is_one_line(ended, command: list[str], wrong: str) -> None:
    arguments, told = WRONG[wrong]
    code, out, err = ended(*command, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert told in err


def test_a_precision_that_is_none(ended) -> None:
    code, out, err = ended("view", "--no-open", "--precision", "foo")
    assert (code, out) == (2, "")
    assert "Invalid value for '--precision'" in err


def test_an_output_that_is_a_file(ended, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    code, out, err = ended("view", "--no-open", "-o", "afile")
    assert (code, out, err) == (2, "", "sasm: afile is a file; name a folder\n")


def test_a_gpu_beyond_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"'cuda:2' is not there; the last one is cuda:1"):
        torch_device("cuda:2")
