"""A result with its maps is saved whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from monai_sasm.io.formats import open_images
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restored import Restored
from monai_sasm.restoration.restorer import Restorer
from tests.data import ct_small, mr_volume

SOURCES = [ct_small(), mr_volume()]


def restored(source: Path, restorer: Restorer) -> Restored:
    (volume,) = open_images(source, None if source == ct_small() else "MR")
    return restorer(volume, Options(keep_maps=True))


@pytest.mark.parametrize("source", SOURCES, ids=["dicom", "nifti"])
def test_an_old_map_in_the_way_is_met_before_anything_is_written(
    tmp_path: Path, toy_restorer: Restorer, source: Path
) -> None:
    files = restored(source, toy_restorer).save(tmp_path / "all")
    assert all(path.is_file() for path in files)
    old = tmp_path / "out" / next(path.name for path in files if "_change" in path.name)
    old.parent.mkdir()
    old.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="_change"):
        restored(source, toy_restorer).save(tmp_path / "out")
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"mine"]
    again = restored(source, toy_restorer).save(tmp_path / "out", overwrite=True)
    assert [path.relative_to(tmp_path / "out") for path in again] == [
        path.relative_to(tmp_path / "all") for path in files
    ]
    assert old.read_bytes() != b"mine"
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("source", SOURCES, ids=["dicom", "nifti"])
@pytest.mark.parametrize("part", ["maps.write_map", "restored.write"])
def test_a_part_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, toy_restorer: Restorer, monkeypatch: pytest.MonkeyPatch, source: Path, part: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    result = restored(source, toy_restorer)
    monkeypatch.setattr(f"monai_sasm.restoration.{part}", full)
    with pytest.raises(OSError, match="No space left"):
        result.save(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
