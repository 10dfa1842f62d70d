"""scripts/mean_weights.py: the mean of the weights of several trainings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.data import CHECKOUT

SCRIPT = CHECKOUT / "scripts" / "mean_weights.py"


def mean_of(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path, value in zip(paths, (1.0, 3.0), strict=True):
        torch.save({"weight": torch.full((2, 3), value).half(), "batches": torch.tensor(int(10 * value))}, path)
    return paths


@pytest.mark.parametrize(("shares", "wanted"), [((), 2.0), (("--shares", "0.75", "0.25"), 1.5)])
def test_weights_are_averaged_and_counts_are_not(
    files: list[Path], tmp_path: Path, shares: tuple[str, ...], wanted: float
) -> None:
    done = mean_of(*files, *shares, "-o", tmp_path / "mean.pt")
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "mean.pt", weights_only=True)
    torch.testing.assert_close(found["weight"], torch.full((2, 3), wanted).half(), rtol=0, atol=0)
    assert int(found["batches"]) == 10


def test_other_networks_other_shares_and_existing_files_are_refused(files: list[Path], tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    output = tmp_path / "mean.pt"
    assert "weights of different networks" in mean_of(files[0], tmp_path / "other.pt", "-o", output).stderr
    assert "together 1, got [0.5, 0.6]" in mean_of(*files, "--shares", "0.5", "0.6", "-o", output).stderr
    assert not output.exists()
    before = files[1].read_bytes()
    assert "exists" in mean_of(*files, "-o", files[1]).stderr
    assert files[1].read_bytes() == before
