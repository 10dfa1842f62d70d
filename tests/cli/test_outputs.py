"""An output into which nothing can be written is told once, by its name, before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import monai_sasm
from monai_sasm.restoration import targets
from monai_sasm.restoration.targets import check_output

COMMANDS = {
    "restore": ["restore", "{in}", "-o", "{out}"],
    "dry": ["restore", "{in}", "-o", "{out}", "--dry-run"],
    "batch": ["batch", "{in}", "{out}"],
    "bids": ["bids", "{in}", "{out}", "participant"],
    "thin": ["thin", "{in}", "-o", "{out}", "--expert", "superres_mri_unet"],
    "degrade": ["degrade", "{in}", "-o", "{out}", "--kind", "gaussian"],
    "enlarge": ["enlarge", "{in}", "-o", "{out}"],
    "inpaint": ["inpaint", "{in}", "-o", "{out}", "--mask", "{in}"],
    "evaluate": ["evaluate", "photo-awgn", "-o", "{out}"],
    "qualify": ["qualify", "{in}", "-o", "{out}/page.html"],
    "pull": ["pull", "http://127.0.0.1:9", "--study", "1.2", "-o", "{out}"],
}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 32, 3), np.uint8)).save(folder / "a.png")
    (folder / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.8.0"}')
    return folder


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        pytest.fail("networks are loaded")

    monkeypatch.setattr("monai_sasm.bundles.loading.load", fail)
    monkeypatch.setattr("monai_sasm.restoration.restorer.Restorer.__init__", fail)


@pytest.mark.parametrize("below", ["", "/below/it"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_where_a_folder_must_be(
    sasm: Any, scans: Path, tmp_path: Path, command: str, below: str, nothing_is_loaded: None
) -> None:
    out = tmp_path / "afile"
    out.write_text("kept")
    arguments = [part.replace("{in}", str(scans)).replace("{out}", f"{out}{below}") for part in COMMANDS[command]]
    code, told, err = sasm(*arguments)
    assert (code, told, err.count("\n")) == (2, "", 1), err
    assert "afile is a file; name a folder" in err
    assert out.read_text() == "kept"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_permission(
    sasm: Any, scans: Path, tmp_path: Path, command: str, nothing_is_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "closed"
    out.mkdir()
    may = os.access
    monkeypatch.setattr(
        targets.os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == out) and may(path, mode)
    )
    arguments = [part.replace("{in}", str(scans)).replace("{out}", f"{out}") for part in COMMANDS[command]]
    code, told, err = sasm(*arguments)
    assert (code, told, err.count("\n")) == (2, "", 1), err
    assert f"no permission to write into {out}; choose another output" in err
    assert not list(out.iterdir())


def test_python_is_told_the_same(scans: Path, tmp_path: Path, nothing_is_loaded: None) -> None:
    (tmp_path / "afile").write_text("kept")
    with pytest.raises(NotADirectoryError, match="afile is a file; name a folder"):
        monai_sasm.restore(scans, tmp_path / "afile")


def test_what_can_be_written_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("an earlier result")
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (tmp_path, tmp_path / "a" / "b", tmp_path / "x.png", tmp_path / "link", tmp_path / "new" / "y.nii.gz"):
        check_output(place)
    with pytest.raises(NotADirectoryError):
        check_output(tmp_path / "x.png", named=False)
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="lost is a link that leads nowhere"):
        check_output(tmp_path / "lost")
