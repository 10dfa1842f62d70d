"""Imports run downhill: a room may import only rooms of a lower layer; importing the package costs next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_sasm"
CLI = {path.stem for path in PACKAGE.glob("cli*.py")}  # one room in several files, one per command
LAYERS = [
    {"types", "optional", "reasons"},
    {"diffusion", "features", "neighbours"},
    {
        "io", "intensity", "noise", "gate", "experts", "mixing", "refine", "degradations", "transforms", "inferers",
        "losses", "metrics",
    },
    {"bundles", "dispatch", "layouts", "maps"},
    {"house", "refinement"},
    {"restore", "through_plane"},
    {"series", "pipeline"},
    {"training", "evaluation", "batch"},
    {"web", "label", "node", "slicer"},
    CLI,
    {"demo"},
]  # fmt: skip
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ALLOWED = {
    ("intensity", "io"): {"volume"},  # scaling is defined on a Volume
    ("experts", "degradations"): {"downsampling", "kspace"},  # restored is consistent with how it was measured
    ("evaluation", "batch"): None,  # subjects at scale are resumed and run as series are; and the batch itself is timed
    ("transforms", "degradations"): None,  # nor do they model a fault themselves
    ("transforms", "intensity"): None,
    ("transforms", "io"): None,  # a MONAI transform that reads or writes is a thin coat over io
}
SHAPELESS_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "core"}
HEAVY = {
    "torch",
    "monai",
    "diffusers",
    "transformers",
    "ignite",
    "torchvision",
    "scipy",
    "skimage",
    "matplotlib",
    "pydicom",
    "SimpleITK",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """First part of the path below the package, without suffix."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported(source: str) -> set[str]:
    """Dotted names a file imports, also inside functions and under TYPE_CHECKING."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return modules


def violations(room: str, modules: set[str]) -> list[str]:
    """Imports of ``room`` that run uphill or sideways."""
    found = []
    for module in sorted(modules):
        parts = module.split(".")
        if parts[0] != "monai_sasm" or len(parts) < 2 or parts[1] == room or parts[1] in {"__version__", "bundled"}:
            continue
        other = parts[1]
        if LEVEL[other] < LEVEL[room]:
            continue
        if room in CLI and other in CLI:
            continue
        if (room, other) in ALLOWED:
            only = ALLOWED[room, other]
            if only is None or (len(parts) > 2 and parts[2] in only):
                continue
        found.append(f"{room} must not import {module}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downhill(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # names its rooms as strings, and imports them on demand
    assert not violations(room_of(path), modules_imported(path.read_text()))


def test_the_rule_can_fail() -> None:
    assert violations("gate", {"monai_sasm.experts.unet"}) == ["gate must not import monai_sasm.experts.unet"]
    assert violations("types", {"monai_sasm.restoration.restore.restore"})
    assert violations("intensity", {"monai_sasm.io.nifti.nifti.read"})
    assert not violations("intensity", {"monai_sasm.io.volume.Volume"})
    assert modules_imported("def f():\n    from monai_sasm.web import app") == {"monai_sasm.web.app"}


def test_every_room_stands_in_one_layer() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(LEVEL)
    assert sum(len(rooms) for rooms in LAYERS) == len(LEVEL)


def test_no_file_has_a_shapeless_name() -> None:
    found = [path for path in PACKAGE.rglob("*") if path.stem.lower() in SHAPELESS_NAMES]
    assert not found, "name the idea, or put the function below its only caller"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, "one idea per file; split it"


@pytest.mark.parametrize(
    "statement",
    ["import monai_sasm", "import monai_sasm.types; monai_sasm.types.Modality.CT", "import monai_sasm.cli.main"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = {module.split(".")[0] for module in result.stdout.split()}
    assert not loaded & (HEAVY | {"numpy"})


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "monai_sasm.cli.main", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    trace = [line.rsplit("|", 1)[1] for line in result.stderr.splitlines() if line.count("|") == 2]
    loaded = {name.strip().split(".")[0] for name in trace}
    assert "typer" in loaded, "the import trace must be readable for this test to mean anything"
    assert not loaded & (HEAVY | {"numpy"})
    assert "restore" in result.stdout
