"""Long volumes lie in a file without a name: the same bits come out, and memory holds only the slices at work."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_sasm import Restorer
from monai_sasm.errors import RefusedError
from monai_sasm.io import formats, memory, paged
from monai_sasm.io.derivation import Derivation
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, save_all
from tests.toy_bundles import write_gain_expert

MIB = 1 << 20
DERIVATION = Derivation("monai_sasm", "1.0")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere arrays stay in memory")


def resident() -> int:
    """Bytes of files that this process has in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return sum(int(told[name].split()[0]) for name in ("RssFile", "RssShmem")) * 1024


def descriptors(folder: Path) -> int:
    """How many files of a folder this process has open, those without a name, too."""
    return sum(str(folder) in os.path.realpath(one) for one in Path("/proc/self/fd").iterdir())


def test_values_stay_when_memory_is_freed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paged, "LONG", MIB)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = paged.empty((64, 512, 512))
    assert list(tmp_path.iterdir()) == []
    array[:] = np.arange(64, dtype=np.float32)[:, None, None]
    held = resident()
    paged.page_out()
    assert held - resident() > 60 * MIB
    np.testing.assert_array_equal(array.mean((1, 2)), np.arange(64))
    assert descriptors(tmp_path) == 1
    del array
    gc.collect()
    assert descriptors(tmp_path) == 0
    paged.page_out()


def test_slices_at_work_are_all_that_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "LONG", MIB)
    array = paged.empty((256, 256, 256))
    begun, most = resident(), 0
    for one in paged.paging(array):
        one[:] = 1
        most = max(most, resident())
    assert most - begun < 16 * MIB < array.nbytes


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_like_array_has_its_elements_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    for limit in (1, 1 << 30):
        monkeypatch.setattr(paged, "LONG", limit)
        array = np.zeros((3, 4, 5), np.float32).transpose(order)
        other = paged.like(array)
        assert (other.shape, other.strides, other.dtype) == (array.shape, array.strides, array.dtype)


@pytest.mark.parametrize("hindrance", ["full", "failing"])
def test_without_room_on_the_disk_it_stays_in_memory_or_is_refused(
    monkeypatch: pytest.MonkeyPatch, hindrance: str
) -> None:
    monkeypatch.setattr(paged, "LONG", 1)
    if hindrance == "full":
        monkeypatch.setattr(paged.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    else:
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    assert paged.empty((50,)).base is None  # memory of its own
    monkeypatch.setattr(memory, "free_memory", lambda: 150)
    with pytest.raises(RefusedError, match="of memory are free"):
        paged.empty((50,))


MOUNTS = """/dev/sda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sdb /tmp/big\\040disk xfs rw 0 0
"""


@pytest.mark.parametrize(("folder", "expected"), [("/tmp/a", True), ("/tmp/big disk/x", False), ("/var/tmp", False)])
def test_a_folder_in_memory_is_none_to_page_to(tmp_path: Path, folder: str, expected: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert paged._in_memory(folder, tmp_path / "mounts") is expected
    assert paged._in_memory(folder, tmp_path / "none") is False


def test_the_folder_of_large_files_takes_the_place_of_one_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = tmp_path / "memory", tmp_path / "disk"
    for one in places:
        one.mkdir()
    monkeypatch.setattr(paged, "LONG", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(places[0]))
    monkeypatch.setattr(paged, "_LARGE_FILES", str(places[1]))
    monkeypatch.setattr(paged, "_in_memory", lambda folder: folder == str(places[0]))
    array = paged.empty((50,))
    assert (descriptors(places[0]), descriptors(places[1]), array.size) == (0, 1, 50)


def test_what_a_reader_holds_besides_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "LONG", 1)
    monkeypatch.setattr(memory, "free_memory", lambda: 100)
    assert paged.empty((50,)).nbytes == 200
    with pytest.raises(RefusedError, match="of memory are free"):
        paged.empty((50,), beside=150)


def dicom(folder: Path) -> Path:
    return save_all([ct_slice(number) for number in range(3)], folder)


def nifti(folder: Path) -> Path:
    values = np.random.default_rng(0).integers(-900, 900, (20, 18, 4)).astype(np.int16)
    folder.mkdir()
    nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 3.0, 1.0])).to_filename(folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def written_array(folder: Path) -> bytes:
    (volume,) = formats.open_images(folder, modality=Modality.CT)
    return volume.array.tobytes()


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("make", [dicom, nifti])
def test_results_are_the_same_to_the_last_bit(
    make: Callable[[Path], Path], in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = Restorer(trust=[write_gain_expert(tmp_path / "experts" / "gain", 0.9, "CT")])
    source = make(tmp_path / "in")
    results = []
    for limit in (1, 1 << 30):
        monkeypatch.setattr(paged, "LONG", limit)
        (volume,) = formats.open_images(source, modality=Modality.CT)
        done = restorer(volume, expert="gain", in_place=in_place).volume
        assert (len(paged._in_use) > 0) == (limit == 1)
        target = tmp_path / f"out{limit}"
        target.mkdir()
        formats.write(done, target / (volume.name if make is dicom else "r.nii.gz"), DERIVATION)
        results.append((done.array.tobytes(), written_array(target)))
        del volume, done
        gc.collect()
    assert results[0] == results[1]
