"""``scripts/benchmark.py``: options that would be ignored, and devices that are not there, are refused."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.data import CHECKOUT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "--throughput"], "--memory does not take --throughput"),
        (["--memory", "--output", "x"], "--memory does not take --output"),
        (["--throughput", "--data", "x", "--no-peers"], "--throughput does not take --data, --no-peers"),
        (["--slices", "0"], "--slices must be at least 1"),
    ],
)
def test_what_would_be_ignored_is_refused(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *options])
    for name in ("memory.peak_memory", "stages.network_rate", "stages.stage_times"):
        monkeypatch.setattr(f"monai_sasm.evaluation.{name}", lambda *_, **__: pytest.fail("it measures"))
    monkeypatch.setattr("monai_sasm.protocols.evaluate.evaluate", lambda *_, **__: pytest.fail("it measures"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / "scripts" / "benchmark.py"), run_name="__main__")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--throughput"], ["--memory"]])
def test_a_device_that_is_not_there_is_one_line(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "cuda", *options])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / "scripts" / "benchmark.py"), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "benchmark.py: device 'cuda' is not there; choose one of auto, cpu\n"
