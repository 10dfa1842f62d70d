"""Results are open to those who may read their sources, less the umask, as copies by ``cp`` are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_sasm.batch.bids import complete_sidecar
from monai_sasm.cli.pairs import write_image
from monai_sasm.cli.qualify import _write
from monai_sasm.evaluation import figures
from monai_sasm.io.commit import replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.write import write_file, write_series
from monai_sasm.io.formats import inventory, write
from monai_sasm.io.maps import write_map
from monai_sasm.io.permissions import file_mode, folder_mode
from monai_sasm.io.placing import place, staged
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, index, save_all

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
DERIVATION = Derivation("monai_sasm", "1.0")
NAMES = ("a.png", "a.jpg", "a.tif", "a.bmp", "a.nii.gz", "a.nii", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.mgz")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """That of most systems."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> set[int]:
    return {mode(path) for path in folder.rglob("*") if path.is_file()}


def source(folder: Path, name: str, bits: int) -> Volume:
    """An image that was read from files with these permissions."""
    folder.mkdir(exist_ok=True)
    grey = np.linspace(0, 255, 400).astype(np.uint8).reshape(20, 20)
    if name.endswith((".nii.gz", ".nii")):
        voxels = np.repeat(grey[..., None], 4, 2).astype(np.int16) * 5
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])), folder / name)
    elif name.endswith((".png", ".jpg", ".tif", ".bmp")):
        Image.fromarray(grey).convert("RGB").save(folder / name)
    else:
        head = source(folder / "other", "a.nii.gz", 0o644)
        write(head, folder / name, DERIVATION)
        (folder / f"{name.split('.')[0]}.json").unlink()
    for path in folder.glob("a*"):
        path.chmod(bits)
    (entry,) = (one for one in inventory(folder / name, Modality.MR if _is_medical(name) else None))
    return entry.load()


def _is_medical(name: str) -> bool:
    return not name.endswith((".png", ".jpg", ".tif", ".bmp"))


@pytest.mark.parametrize(
    ("bits", "umask", "wanted"),
    [(0o600, 0o022, 0o600), (0o664, 0o002, 0o664), (0o664, 0o022, 0o644), (0o640, 0o077, 0o600), (0o777, 0o022, 0o644),
     (0o440, 0o022, 0o440), (0o6755, 0o022, 0o644)],
)  # fmt: skip
def test_the_bits_of_the_source_less_the_umask(bits: int, umask: int, wanted: int, tmp_path: Path) -> None:
    volume = source(tmp_path / "in", "a.png", bits)
    os.umask(umask)
    assert write(volume, tmp_path / "a.png", DERIVATION) == [tmp_path / "a.png"]
    assert mode(tmp_path / "a.png") == wanted


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_every_format(name: str, tmp_path: Path) -> None:
    volume = source(tmp_path / "in", name, 0o600)
    files = write(volume, tmp_path / "out" / name, DERIVATION)
    exported = write(volume, tmp_path / "out" / f"b.{'nii.gz' if _is_medical(name) else 'png'}", DERIVATION)
    assert modes(tmp_path / "out") == {0o600}
    assert {*files, *exported} == set((tmp_path / "out").iterdir())


def test_the_strictest_of_several_sources_counts(tmp_path: Path) -> None:
    for name, bits in (("a", 0o640), ("b", 0o604)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(bits)
    assert file_mode([tmp_path / "a", tmp_path / "b"]) == 0o600
    assert file_mode([]) == 0o666
    assert file_mode([tmp_path / "a", tmp_path / "gone"]) == 0o600, "nobody knows who might read it"
    (tmp_path / "in").mkdir()
    (tmp_path / "in").chmod(0o550)
    assert folder_mode([tmp_path / "in", tmp_path / "in" / "scan.dcm"]) == 0o750
    assert folder_mode([]) == 0o777


def test_nobody_may_read_it_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "in.png").touch()
    (tmp_path / "in.png").chmod(0o600)
    with replacing(tmp_path / "out.png", sources=[tmp_path / "in.png"]) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        (working,) = tmp_path.glob(".sasm-*")
        assert mode(working) == 0o700


def test_what_has_no_source_has_what_new_files_have(tmp_path: Path) -> None:
    grey = Volume.from_array(np.zeros((8, 8), np.uint8), modality="PHOTO")
    write(grey, tmp_path / "new" / "a.png", DERIVATION)
    assert (mode(tmp_path / "new"), mode(tmp_path / "new" / "a.png")) == (0o755, 0o644)


@pytest.mark.parametrize(("bits", "of_folder"), [(0o600, 0o700), (0o640, 0o750), (0o444, 0o555)])
def test_a_series_has_the_bits_of_its_folder_and_slices(bits: int, of_folder: int, tmp_path: Path) -> None:
    files = save_all([ct_slice(number) for number in range(3)], tmp_path / "in")
    for file in (tmp_path / "in").iterdir():
        file.chmod(bits)
    (tmp_path / "in").chmod(of_folder)
    (entry,) = index(files if isinstance(files, Path) else tmp_path / "in")
    write_series(entry.load(), tmp_path / "new" / "out", DERIVATION)
    assert modes(tmp_path / "new") == {bits}
    assert mode(tmp_path / "new" / "out") == mode(tmp_path / "new") == of_folder | 0o700
    write_series(entry.load(), tmp_path / "new" / "out", DERIVATION, overwrite=True)
    assert modes(tmp_path / "new") == {bits}


def test_a_slice_as_a_file(tmp_path: Path) -> None:
    save_all([ct_slice(0)], tmp_path / "in")
    (file,) = (tmp_path / "in").iterdir()
    file.chmod(0o640)
    (entry,) = index(tmp_path / "in")
    assert mode(write_file(entry.load(), tmp_path / "a.dcm", DERIVATION)) == 0o640


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz"])
def test_maps_and_degraded_images(name: str, tmp_path: Path) -> None:
    volume = source(tmp_path / "in", name, 0o600)
    (tmp_path / "out").mkdir()
    write_map(np.zeros(volume.array.shape[1:], np.float32), volume, tmp_path / "out" / f"map_{name}")
    write_image(volume, volume.array, tmp_path / "out" / name, overwrite=False)
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert modes(tmp_path / "out") == {0o600}


def test_folders_that_are_made_on_the_way_to_a_place(tmp_path: Path) -> None:
    volume = source(tmp_path / "in", "a.png", 0o644)
    (tmp_path / "in").chmod(0o700)
    with staged(tmp_path / "out", volume.source.files) as aside:
        write(volume, aside / "sub" / "a.png", DERIVATION)
        place(aside, tmp_path / "out", overwrite=False, ours=lambda _: False)
    assert [mode(tmp_path / one) for one in ("out", "out/sub", "out/sub/a.png")] == [0o700, 0o700, 0o644]


def test_pages_and_pictures_that_show_images(tmp_path: Path) -> None:
    scan = tmp_path / "scan.png"
    scan.touch()
    scan.chmod(0o600)
    _write(tmp_path / "page.html", "<img>", {"noise": 1}, [scan])
    assert (mode(tmp_path / "page.html"), mode(tmp_path / "page.json")) == (0o600, 0o644)
    plot = SimpleNamespace(canvas=SimpleNamespace(draw=lambda: None, buffer_rgba=lambda: np.zeros((4, 4, 4), np.uint8)))
    figures.save(plot, tmp_path / "shown.png", [scan])
    figures.save(plot, tmp_path / "curve.png")
    assert (mode(tmp_path / "shown.png"), mode(tmp_path / "curve.png")) == (0o600, 0o644)


def test_what_is_laid_beside_a_bids_derivative(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "sub-1" / "dwi").mkdir(parents=True)
    (raw / "dataset_description.json").write_text("{}")
    image = raw / "sub-1" / "dwi" / "sub-1_dwi.nii.gz"
    for path in (image, image.with_name("sub-1_dwi.bval")):
        path.touch()
        path.chmod(0o600)
    out.mkdir()
    sidecar = out / "sub-1_desc-denoised_dwi.json"
    sidecar.write_text("{}")
    sidecar.chmod(0o600)
    complete_sidecar(sidecar, image, raw)
    assert sorted(path.name for path in out.iterdir()) == ["sub-1_desc-denoised_dwi.json", "sub-1_dwi.bval"]
    assert modes(out) == {0o600}
