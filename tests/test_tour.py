"""The tour runs from top to bottom, in minutes, on public names only, and is stored with small outputs."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.data import CHECKOUT

TOUR = CHECKOUT / "docs" / "tour.ipynb"
LARGEST = 1_000_000  # bytes with outputs
MINUTES = 10  # a busy machine; three on a quiet one


def sources() -> list[str]:
    """Code of all cells, without IPython's magic lines."""
    cells = nbformat.read(TOUR, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    return ["\n".join(line for line in source.splitlines() if not line.startswith("%")) for source in code]


def test_only_public_names_are_used() -> None:
    names: set[str] = set()
    for source in sources():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                names |= {*str(node.module).split("."), *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    assert "denoiser" in names, "the search must find what is there"
    assert not [name for name in names if name.startswith("_")]


def test_outputs_are_there_and_small() -> None:
    cells = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    pictures = [output for cell in cells for output in cell.outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) >= 8
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert TOUR.stat().st_size < LARGEST


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(TOUR, as_version=4)
    options: dict[str, Any] = {"timeout": 60 * MINUTES, "kernel_name": "python3"}
    ran = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, **options).execute()
    printed = "".join(
        output.text for cell in ran.cells for output in cell.get("outputs", []) if output.get("name") == "stdout"
    )
    table = printed[printed.index("PSNR") :].splitlines()[1:]
    psnr = {line[:28].strip(): float(line[28:]) for line in table}
    assert psnr["noisy"] == pytest.approx(20.3, abs=0.3)
    assert psnr["U-Net"] > psnr["noisy"] + 9
    assert psnr["DDPM, 1 step"] > psnr["noisy"] + 7
    assert "lies at t = 56" in printed
