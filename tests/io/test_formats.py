"""The door: content decides, not names; nothing is hidden, overwritten or put in the wrong place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from monai_sasm.errors import RefusedError
from monai_sasm.io import formats, maps
from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.volume import FinerSlices, Source, Volume
from monai_sasm.types import Modality
from tests.data import CHECKOUT
from tests.io.dicom.dicom_cases import ct_slice, save_all

DERIVATION = Derivation("monai_sasm", "1.0")


def photo(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)).save(path, kind)
    return path


def scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4), np.diag([1, 1, 3, 1])).to_filename(path)
    return path


def dicom(path: Path, name: str = "CT_small.dcm") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(get_testdata_file(name), path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    photo(root / "day1" / "window.png")
    photo(root / "day2" / "window.png")
    photo(root / "wrong.png", "JPEG")
    scan(root / "a_T1w.nii.gz")
    dicom(root / "ct" / "IM1")
    (root / "notes.txt").write_text("hello")
    (root / "broken.png").write_bytes(b"not a picture")
    (root / "anim.gif").write_bytes(b"GIF89a" + bytes(20))
    return root


def test_inventory_goes_by_content(tree: Path) -> None:
    entries = {str(entry.paths[0].relative_to(tree)): entry for entry in formats.inventory(tree)}
    assert set(entries) == {
        *("a_T1w.nii.gz", "anim.gif", "broken.png", "ct/IM1", "day1/window.png", "day2/window.png", "wrong.png")
    }
    assert [entries[name].format for name in ("a_T1w.nii.gz", "ct/IM1", "wrong.png")] == ["nifti", "dicom", "raster"]
    assert [entries[name].modality for name in ("a_T1w.nii.gz", "ct/IM1")] == [Modality.MR, Modality.CT]
    assert "GIF" in str(entries["anim.gif"].refusal)
    assert "not what the name says" in str(entries["broken.png"].refusal)
    assert all(entry.refusal is None for name, entry in entries.items() if name not in ("anim.gif", "broken.png"))
    names = [entry.name for entry in entries.values()]
    assert len(set(names)) == len(names)
    volumes = list(formats.open_images(tree))
    assert sorted(volume.modality.value for volume in volumes) == ["CT", "MR", "PHOTO", "PHOTO", "PHOTO"]


def test_other_files_are_listed_only_when_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (entry,) = formats.inventory(tmp_path)
    assert "not an image" in str(entry.refusal)
    with pytest.raises(RefusedError, match="not an image"):
        list(formats.open_images(tmp_path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        formats.inventory(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert formats.inventory(tmp_path / "empty") == []
    with pytest.raises(RefusedError, match="empty"):
        list(formats.open_images(tmp_path / "empty"))


def test_modality_serves_what_does_not_say_it(tmp_path: Path) -> None:
    scan(tmp_path / "scan.nii")
    photo(tmp_path / "window.png")
    nothing, photograph = formats.inventory(tmp_path)
    assert "modality='CT'" in str(nothing.refusal)
    assert photograph.refusal is None
    with_ct, photograph = formats.inventory(tmp_path, Modality.CT)
    assert (with_ct.modality, with_ct.refusal) == (Modality.CT, None)
    assert (photograph.modality, photograph.refusal) == (Modality.PHOTO, None)


def test_a_modality_in_a_mixed_folder_is_for_what_does_not_say_it(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path / "ct")
    scan(tmp_path / "scan.nii")
    photo(tmp_path / "window.png")
    entries = formats.inventory(tmp_path, Modality.MR)
    assert {(entry.modality, entry.refusal) for entry in entries} == {
        (modality, None) for modality in (Modality.CT, Modality.MR, Modality.PHOTO)
    }
    both = [tmp_path / "window.png", tmp_path / "scan.nii"]
    assert [entry.refusal is None for entry in formats.inventory(both, Modality.MR)] == [True, False]


@pytest.mark.parametrize("name", ["ct", "ct/0.dcm", "window.png"])
def test_a_modality_that_contradicts_what_is_named_is_refused(name: str, tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(2)], tmp_path / "ct")
    sorted((tmp_path / "ct").iterdir())[0].rename(tmp_path / "ct" / "0.dcm")
    photo(tmp_path / "window.png")
    (entry,) = formats.inventory(tmp_path / name, Modality.MR)
    assert "leave modality='MR' out" in str(entry.refusal)
    assert not entry.unreadable
    assert all(entry.refusal for entry in formats.inventory(tmp_path, Modality.MR))  # it would serve for nothing


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = photo(tmp_path / "outside" / "secret.png")
    root = tmp_path / "in"
    photo(root / "mine.png")
    (root / "link.png").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "inside.png").symlink_to(root / "mine.png")
    entries = {entry.paths[0].name: entry for entry in formats.inventory(root)}
    assert sorted(entries) == ["folder", "inside.png", "link.png", "mine.png"]
    assert "leads out" in str(entries["link.png"].refusal)
    assert "leads out" in str(entries["folder"].refusal)
    assert entries["inside.png"].refusal is None


def test_output_repeats_the_tree_and_never_hits_the_source(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    entries = [entry for entry in formats.inventory(tree) if entry.refusal is None]
    targets = {str(entry.paths[0].relative_to(tree)): formats.output_path(entry, tree, out) for entry in entries}
    assert targets["day1/window.png"] == out / "day1" / "window.png"
    assert targets["day2/window.png"] == out / "day2" / "window.png"
    assert targets["wrong.png"] == out / "wrong.jpg"
    series = next(entry for entry in entries if entry.format == "dicom")
    assert targets["ct/IM1"] == out / "ct" / series.name
    window = next(entry for entry in entries if entry.paths[0].parent.name == "day1")
    with pytest.raises(ValueError, match="source"):
        formats.output_path(window, tree, tree)
    for entry, target in ((entry, formats.output_path(entry, tree, out)) for entry in entries):
        assert formats.write(entry.load(), target, DERIVATION)
    assert {entry.format for entry in formats.inventory(out)} == {"dicom", "nifti", "raster"}
    assert not list(tmp_path.rglob("*.tmp"))


def test_output_of_a_single_file(tmp_path: Path) -> None:
    source = photo(tmp_path / "window.png")
    (entry,) = formats.inventory(source)
    assert formats.output_path(entry, source, tmp_path / "clear.png") == tmp_path / "clear.png"
    assert formats.output_path(entry, source, tmp_path / "folder") == tmp_path / "folder" / "window.png"
    with pytest.raises(ValueError, match="source"):
        formats.output_path(entry, source, source)
    with pytest.raises(ValueError, match="source"):
        formats.output_path(entry, source, tmp_path)
    (ct,) = formats.inventory(dicom(tmp_path / "ct.dcm"))
    assert formats.output_path(ct, tmp_path / "ct.dcm", tmp_path / "out") == tmp_path / "out" / ct.name


def test_dicom_is_written_into_a_new_folder_or_over_it(tmp_path: Path) -> None:
    source = dicom(tmp_path / "in" / "ct.dcm")
    (volume,) = formats.open_images(source)
    files = formats.write(volume, tmp_path / "out" / "series", DERIVATION)
    assert [file.parent for file in files] == [tmp_path / "out" / "series"]
    before, after = pydicom.dcmread(source), pydicom.dcmread(files[0])
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
    assert after.SOPInstanceUID != before.SOPInstanceUID
    with pytest.raises(FileExistsError, match="overwrite=True"):
        formats.write(volume, tmp_path / "out" / "series", DERIVATION)
    assert formats.write(volume, tmp_path / "out" / "series", DERIVATION, overwrite=True) == files
    with pytest.raises(ValueError, match="source"):
        formats.write(volume, source.parent, DERIVATION, overwrite=True)
    with pytest.raises(ValueError, match="folder"):
        formats.write(volume, tmp_path / "out.png", DERIVATION)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["series"]


def test_dicom_exported_as_nifti_keeps_every_voxel_in_its_place(tmp_path: Path) -> None:
    (volume,) = formats.open_images(dicom(tmp_path / "ct.dcm"))
    target, sidecar = formats.write(volume, tmp_path / "ct.nii.gz", DERIVATION)
    assert json.loads(sidecar.read_text())["GeneratedBy"] == [{"Name": "monai_sasm", "Version": "1.0"}]
    image = nibabel.load(target)
    inverse = np.linalg.inv(image.affine)
    for index in ((0, 0, 0), (0, 17, 90), (0, 127, 3)):
        place = volume.affine @ [*index, 1]
        i, j, k = np.rint(inverse @ place).astype(int)[:3]
        np.testing.assert_allclose(inverse @ place, [i, j, k, 1], atol=1e-3)
        assert image.get_fdata()[i, j, k] == volume.array[(0, *index)]


def test_what_has_no_source_needs_a_suffix(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 4, 4), np.float32), Modality.PHOTO)
    with pytest.raises(ValueError, match="without source"):
        formats.write(volume, tmp_path / "a", DERIVATION)
    with pytest.raises(ValueError, match="not written as"):
        formats.write(volume, tmp_path / "a.gif", DERIVATION)
    assert not list(tmp_path.iterdir())


def test_images_are_read_one_after_the_other(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = formats.open_images(tree)
    first = next(images)
    assert not caplog.records, "nothing is looked at before it is asked for"
    alive = weakref.ref(first)
    assert isinstance(first, Volume)
    del first
    second = next(images)
    assert alive() is None, "one image at a time"
    assert second.name
    assert len(list(images)) == 3
    left_out = sorted(record.getMessage() for record in caplog.records if record.name == "monai_sasm.io.formats")
    assert [message.split(":")[0] for message in left_out] == ["left out in/anim.gif", "left out in/broken.png"]
    assert "the GIF header is damaged" in left_out[0]


def test_what_cannot_be_opened_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        formats.open_images(tmp_path / "nothing")
    scan(tmp_path / "a.nii")
    (tmp_path / "scene.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    with pytest.raises(
        RefusedError, match=r"/a.nii: .*modality='CT'.*; .*/scene.jxl: a picture that is not read: export it"
    ):
        list(formats.open_images(tmp_path))
    assert [volume.modality for volume in formats.open_images(tmp_path, "MR")] == [Modality.MR]


def test_of_many_reasons_the_first_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(20):
        (tmp_path / f"{index:02d}.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    with pytest.raises(RefusedError) as error:
        list(formats.open_images(tmp_path))
    told = str(error.value)
    assert told.count(".jxl:") == 3
    assert told.endswith("; and 17 more, which the log lists")
    assert sum("left out" in record.getMessage() for record in caplog.records) == 20


def test_saving_finds_name_and_suffix(tree: Path, tmp_path: Path) -> None:
    for volume in formats.open_images(tree / "day1"):
        assert formats.save(volume, tmp_path / "out") == [tmp_path / "out" / "window.png"]
        with pytest.raises(FileExistsError):
            formats.save(volume, tmp_path / "out")
        assert formats.save(volume, tmp_path / "out" / "other.png") == [tmp_path / "out" / "other.png"]
        with pytest.raises(ValueError, match="source"):
            formats.save(volume, tree / "day1", overwrite=True)
    (misnamed,) = formats.open_images(tree / "wrong.png")
    assert formats.save(misnamed, str(tmp_path / "out")) == [tmp_path / "out" / "wrong.jpg"]
    (mr,) = formats.open_images(tree / "a_T1w.nii.gz")
    assert [file.name for file in formats.save(mr, tmp_path / "out")] == ["a_T1w.nii.gz", "a_T1w.json"]
    (ct,) = formats.open_images(tree / "ct")
    assert formats.save(ct, tmp_path / "out") == [tmp_path / "out" / ct.name / "IM0001.dcm"]
    record = json.loads((tmp_path / "out" / "a_T1w.json").read_text())
    assert record["GeneratedBy"][0]["Name"] == "monai_sasm"


@pytest.mark.parametrize(
    ("path", "unwanted"), [("photo.png", "pydicom nibabel torch"), ("scan.nii", "torch imagecodecs")]
)
def test_a_format_loads_its_own_libraries_only(path: str, unwanted: str, tmp_path: Path) -> None:
    photo(tmp_path / "photo.png")
    scan(tmp_path / "scan.nii")
    code = (
        "import sys; from monai_sasm.io.formats import inventory; from pathlib import Path\n"
        "print(inventory(Path(sys.argv[1]))[0].format); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout.split()
    assert found[0] in ("raster", "nifti")
    assert not set(found[1:]) & set(unwanted.split())


class TextSource(Source):
    """A picture of digits."""

    format = "text"

    def result_name(self, name: str) -> str:
        return f"{name}.digits"


class TextFormat:
    """A format of its own: photos as digits, 0 black and 9 white."""

    name = "text"
    suffixes: tuple[str, ...] = (".digits",)
    read_only: tuple[str, ...] = ()
    is_folder = False

    def sniff(self, head: bytes) -> bool:
        return head.startswith(b"DIGITS")

    def inspect(self, files: Sequence[Path], modality: Modality | None) -> list[Entry]:
        return [
            Entry(file.stem, self.name, (file,), Modality.PHOTO, "single", None, (), partial(self.read, file))
            for file in files
        ]

    def read(self, file: Path) -> Volume:
        rows = [[int(digit) for digit in line] for line in file.read_text().split()[1:]]
        return Volume(np.array([rows], np.float32) / 9, Modality.PHOTO, name=file.stem, source=TextSource())

    def result_name(self, entry: Entry) -> str:
        return entry.paths[0].name

    def check_target(self, entry: Entry, path: Path) -> None:
        pass

    def companions(self, target: Path) -> tuple[Path, ...]:
        return ()

    def write(
        self, volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
    ) -> list[Path]:
        guard_target(path, overwrite=overwrite)
        rows = ["".join(str(round(9 * float(value))) for value in row) for row in volume.array[0]]
        with replacing(path) as file:
            file.write("\n".join(["DIGITS", *rows]).encode())
        return [path]


def test_a_new_format_is_one_entry_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, TextFormat()])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.digits").write_text("DIGITS\n0123\n4567")
    (tmp_path / "in" / "b.digits").write_text("something else")
    photo(tmp_path / "in" / "window.png")
    good, bad, _ = formats.inventory(tmp_path / "in")
    assert (good.format, good.refusal, bad.format) == ("text", None, "text")
    assert "not what the name says" in str(bad.refusal)
    assert formats.output_path(good, tmp_path / "in", tmp_path / "out") == tmp_path / "out" / "a.digits"
    assert formats.output_path(good, tmp_path / "in" / "a.digits", tmp_path / "o.digits") == tmp_path / "o.digits"
    volume = good.load()
    brighter = volume.with_array(np.minimum(volume.array + 2 / 9, 1))
    (saved,) = formats.save(brighter, tmp_path / "out")
    assert saved.read_text() == "DIGITS\n2345\n6789"
    with pytest.raises(FileExistsError):
        formats.save(brighter, tmp_path / "out")
    assert next(formats.open_images(saved)).array.max() == 1
    own = Volume.from_array(np.eye(3), modality="PHOTO")
    assert formats.save(own, tmp_path / "own.digits")[0].read_text() == "DIGITS\n900\n090\n009"
    with pytest.raises(RefusedError, match="thin slices cannot be written"):
        TextSource().on_finer_slices(FinerSlices(0, 2, 4, np.eye(4), np.eye(4)))


def medical(affine: np.ndarray) -> Volume:
    array = np.random.default_rng(0).random((1, 3, 5, 4), dtype=np.float32)  # slices, rows, columns
    return Volume(array, Modality.CT, affine, 0)


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_maps_of_volumes_lie_on_the_image(shear: float, tmp_path: Path) -> None:
    affine = np.array([[0, 0, -0.7, 10], [shear, -0.8, 0, 20], [2.5, 0, 0, -30], [0, 0, 0, 1.0]])
    like = medical(affine)
    weights = np.random.default_rng(1).random((2, 3, 5, 4), dtype=np.float32)
    (target,) = maps.write_map(weights, like, tmp_path / "w.nii.gz")
    image = nibabel.load(target)
    assert image.shape == (4, 5, 3, 2)
    assert image.get_data_dtype() == np.float32
    for k, s, r, c in np.ndindex(2, 3, 5, 4):
        assert image.dataobj[c, r, s, k] == weights[k, s, r, c]
    place = np.array([2, 3, 1, 1])
    np.testing.assert_allclose(image.affine @ place[[2, 1, 0, 3]], affine @ place, atol=1e-5)
    assert image.header["sform_code"] == 1
    assert image.header["qform_code"] == (0 if shear else 1)
    (single,) = maps.write_map(weights[0], like, tmp_path / "one.nii")
    assert nibabel.load(single).shape == (4, 5, 3)


def test_maps_of_nifti_share_its_grid(tmp_path: Path) -> None:
    (volume,) = formats.open_images(scan(tmp_path / "a_T1w.nii"))
    (target,) = maps.write_map(volume.array[0], volume, tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(nibabel.load(target).affine, nibabel.load(tmp_path / "a_T1w.nii").affine)
    np.testing.assert_array_equal(nibabel.load(target).get_fdata(), volume.array[0])
    flat = Volume(np.ones((1, 5, 4), np.float32), Modality.MR, np.eye(4), None)
    (target,) = maps.write_map(np.arange(20, dtype=np.float32).reshape(5, 4), flat, tmp_path / "flat.nii")
    assert nibabel.load(target).shape == (4, 5, 1)
    assert nibabel.load(target).dataobj[3, 1, 0] == 7


def test_maps_of_photos_are_grey_pictures(tmp_path: Path) -> None:
    (volume,) = formats.open_images(photo(tmp_path / "window.png"))
    weights = np.random.default_rng(0).random((2, 12, 10), dtype=np.float32)
    one, two = maps.write_map(weights, volume, tmp_path / "w.png", names=["clean", "rain drop"])
    assert (one.name, two.name) == ("w_clean.png", "w_rain_drop.png")
    with Image.open(two) as image:
        np.testing.assert_array_equal(np.array(image), np.rint(weights[1] * 255))
    assert maps.write_map(weights[0], volume, tmp_path / "one.png") == [tmp_path / "one.png"]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        maps.write_map(weights[0], volume, tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        maps.write_map(weights[0] * 3, volume, tmp_path / "far.png")
    with pytest.raises(ValueError, match="shape"):
        maps.write_map(weights[:, :-1], volume, tmp_path / "small.png")
    with pytest.raises(ValueError, match="suffix"):
        maps.write_map(weights[0], volume, tmp_path / "map.jpg")
    with pytest.raises(ValueError, match="finite"):
        maps.write_map(weights[0] * np.float32(np.nan), volume, tmp_path / "nan.png")


def test_maps_of_photos_are_turned_as_the_photo_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274], exif[272] = 6, "camera"
    Image.new("RGB", (10, 12)).save(tmp_path / "a.jpg", exif=exif)
    (volume,) = formats.open_images(tmp_path / "a.jpg")
    weights = np.random.default_rng(0).random((12, 10), dtype=np.float32)
    (target,) = maps.write_map(weights, volume, tmp_path / "w.png")
    with Image.open(target) as image:
        assert dict(image.getexif()) == {274: 6}, "how it is turned, and nothing of the camera"
        np.testing.assert_array_equal(np.array(image), np.rint(weights * 255))


def test_a_failed_series_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (volume,) = formats.open_images(dicom(tmp_path / "in" / "ct.dcm"))
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        formats.write(volume, tmp_path / "out" / "series", DERIVATION)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_name_of_a_series_is_the_same_in_every_version(tmp_path: Path) -> None:
    """A batch that is resumed, and whoever looks for an earlier result, finds it by this name."""
    (entry,) = formats.inventory(save_all([ct_slice(number) for number in range(3)], tmp_path))
    assert entry.name == "CT-series003-ab617d25"
