"""Imports run downhill: a room may import only rooms of a lower layer; importing the package costs next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_sasm"
LAYERS = [
    {"errors", "optional", "types"},
    {"degradations", "io"},
    {"functional"},
    {"datasets", "diffusion", "gate", "losses", "transforms"},
    {"experts", "refine"},
    {"bundles"},
    {"restoration"},
    {"batch", "training"},
    {"evaluation", "recipes"},
    {"protocols"},
    {"label", "node", "slicer"},
    {"view"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
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
        if LEVEL[other] >= LEVEL[room]:
            found.append(f"{room} must not import {module}")
    return found


def test_imports_run_downhill() -> None:
    files = [path for path in FILES if path != PACKAGE / "__init__.py"]  # it names its rooms as strings
    assert [v for path in files for v in violations(room_of(path), modules_imported(path.read_text()))] == []


def test_the_rule_can_fail() -> None:
    assert violations("gate", {"monai_sasm.experts.unet"}) == ["gate must not import monai_sasm.experts.unet"]
    assert violations("types", {"monai_sasm.restoration.restore.restore"})
    assert violations("functional", {"monai_sasm.gate.routing.route"})
    assert not violations("functional", {"monai_sasm.io.volume.Volume"})
    assert modules_imported("def f():\n    from monai_sasm.web import app") == {"monai_sasm.web.app"}  # lazy ones, too


def test_every_room_stands_in_one_layer() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(LEVEL)
    assert sum(len(rooms) for rooms in LAYERS) == len(LEVEL)


def test_no_file_has_a_shapeless_name() -> None:
    found = [path for path in PACKAGE.rglob("*") if path.stem.lower() in SHAPELESS_NAMES]
    assert not found, "name the idea, or put the function below its only caller"


def test_files_stay_readable() -> None:
    long = {str(path.relative_to(PACKAGE)) for path in FILES if len(path.read_text().splitlines()) > 400}
    assert not long, "one idea per file; split it"


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


def test_a_dry_run_loads_no_network_and_no_library_of_other_formats(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"BM" + bytes(60))
    code = (
        "import sys; from monai_sasm.cli.main import main\n"
        "try:\n    main(['restore', sys.argv[1], '-o', 'out', '--dry-run'])\n"
        "finally:\n    print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    loaded = {module.split(".")[0] for module in result.stdout.splitlines()[-1].split()}
    assert "numpy" in loaded, result.stderr
    assert not loaded & {"torch", "monai", "pydicom", "nibabel"}
