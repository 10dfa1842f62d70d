"""``sasm degrade`` refuses what does not fit together, before it looks at any image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.photo_folder import photo_folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos", "ab")


def test_an_empty_input_is_told(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = sasm("degrade", tmp_path / "empty", "-o", tmp_path / "out", "--kind", "gaussian")
    assert (code, out, err) == (3, "", f"sasm: {tmp_path / 'empty'} holds no files to degrade\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kind", "gaussian", "--dose", "0.5"], "--dose is for low-dose-ct, not for gaussian; leave it out"),
        (["--kind", "gaussian", "--kernel", "sharp"], "--kernel is for low-dose-ct, not for gaussian"),
        (["--kind", "rician", "--factor", "2"], "--factor is for kspace, not for rician"),
        (["--kind", "rician", "--uneven", "0"], "--uneven is for gaussian, not for rician"),
        (["--coverage", "0.1", "--sigma", "0.1"], "--sigma is for gaussian and rician and kspace, not for raindrop"),
        (["--kind", "gaussian", "--sigma", "2:1"], "sigma must be an increasing range of non-negative numbers"),
        (["--kind", "kspace", "--sigma", "2:1"], "sigma must be an increasing range of non-negative numbers"),
        (["--dose", "1.5"], "dose must be an increasing range within (0, 1]"),
        (["--dose", "0"], "dose must be an increasing range within (0, 1]"),
        (["--factor", "0.5"], "factor must be an increasing range of numbers of at least 1"),
        (["--coverage", "0.1:2"], "coverage and opacity are shares in [0, 1]"),
        (["--kind", "gaussian", "--sigma", "nan"], "Invalid value for '--sigma'"),
        (["--kind", "gaussian", "--sigma", "much"], "Invalid value for '--sigma'"),
        (["--dose", "0.5", "--kernel", "round"], "Invalid value for '--kernel'"),
    ],
)
def test_options_are_wrong_use_and_no_failures_of_images(
    sasm: Any, photos: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    code, out, err = sasm("degrade", photos, "-o", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert told in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["photos", "photos/below", ".", "link"])
def test_the_output_is_kept_apart_from_the_input(sasm: Any, photos: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "link").symlink_to(photos)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = sasm("degrade", photos, "-o", tmp_path / output, "--kind", "gaussian", "--overwrite")
    assert (code, out) == (2, "")
    assert "the output folder holds the input or lies in it; choose a folder beside it" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_clean_photo_is_never_replaced_by_itself(sasm: Any, photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "clean")
    command = ("degrade", tmp_path / "clean" / "a.png", "--kind", "gaussian")
    code, _, err = sasm(*command, "-o", tmp_path, "--overwrite")
    assert (code, "holds the input" in err) == (2, True)
    assert sasm(*command, "-o", tmp_path / "pairs")[0] == 0
