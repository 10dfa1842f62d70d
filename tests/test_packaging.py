"""What ``pip install .`` puts on disk: every room, every bundle with its weights, and the versions that are tested."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_sasm"
SHIPPED = {"LICENSE", "configs", "docs", "models"}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def shipped_bundle_files() -> set[str]:
    """Paths below ``bundles/`` that an installed package must hold."""
    tracked = subprocess.run(["git", "ls-files", "bundles"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0 and tracked.stdout:
        paths = [Path(line) for line in tracked.stdout.splitlines() if (ROOT / line).is_file()]
    else:  # a source archive: everything in it is meant
        paths = [path.relative_to(ROOT) for path in (ROOT / "bundles").rglob("*") if path.is_file()]
    return {
        path.relative_to("bundles").as_posix() for path in paths if len(path.parts) > 2 and path.parts[2] in SHIPPED
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that no stale ``build/`` folder can help."""
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("monai_sasm", "bundles"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    (source / "dist").mkdir()
    result = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked into an empty folder, as pip lays it out."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_every_module_is_in_the_wheel(installed: Path) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*.py")}
    assert expected <= found, "add the room to [options] packages in setup.cfg"
    assert {path.split("/")[0] for path in found} == {"monai_sasm"}


def test_every_bundle_is_in_the_wheel(installed: Path) -> None:
    bundled = installed / "monai_sasm" / "bundled"
    found = {path.relative_to(bundled).as_posix() for path in bundled.rglob("*") if path.is_file()}
    expected = shipped_bundle_files()
    assert expected
    assert expected <= found


def test_the_viewers_page_is_in_the_wheel(wheel: Path, installed: Path) -> None:
    page = Path("monai_sasm/view/static")
    expected = {path.relative_to(ROOT) for path in (ROOT / page).rglob("*") if path.is_file()}
    assert page / "vendor/niivue.LICENSE" in expected
    assert {path.relative_to(installed) for path in (installed / page).rglob("*") if path.is_file()} == expected
    with zipfile.ZipFile(wheel) as archive:
        size = sum(one.compress_size for one in archive.infolist() if one.filename.startswith("monai_sasm/view/"))
    assert size <= 4e6


def test_the_installed_package_finds_its_own_bundles(installed: Path, tmp_path: Path) -> None:
    code = "from monai_sasm.bundles import shipped_folder; print(shipped_folder())"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(result.stdout.strip()).resolve() == (installed / "monai_sasm" / "bundled").resolve()


def test_the_entry_point_is_there(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "sasm = monai_sasm.cli.main:main" in archive.read(name).decode()


def test_the_version_has_one_source() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    versions = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"
    ]
    assert len(versions) == 1
    assert f"## {versions[0]}" in (ROOT / "CHANGELOG.md").read_text()
    assert setup_cfg()["metadata"]["version"] == "attr: monai_sasm.__version__"


def names(requirements: str) -> set[str]:
    """Canonical names of a requirement list."""
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    return {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower().replace("_", "-") for line in lines if line}


def test_constraints_pin_every_requirement() -> None:
    config = setup_cfg()
    pinned = names((ROOT / "constraints.txt").read_text())
    wanted = names(config["options"]["install_requires"])
    for extra in ("test", "dev", "diffusion", "lpips"):
        wanted |= names(config["options.extras_require"][extra])
    assert not wanted - pinned


def test_requirements_are_what_the_code_imports() -> None:
    distribution = {
        "PIL": "pillow", "ignite": "pytorch-ignite", "skimage": "scikit-image", "yaml": "pyyaml",
    }  # fmt: skip
    config = setup_cfg()
    required = names(config["options"]["install_requires"])
    optional = set().union(*(names(value) for value in config["options.extras_require"].values()))
    for path in PACKAGE.rglob("*.py"):
        if "slicer" in path.relative_to(PACKAGE).parts:
            continue  # runs in 3D Slicer's own Python, with what that brings
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for module in {module.split(".")[0] for module in modules} - {"monai_sasm", *sys.stdlib_module_names}:
                name = distribution.get(module, module.lower())
                assert name in required | optional, f"{path.name} imports {module}, which setup.cfg does not name"


def test_each_shipped_weight_is_small_enough() -> None:
    sizes = {path: path.stat().st_size for path in (ROOT / "bundles").glob("*/models/*.pt")}
    assert all(size <= 8e6 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 60e6
