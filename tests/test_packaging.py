"""What ``pip install .`` puts on disk: every room, every bundle with its weights, and the versions that are tested."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from monai_sasm.errors import EXTRAS, reason_of

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "monai_sasm"
SHIPPED = {"LICENSE", "configs", "docs", "models"}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


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
    for name in ("monai_sasm", "bundles", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md"):
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
        assert "sasm = monai_sasm.cli.__main__:main" in archive.read(name).decode()


def test_the_version_has_one_source() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    versions = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"
    ]
    assert len(versions) == 1
    assert f"## {versions[0]}" in (ROOT / "CHANGELOG.md").read_text()
    assert pyproject()["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "monai_sasm.__version__"}
    assert pyproject()["project"]["dynamic"] == ["version"]


def names(requirements: list[str]) -> set[str]:
    """Canonical names of a requirement list, those of our own extras resolved."""
    extras, found = pyproject()["project"]["optional-dependencies"], set()
    for line in requirements:
        name = re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower().replace("_", "-")
        if name == "monai-sasm":
            found |= set().union(*(names(extras[extra]) for extra in line.partition("[")[2].rstrip("]").split(",")))
        else:
            found.add(name)
    return found


def test_constraints_pin_every_requirement() -> None:
    project = pyproject()["project"]
    pinned = names([line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("", "#")])
    extras = (names(value) for key, value in project["optional-dependencies"].items() if key != "label")
    assert not names(project["dependencies"]).union(*extras) - pinned


def test_the_core_is_light() -> None:
    heavy = {"simpleitk", "matplotlib", "tensorboard", "scikit-image", "scipy", "fire", "jsonschema", "einops"}
    core = names(pyproject()["project"]["dependencies"])
    assert not core & heavy
    assert "pylibjpeg-libjpeg" not in core.union(*map(names, pyproject()["project"]["optional-dependencies"].values()))


def test_every_requirement_is_in_the_list_of_licences() -> None:
    told = (ROOT / "THIRD_PARTY.md").read_text().lower()
    extras = pyproject()["project"]["optional-dependencies"]
    wanted = names(pyproject()["project"]["dependencies"]).union(
        *(names(value) for key, value in extras.items() if key not in ("dev", "docs", "test"))
    )
    assert {name for name in wanted if not re.search(rf"\b{re.escape(name)}\b", told)} == set()


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    distribution = {"skimage": "scikit-image", "ignite": "pytorch-ignite", "distributed": "dask"}
    for module, extra in EXTRAS.items():
        assert distribution.get(module, module).lower().replace("_", "-") in names(extras[extra]), module
    with pytest.raises(ImportError) as missing:
        import_module("skimage_is_not_here")
    assert "skimage_is_not_here" in reason_of(missing.value)
    error = ModuleNotFoundError("No module named 'skimage.restoration'", name="skimage.restoration")
    assert reason_of(error).endswith("pip install 'monai-sasm[evaluate]'")


def test_the_wheel_holds_what_the_readme_names(installed: Path) -> None:
    package = installed / "monai_sasm"
    assert {path.name for path in (package / "configs").iterdir()} == {
        path.name for path in (ROOT / "configs").iterdir()
    }
    assert (package / "label" / "environment.sh").is_file()
    assert (package / "label" / "constraints.txt").is_file()


@pytest.mark.parametrize("tool", ["twine check --strict", "check-wheel-contents"])
def test_the_wheel_is_fit_for_an_index(wheel: Path, tool: str) -> None:
    program, *options = tool.split()
    pytest.importorskip(program.replace("-", "_"))
    result = subprocess.run(
        [sys.executable, "-m", program.replace("-", "_"), *options, str(wheel)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_project_table_is_valid() -> None:
    api = pytest.importorskip("validate_pyproject.api")
    api.Validator()(pyproject())


def test_the_release_workflow_tests_what_the_metadata_promise() -> None:
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs, project = flow["jobs"], pyproject()["project"]
    promised = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    assert flow[True]["push"] == {"tags": ["v*"]}, "YAML reads `on` as true"
    assert flow["permissions"] == {"contents": "read"}
    assert set(jobs["publish"]["needs"]) == {"test", "zoo", "manual"}, "nothing is published untested"
    assert {name for name, job in jobs.items() if "permissions" in job} == {"publish", "pages"}
    wanted = {
        need
        for job in jobs.values()
        for need in [job.get("needs", [])]
        for need in ([need] if isinstance(need, str) else need)
    }
    assert wanted <= set(jobs)
    for name in ("build", "manual"):
        assert any("scripts/set_address.py" in step.get("run", "") for step in jobs[name]["steps"]), name


def test_actions_are_pinned_to_commits_with_their_versions_beside() -> None:
    for path in (ROOT / ".github" / "workflows").iterdir():
        for line in re.findall(r"uses: (.*)", path.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), f"{path.name}: {line}"


def test_requirements_are_what_the_code_imports() -> None:
    distribution = {
        "PIL": "pillow", "ignite": "pytorch-ignite", "skimage": "scikit-image", "yaml": "pyyaml",
    }  # fmt: skip
    project = pyproject()["project"]
    required = names(project["dependencies"])
    optional = set().union(*(names(value) for value in project["optional-dependencies"].values()))
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
                assert name in required | optional, f"{path.name} imports {module}, which pyproject.toml does not name"


def test_each_shipped_weight_is_small_enough() -> None:
    sizes = {path: path.stat().st_size for path in (ROOT / "bundles").glob("*/models/*.pt")}
    assert all(size <= 8e6 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 60e6
