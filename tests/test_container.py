"""The container: no engine builds it here, so its recipe and manifests are read, and its command is run as it is."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from monai_sasm import __version__
from monai_sasm.batch.manifest import read
from monai_sasm.cli.main import main
from tests.batch.studies import write_studies

ROOT = Path(__file__).parents[1]
KNOWN = {"ARG", "FROM", "LABEL", "RUN", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
RELATIVE_MANIFEST = "/etc/holoscan/"

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """Name and arguments of each instruction of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages() -> list[list[Instruction]]:
    """Instructions of each build stage, from ``FROM`` on."""
    found: list[list[Instruction]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def value(stage: list[Instruction], name: str) -> str:
    """The last value of an instruction."""
    return [rest for found, rest in stage if found == name][-1]


def environment(stage: list[Instruction]) -> dict[str, str]:
    pairs = re.findall(r'(\w+)=("[^"]*"|\S+)', " ".join(rest for name, rest in stage if name == "ENV"))
    return {key: setting.strip('"') for key, setting in pairs}


def manifest(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "containers" / name).read_text())
    return content


def ignored(path: str) -> bool:
    """Whether ``.dockerignore`` leaves a path out: the last rule that matches it, or a folder above it, decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
            if any(fnmatch(candidate, pattern) for candidate in (above if "**" not in rule else parts)):
                out = not rule.startswith("!")
    return out


def test_every_instruction_is_known_and_bases_are_pinned() -> None:
    assert {name for name, _ in instructions()} <= KNOWN  # no ADD, which unpacks and fetches
    for stage in stages():
        base = stage[0][1].split()[0]
        assert ":" in base
        assert not base.endswith(":latest")
    assert ("ARG", "TORCH=cpu") in stages()[0], "the CUDA build is the same recipe with another argument"


def test_it_runs_without_privileges() -> None:
    final = stages()[-1]
    user = value(final, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "numbers, so that a cluster can prove it is not root"
    names = [name for name, _ in final]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert not re.search(r"sudo|chmod\s+777|curl|wget", (ROOT / "Dockerfile").read_text())
    assert "mercure would then insist on running the container as root" in (ROOT / "Dockerfile").read_text()
    assert not [rest for name, rest in final if name == "COPY" and "/etc/monai" in rest]


def test_packages_come_with_pinned_versions_and_no_cache() -> None:
    build = stages()[0]
    installs = [rest for name, rest in build if name == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in rest for rest in installs)
    assert environment(build)["PIP_NO_CACHE_DIR"] == "1"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    for name, rest in instructions():
        if name != "COPY" or rest.startswith("--from"):
            continue
        *sources, _ = rest.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source
    assert not ignored("bundles/noise_ct_unet/models/model.pt")
    for private in ("scans/patient.dcm", "demo_output/a.png", ".git/config", "monai_sasm/__pycache__/a.pyc", "tests"):
        assert ignored(private), private


def test_the_manifests_say_what_the_image_does() -> None:
    final = stages()[-1]
    app, package = manifest("app.json"), manifest("pkg.json")
    command = [*json.loads(value(final, "ENTRYPOINT")), *json.loads(value(final, "CMD"))]
    assert app["command"].split() == command
    assert app["type"] == "application"
    assert app["version"] == app["sdkVersion"] == package["version"] == __version__
    assert app["workingDirectory"].rstrip("/") == value(final, "WORKDIR")
    for name, setting in app["environment"].items():
        assert environment(final)[name] == setting
    for side in ("input", "output"):
        place = app["workingDirectory"] + app[side]["path"].rstrip("/")
        assert app["environment"][f"HOLOSCAN_{side.upper()}_PATH"] == place
        assert place in next(rest for name, rest in final if name == "RUN")
    assert package["applicationRoot"].rstrip("/") in environment(final)["PATH"]
    for memory in ("memory", "gpuMemory", "sharedMemory"):
        assert re.fullmatch(r"\d+[MG]i", package["resources"][memory])
    copied = [rest for name, rest in final if name == "COPY" and rest.endswith(RELATIVE_MANIFEST)]
    assert copied == [f"containers/app.json containers/pkg.json {RELATIVE_MANIFEST}"]


def test_the_command_of_the_image_restores_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_restorer: Any
) -> None:
    from monai_sasm.batch import work

    work._restorer.cache_clear()
    write_studies(tmp_path / "input", 2)
    (tmp_path / "output").mkdir()
    monkeypatch.setenv("HOLOSCAN_INPUT_PATH", str(tmp_path / "input"))
    monkeypatch.setenv("HOLOSCAN_OUTPUT_PATH", str(tmp_path / "output"))
    with pytest.raises(SystemExit) as ended:
        main(json.loads(value(stages()[-1], "CMD")))
    work._restorer.cache_clear()
    assert ended.value.code == 0
    assert [row["status"] for row in read(tmp_path / "output" / "manifest.jsonl")] == ["ok", "ok"]


def test_any_user_can_run_it_as_documented() -> None:
    """A bound folder that is missing is made by root, and users that the image does not know have no home."""
    assert environment(stages()[-1])["HOME"] == "/tmp"
    for place in ("docs/install.md", "docs/archive.md", "Dockerfile"):
        lines = [line.removeprefix("#").strip() for line in (ROOT / place).read_text().splitlines()]
        for number, line in enumerate(lines):
            if line.startswith("docker run --rm"):
                assert lines[number - 1] == "mkdir -p restored", place
                assert '--user "$(id -u):$(id -g)"' in line, place
