"""What README.md and the manual tell people to type and to believe: commands, options, files, links, numbers."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import typer
from PIL import Image

from monai_sasm.cli.degrade import Kind
from monai_sasm.cli.main import app, main
from monai_sasm.evaluation.table import Row, Table
from scripts import bundle_numbers
from scripts.readme_numbers import block
from scripts.set_address import absolute, urls
from tests.data import CHECKOUT, ct_small, mr_volume

README = (CHECKOUT / "README.md").read_text()
CONTRIBUTING = (CHECKOUT / "CONTRIBUTING.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((CHECKOUT / "docs").glob("*.md"))} | {"README.md": README}
COMMANDS = PAGES["commands.md"]
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
LINES = [line.split("   #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
SASM = list(dict.fromkeys(line.removeprefix(".venv-label/bin/") for line in LINES if re.match(r"\S*sasm ", line)))
INSIDE = list(dict.fromkeys(re.findall(r"\$\((sasm [^)]*)\)", "\n".join(LINES))))
BUNDLE_RUNS = list(dict.fromkeys(line for line in LINES if "monai.bundle" in line))


def help_of(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Text of ``sasm COMMAND --help``, wide enough that no option is broken over lines."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert not ended.value.code
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def command_of(words: list[str]) -> tuple[str, ...]:
    if words[1].startswith("-"):
        return ()
    return tuple(words[1:3]) if words[1] == "bundles" else (words[1],)


def test_the_readme_has_commands() -> None:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    assert lines[:2] == ["pip install monai-sasm", "sasm restore scans -o restored"], "two commands to the first series"
    assert {"make demo", "make test", "make docs"} <= {line.split("   #")[0].strip() for line in lines}
    assert len(README.split()) <= 900, "the first page sells and shows; the rest is in the manual"
    assert len(SASM) > 40
    assert len(BUNDLE_RUNS) >= 3
    assert INSIDE


def test_the_numbers_are_those_of_the_protocols() -> None:
    assert block() in README, "python scripts/readme_numbers.py"


@pytest.mark.parametrize("name", sorted(bundle_numbers.BUNDLES))
def test_the_numbers_of_a_bundle_are_those_of_the_protocols(name: str) -> None:
    readme = (CHECKOUT / "bundles" / name / "docs" / "README.md").read_text(encoding="utf-8")
    assert bundle_numbers.block(name) in readme, "python scripts/bundle_numbers.py"


def test_every_block_of_numbers_is_written_by_the_script() -> None:
    """But for those that are empty: of bundles that no protocol measures."""
    for path in CHECKOUT.glob("bundles/*/docs/README.md"):
        blocks = path.read_text(encoding="utf-8").split(bundle_numbers.BEGIN)[1:]
        filled = [block for block in blocks if block.split(bundle_numbers.END)[0].strip()]
        assert len(filled) == (path.parents[1].name in bundle_numbers.BUNDLES), path


def test_older_weights_are_named_behind_their_row() -> None:
    table = Table("mri-superres", rows=(Row("U-Net", {"x4": {"PSNR": 22.07}}, {"x4": 16}),))
    line = bundle_numbers.Line("mri-superres", "x4", "U-Net", ("U-Net",))
    columns = (bundle_numbers.Column("PSNR", "PSNR"),)
    for measured, cell in (("0.1.0", "U-Net 0.1.0"), ("0.2.0", "U-Net")):
        old = replace(table, versions={"superres_mri_unet": measured})
        installed = {"superres_mri_unet": "0.2.0"}
        row = bundle_numbers.row(line, columns, old, versions=installed, owner="superres_mri_esrgan")
        assert row == f"| {cell} | 22.07 |"
    with pytest.raises(KeyError, match="mri-superres has no 'U-Net' at 'x2'"):
        bundle_numbers.row(replace(line, level="x2"), columns, table, versions={}, owner="superres_mri_esrgan")


def test_a_clone_names_no_address_of_its_own() -> None:
    """There is none but that of the repository a release is made in, which the workflow writes in."""
    assert "[project.urls]" not in (CHECKOUT / "pyproject.toml").read_text()
    files = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), CHECKOUT / "Dockerfile", CHECKOUT / "setup.cfg"]
    for path in files:
        assert not re.findall(r"https://[^\s)>\"'`|]*monai[-_]sasm[^\s)>\"'`|]*", path.read_text()), path.name


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https://)([^)#\s]+)", README)
    assert len(links) > 5
    assert [link for link in links if not (CHECKOUT / link).is_file()] == []


def test_a_release_shows_links_that_an_index_can_follow() -> None:
    """An index shows README without the files beside it."""
    text = absolute(README, "owner/name", "v1.2.3")
    assert not re.findall(r"\]\((?!https://)", text)
    assert "![sasm view" in text
    assert "](https://raw.githubusercontent.com/owner/name/v1.2.3/docs/view.png)" in text
    assert "[Security](https://github.com/owner/name/blob/v1.2.3/SECURITY.md)" in text
    assert absolute("[a](https://arxiv.org/abs/1) [b](#more)", "o/n", "v1") == "[a](https://arxiv.org/abs/1) [b](#more)"
    table = urls("Owner/name", "v1.2.3")
    assert 'Homepage = "https://github.com/Owner/name"\n' in table
    assert 'Documentation = "https://owner.github.io/name/"\n' in table


@pytest.mark.parametrize("line", [*SASM, *INSIDE])
def test_each_command_and_option_exists(line: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    text = help_of(command_of(words), capsys, monkeypatch)
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not an option of {line!r}"


@pytest.mark.parametrize("row", [line for line in COMMANDS.splitlines() if line.startswith("| `sasm ")])
def test_each_option_of_the_table_exists(row: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in re.findall(r"`(sasm [^`]*)`", row):
        text = help_of(command_of(command.split()), capsys, monkeypatch)
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not an option of {command}"


@pytest.mark.parametrize("name", ["restore", "degrade"])
def test_the_table_names_every_option(name: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of((name,), capsys, monkeypatch)
    row = next(line for line in COMMANDS.splitlines() if line.startswith(f"| `sasm {name}"))
    missing = set(re.findall(r"--[a-z][a-z-]*", text)) - set(re.findall(r"--[a-z][a-z-]*", row))
    assert missing <= {"--help", "--output", "--quiet", "--verbose"}


def commands(one: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """``sasm ...`` and the command it runs."""
    if not hasattr(one, "commands"):
        yield " ".join(("sasm", *words)), one
        return
    for name, below in one.commands.items():
        yield from commands(below, *words, name)


@pytest.mark.parametrize(("name", "command"), list(commands(typer.main.get_command(app))))
def test_each_command_has_a_row_and_each_option_is_on_a_page(name: str, command: Any) -> None:
    assert re.search(rf"^\|.*`{name}[` ].*\|", COMMANDS, re.MULTILINE), name
    manual = "\n".join(PAGES.values())
    for option in (one for one in command.params if set(one.opts) - {"--quiet", "-q", "--verbose", "-v", "--help"}):
        spelt = [one for one in (*option.opts, *option.secondary_opts) if one.startswith("--")]
        assert not spelt or re.search(rf"(?<![\w-])({'|'.join(spelt)})(?![\w-])", manual), f"{name} {spelt[0]}"


def test_the_table_names_every_kind_of_degradation() -> None:
    row = next(line for line in COMMANDS.splitlines() if line.startswith("| `sasm degrade"))
    named = re.findall(r"`([a-z-]+)`", row.split("kinds")[1].split(";")[0])
    assert named == [kind.value for kind in Kind]


@pytest.mark.parametrize("line", BUNDLE_RUNS)
def test_each_bundle_config_is_there_with_its_keys(line: str) -> None:
    import yaml

    words = shlex.split(line)
    given = words[words.index("--config_file") + 1]
    given = re.sub(r"^\$\(sasm bundles path (\w+) ?([\w.]*)\)$", r"bundles/\1/configs/\2", given)
    given = re.sub(r"configs/$", "configs/inference.yaml", given)
    given = given.replace("my_ct/", "bundles/lowdose_ct_unet/").replace("my_photo/", "bundles/noise_photo_unet/")
    configs = ast.literal_eval(given) if given.startswith("[") else [given]
    keys = {key for config in configs for key in yaml.safe_load((CHECKOUT / config).read_text())}
    for option in (word[2:] for word in words if word.startswith("--") and word != "--config_file"):
        assert option in keys


def test_the_manual_quotes_messages_that_exist() -> None:
    table = PAGES["faq.md"].split("## When something is wrong")[1]
    quoted = [text for row in re.findall(r"^\| `([^`]{16,})` \|", table, re.MULTILINE) for text in row.split("...")]
    quoted = [text.strip() for text in quoted if len(text) > 12 and "requirement torch" not in text]
    source = " ".join(path.read_text() for path in (CHECKOUT / "monai_sasm").rglob("*.py"))
    source = source.replace("overwrite=True", "--overwrite").replace("force_modality=True", "--force-modality")
    assert len(quoted) >= 6
    assert [text for text in quoted if text not in source] == []


def test_make_targets_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)|`make (\w+)`", README + CONTRIBUTING, re.MULTILINE):
        assert re.search(rf"^{target[0] or target[1]}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", (CHECKOUT / document).read_text())
    assert not [link for link in links if not (CHECKOUT / link).exists()]


def test_files_named_in_contributing_exist() -> None:
    package = CHECKOUT / "monai_sasm"
    for name in re.findall(r"`([\w/]+\.py)`", CONTRIBUTING):
        assert (CHECKOUT / name).is_file() or (package / name).is_file(), name


@pytest.mark.parametrize("page", ["README.md", "python.md"])
def test_the_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a DICOM folder, a NIfTI file, a photo and an array, by the shipped networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    shutil.copy(ct_small(), "scans/slice.dcm")
    shutil.copy(mr_volume(), "brain.nii")
    nibabel.save(nibabel.load("brain.nii"), "brain.nii.gz")
    noise = 20 * np.random.default_rng(0).standard_normal((48, 56, 3))
    Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8)).save("window.jpg", quality=100, subsampling=0)
    slices = 60 * np.random.default_rng(0).standard_normal((32, 40, 2)).astype(np.float32)
    slices[:, :8] = -1000  # air
    np.save("slices.npy", slices)

    example = "\n".join(re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL))
    exec(compile(example, page, "exec"), {})

    (restored,) = (tmp_path / "restored").rglob("*.dcm")
    before, after = (pydicom.dcmread(path) for path in ("scans/slice.dcm", restored))
    assert after.StudyInstanceUID == before.StudyInstanceUID
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.PixelSpacing == before.PixelSpacing
    brain, better = (nibabel.load(name) for name in ("brain.nii.gz", "brain_restored.nii.gz"))
    assert np.array_equal(brain.affine, better.affine)
    assert brain.shape == better.shape
    if page == "README.md":
        return
    wet, dry = (np.asarray(Image.open(name), float) for name in ("window.jpg", "dry.jpg"))
    assert dry.std() < 0.7 * wet.std(), "noise is gone"
    slices = nibabel.load("restored/slices.nii.gz")
    np.testing.assert_allclose(slices.affine, np.diag([0.7, 0.7, 3.0, 1.0]), rtol=1e-6)
    assert slices.get_fdata()[:, 8:].std() < 0.7 * np.load("slices.npy")[:, 8:].std()
