"""``sasm restore`` and :func:`monai_sasm.restore` do the same with a folder, however awkward it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import monai_sasm
from monai_sasm.errors import RefusedError, as_flags
from monai_sasm.restoration.restorer import Restorer
from tests.io.dicom.dicom_cases import ct_slice, save_all


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(90, 150, (32, 32, 3), np.uint8)).save(path)


def two_photos(folder: Path) -> None:
    photo(folder / "a.png", 1)
    photo(folder / "deep" / "b.png", 2)


def a_photo_that_would_lie_on_itself(folder: Path) -> None:
    photo(folder / "a.png", 1)
    photo(folder / "b.webp", 2)


def a_damaged_photo_and_a_good_one(folder: Path) -> None:
    two_photos(folder)
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])


def an_uneven_series(folder: Path) -> None:
    save_all([ct_slice(number) for number in (0, 1, 2, 4)], folder / "ct")


def an_uneven_series_and_a_photo(folder: Path) -> None:
    an_uneven_series(folder)
    photo(folder / "a.png")


def two_of_one_name(folder: Path) -> None:
    photo(folder / "a.png", 1)
    photo(folder / "a.bmp", 2)
    photo(folder / "a.webp", 3)


def a_result_in_the_way(folder: Path) -> None:
    two_photos(folder)
    photo(folder.parent / "out" / "a.png", 3)


def a_link_in_the_way(folder: Path) -> None:
    two_photos(folder)
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / "deep").symlink_to(folder.parent)


def files(root: Path) -> dict[str, bytes | int]:
    """What lies below a folder: photos in full, of other files the size, for UIDs and times of DICOM are new."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.suffix == ".png" else path.stat().st_size
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def by_command(sasm: Any, root: Path, out: str, *, overwrite: bool) -> str | None:
    """Why some were not restored, in one line; ``None`` where all were."""
    _, told, err = sasm("restore", root / "in", "-o", root / out, "--json", *(["--overwrite"] if overwrite else []))
    rows = [json.loads(line) for line in told.splitlines()]
    if not rows:
        return str(err).strip().removeprefix("sasm: ")
    return "; ".join(f"{row['input']['name']}: {row['reason']}" for row in rows if row["status"] != "ok") or None


def by_python(root: Path, out: str, *, overwrite: bool) -> str | None:
    try:
        monai_sasm.restore(root / "in", root / out, overwrite=overwrite)
    except (ValueError, OSError) as error:
        return as_flags(str(error))
    return None


@pytest.mark.parametrize(
    ("make", "out"),
    [
        (two_photos, "out"),
        (two_photos, "in/out"),
        (two_photos, "x.png"),
        (a_photo_that_would_lie_on_itself, "in"),
        (a_damaged_photo_and_a_good_one, "out"),
        (a_damaged_photo_and_a_good_one, "in/out"),
        (an_uneven_series, "in/out"),
        (an_uneven_series, "x.nii.gz"),
        (an_uneven_series_and_a_photo, "out"),
        (two_of_one_name, "out"),
        (two_of_one_name, "in/deep/out"),
        (a_result_in_the_way, "out"),
        (a_link_in_the_way, "out"),
    ],
)
def test_one_folder_two_ways(
    sasm: Any, tmp_path: Path, toy_restorer: Restorer, make: Callable[[Path], None], out: str
) -> None:
    """Restored twice, the second time with leave to replace its results."""
    seen = []
    for restore in (partial(by_command, sasm), by_python):
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        make(root / "in")
        seen.append([(restore(root, out, overwrite=again), files(root)) for again in (False, True)])
    command, python = seen
    assert python == command


def test_what_stands_in_its_own_output_is_no_input(tmp_path: Path, toy_restorer: Restorer) -> None:
    two_photos(tmp_path / "in")
    made = [tmp_path / "in" / "out" / "a.png", tmp_path / "in" / "out" / "deep" / "b.png"]
    for again in (False, True):
        assert monai_sasm.restore(tmp_path / "in", tmp_path / "in" / "out", overwrite=again) == made
    assert len(files(tmp_path)) == 4


def test_an_unsuitable_image_stops_no_other(tmp_path: Path, toy_restorer: Restorer) -> None:
    a_photo_that_would_lie_on_itself(tmp_path / "in")
    with pytest.raises(
        RefusedError, match=r"^in/a\.png: a result is never written onto its source, got a\.png; choose"
    ):
        monai_sasm.restore(tmp_path / "in", tmp_path / "in")
    assert sorted(files(tmp_path / "in")) == ["a.png", "b.png", "b.webp"]


def test_an_uneven_series_is_refused_before_a_network_runs(
    tmp_path: Path, toy_restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_uneven_series(tmp_path / "in")
    monkeypatch.setattr(Restorer, "__call__", lambda *_, **__: pytest.fail("a network runs"))
    with pytest.raises(RefusedError, match="gap slices have no affine, which NIfTI needs; write DICOM"):
        monai_sasm.restore(tmp_path / "in", tmp_path / "x.nii.gz")
