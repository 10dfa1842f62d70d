"""NRRD, MetaImage, MGH, pairs and ``.dcm.gz``: SimpleITK and nibabel see the same place and values before and after."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.freesurfer.mghformat import MGHImage
from scipy.io import savemat

from monai_sasm.errors import RefusedError
from monai_sasm.io import formats
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.volume import LPS_TO_RAS, Volume
from monai_sasm.types import Modality
from tests.data import shared
from tests.io.dicom.dicom_cases import ct_slice, save_all

DERIVATION = Derivation("monai_sasm", "1.0")
TURNED = np.array([[0.0, -0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, 0.6]])
VALUES = np.random.default_rng(0).integers(0, 3000, (4, 6, 5)).astype(np.int16)  # (k, j, i)


def itk(path: Path, packed: bool = True, values: np.ndarray = VALUES) -> Path:
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-10.0, 20.0, 30.5))
    image.SetDirection(TURNED.ravel())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), packed)
    return path


def freesurfer(path: Path) -> Path:
    affine = np.diag([1, 1, 1.5, 1.0])
    affine[:3, 3] = -3, 4, 5
    MGHImage(VALUES.T, affine).to_filename(path)
    return path


def pair(path: Path, kind: type = nibabel.Nifti1Pair) -> Path:
    image = kind(VALUES.T, np.array([[-0.7, 0, 0, 9], [0, 0.8, 0, 8], [0, 0, 2.5, 7], [0, 0, 0, 1]]))
    image.to_filename(path)
    return path.with_suffix(".hdr")


MADE = {
    "packed.nrrd": itk,
    "plain.nrrd": lambda path: itk(path, packed=False),
    "apart.nhdr": itk,
    "packed.mha": itk,
    "plain.mha": lambda path: itk(path, packed=False),
    "apart.mhd": itk,
    "plain.mhd": lambda path: itk(path, packed=False),
    "brain.mgz": freesurfer,
    "brain.mgh": freesurfer,
    "nifti1.hdr": pair,
    "nifti2.hdr": lambda path: pair(path, nibabel.Nifti2Pair),
    "analyze.hdr": lambda path: pair(path, nibabel.AnalyzeImage),
    "scaled.hdr": lambda path: pair(path, nibabel.Spm99AnalyzeImage),
}


def seen(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values ``(i, j, k)`` and affine to RAS mm by somebody else."""
    if path.suffix in (".hdr", ".mgz", ".mgh") or path.name.endswith(".nii.gz"):
        image = nibabel.load(path)
        return np.asarray(image.dataobj), np.asarray(image.affine)
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


@pytest.mark.parametrize("name", MADE)
def test_read_and_written_back_as_others_see_it(name: str, tmp_path: Path) -> None:
    source = MADE[name](tmp_path / "in" / name) if (tmp_path / "in").mkdir() is None else Path()
    before, affine = seen(source)
    (entry,) = (
        one for one in formats.inventory(tmp_path / "in", Modality.MR) if one.paths[0].suffix != ".mat"
    )  # of SPM
    assert entry.refusal is None
    volume = entry.load()
    np.testing.assert_array_equal(volume.array[0], before.astype(np.float32))
    oriented = not any("orientation" in note for note in volume.notes)
    assert oriented == (name != "analyze.hdr")
    if oriented:
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    else:
        np.testing.assert_allclose(np.abs(np.diag(volume.affine)), [0.7, 0.8, 2.5, 1], atol=1e-5)
    target = formats.output_path(entry, tmp_path / "in", tmp_path / "out")
    assert target == tmp_path / "out" / name
    written = formats.write(volume, target, DERIVATION)
    assert set(written) == {target, *formats.companions(target)} == set((tmp_path / "out").iterdir())
    after, same = seen(target)
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(same, affine, atol=1e-5) if oriented else None
    assert json.loads(target.with_suffix(".json").read_text())["GeneratedBy"][0]["Name"] == "monai_sasm"
    with pytest.raises(ValueError, match="onto its source"):
        formats.write(volume, source, DERIVATION, overwrite=True)
    brighter = volume.with_array(volume.array + np.float32(3))
    formats.write(brighter, target, DERIVATION, overwrite=True)
    np.testing.assert_allclose(seen(target)[0], before + 3, atol=0.6 if name == "scaled.hdr" else 0)


def test_spm_places_analyze_by_a_mat_file(tmp_path: Path) -> None:
    """Turned and shifted, as after coregistration; ``mat`` goes before ``M``, and a damaged file is no orientation."""
    source = pair(tmp_path / "head.hdr", nibabel.Spm99AnalyzeImage)
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = TURNED * (0.7, 0.8, 2.5), (-10.0, 20.0, 30.5)
    from_one = turned @ np.linalg.inv([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    for version in ("4", "5"):
        for held in ({"M": np.diag([-1.0, 1, 1, 1]) @ from_one}, {"M": np.eye(4), "mat": from_one}):
            savemat(tmp_path / "head.mat", held, format=version)
            read = next(one for one in formats.inventory(tmp_path, Modality.MR) if one.paths[0] == source).load()
            np.testing.assert_allclose(read.affine, turned, atol=1e-5)
            assert not any("orientation" in note for note in read.notes)
    written = formats.write(read, tmp_path / "out" / "head.hdr", DERIVATION)
    np.testing.assert_allclose(nibabel.load(written[0]).affine, turned, atol=1e-5)
    for damaged in (b"", (tmp_path / "head.mat").read_bytes()[:-40], bytes(2**17)):
        (tmp_path / "head.mat").write_bytes(damaged)
        entry = next(one for one in formats.inventory(tmp_path, Modality.MR) if one.paths[0] == source)
        assert any("orientation, and the .mat file of SPM" in note for note in entry.load().notes)
    savemat(tmp_path / "head.mat", {"mat": from_one})
    told = [one.refusal for one in formats.inventory(tmp_path, Modality.MR) if one.paths[0].suffix == ".mat"]
    assert told == ["the place of the voxels of the .hdr header beside it, as SPM keeps it: give that one"]


@pytest.mark.parametrize("name", ["x.mha", "x.mhd", "x.nrrd", "x.nhdr", "x.mgz", "x.mgh", "x.hdr", "x.nii.gz"])
def test_dicom_is_written_under_any_of_these_names(name: str, tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path / "in")
    (entry,) = formats.inventory(tmp_path / "in")
    target = formats.output_path(entry, tmp_path / "in", tmp_path / name, alone=True)
    assert target == tmp_path / name
    volume = entry.load()
    formats.write(volume, target, DERIVATION)
    assert target.is_file()
    values, affine = seen(target)
    assert values.dtype.kind == "f"
    for index in ((0, 0, 0), (1, 2, 3), (2, 5, 4)):
        where = np.linalg.inv(affine) @ volume.affine @ [*index, 1]
        i, j, k = np.rint(where[:3]).astype(int)
        np.testing.assert_allclose(where[:3], [i, j, k], atol=1e-3)
        assert values[i, j, k] == volume.array[(0, *index)]


@pytest.mark.parametrize("order", ["list first", "list last"])
def test_time_points_of_an_nrrd_stay_in_their_axis(order: str, tmp_path: Path) -> None:
    rest = np.random.default_rng(1).random((5, 6, 4), dtype=np.float32)
    values = np.stack([rest, rest + 1, rest + 2], 0 if order == "list first" else 3)
    vectors, kinds = ["(1,0,0)", "(0,2,0)", "(0,0,3)"], ["space"] * 3
    place = 0 if order == "list first" else 3
    vectors.insert(place, "none")
    kinds.insert(place, "list")
    sizes = " ".join(map(str, values.shape))
    head = (
        f"NRRD0005\ntype: float\ndimension: 4\nspace: right-anterior-superior\nsizes: {sizes}\n"
        f"space directions: {' '.join(vectors)}\nkinds: {' '.join(kinds)}\nendian: big\nencoding: raw\n"
        "space origin: (1,2,3)\nscanner:=a key of somebody\n\n"
    )
    source = tmp_path / "perfusion.nrrd"
    source.write_bytes(head.encode() + values.astype(">f4").tobytes(order="F"))
    (entry,) = formats.inventory(source, Modality.MR)
    volume = entry.load()
    np.testing.assert_array_equal(volume.array, np.moveaxis(values, place, 0))
    np.testing.assert_array_equal(volume.affine, [[1, 0, 0, 1], [0, 2, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
    (written, _) = formats.write(volume, tmp_path / "out.nrrd", DERIVATION)
    assert b"scanner:=a key of somebody" in written.read_bytes()
    np.testing.assert_array_equal(next(formats.open_images(written, "MR")).array, volume.array)


def text(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n\n").encode() + bytes(1000)


NRRD = ("NRRD0004", "type: short", "dimension: 3", "sizes: 4 5 6", "encoding: raw", "endian: little")
META = ("ObjectType = Image", "NDims = 3", "DimSize = 4 5 6", "ElementType = MET_SHORT", "ElementDataFile = LOCAL")
REFUSED = {
    "seg.nrrd": (text(*NRRD, "Segment0_ID:=Segment_1"), "segmentation"),
    "rgb.nrrd": (text(*NRRD, "kinds: RGB-color domain domain"), "colours"),
    "cut.nrrd": (text(*NRRD)[:-1000], "cut short"),
    "endless.nrrd": (b"NRRD0004\ntype: short\n", "lacks a field"),
    "text.nrrd": (text(*NRRD[:4], "encoding: ascii"), "neither raw nor gzip"),
    "flat.nrrd": (text(*NRRD, "space: LPS", "space directions: (1,0,0) (0,1,0) (1,1,0)"), "no inverse"),
    "away.nhdr": (text(*NRRD, "data file: ../secret.raw"), "another folder"),
    "gone.nhdr": (text(*NRRD, "data file: gone.raw"), "not beside its header"),
    "many.nhdr": (text(*NRRD, "data file: a%02d.raw 1 9 1"), "several files"),
    "huge.mha": (text(*META[:2], "DimSize = 40000 40000 40000", *META[3:]), "cut short"),
    "vector.mha": (text("ElementNumberOfChannels = 3", *META), "ObjectType"),
    "vectors.mha": (text(META[0], "ElementNumberOfChannels = 3", *META[1:]), "vectors"),
    "away.mhd": (text(*META[:4], "ElementDataFile = /etc/passwd"), "another folder"),
    "nan.mha": (text(*META[:2], "ElementSpacing = nan 1 1", *META[2:]), "no inverse"),
    "words.mha": (text(*META[:2], "ElementSpacing = a b c", *META[2:]), "damaged"),
    "sub-1_dseg.mha": (text(*META), "label map"),
    "short.mgh": (b"\0\0\0\1" + b"\0\0\0\4" * 3 + b"\0\0\0\1" + b"\0\0\0\4" + bytes(40), "ends inside"),
    "cut.mgh": (b"\0\0\0\1" + b"\0\0\0\4" * 3 + b"\0\0\0\1" + b"\0\0\0\4" + bytes(300), "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    (entry,) = formats.inventory(tmp_path, Modality.MR)
    if name == "vector.mha":
        assert "not what the name says" in str(entry.refusal)
        return
    assert reason in str(entry.refusal)
    with pytest.raises(RefusedError):
        entry.load()


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_voxels_named_by_a_relative_path_are_found(name: str, tmp_path: Path) -> None:
    """As Teem writes it; lengths without a unit are in mm."""
    values = np.random.default_rng(3).integers(0, 900, (4, 5, 6)).astype(np.int16)
    (tmp_path / "a.raw").write_bytes(values.tobytes(order="F"))
    nrrd = (*NRRD, "spacings: 1 1 3", 'space units: "" "" ""', "data file: ./a.raw")
    lines = (*META[:4], "ElementDataFile = ./a.raw") if name == "a.mhd" else nrrd
    (tmp_path / name).write_text("\n".join([*lines, "", ""]))
    (entry,) = formats.inventory(tmp_path, Modality.MR)
    np.testing.assert_array_equal(entry.load().array[0], values)


def test_a_name_that_says_labels_can_be_overruled(tmp_path: Path) -> None:
    itk(tmp_path / "sub-1_dseg.mha")
    (entry,) = formats.inventory(tmp_path, Modality.MR, force_modality=True)
    assert entry.load().notes[-1].startswith("read all the same: a label map or mask by its name")


def test_the_modality_of_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(text(META[0], "Modality = MET_MOD_CT", *META[1:]))
    assert formats.inventory(tmp_path)[0].modality is Modality.CT
    assert "it is CT, not MR" in str(formats.inventory(tmp_path, Modality.MR)[0].refusal)
    (tmp_path / "a.mha").write_bytes(text(*META))
    assert "modality='CT' or" in str(formats.inventory(tmp_path)[0].refusal)


def test_clipped_voxels_are_counted(tmp_path: Path) -> None:
    source = itk(tmp_path / "a.nrrd", values=np.full((4, 6, 5), 250, np.uint8))
    volume = next(formats.open_images(source, "MR"))
    brighter = volume.array.copy()
    brighter[0, 0] = 300
    formats.write(volume.with_array(brighter), tmp_path / "b.nrrd", DERIVATION)
    assert json.loads((tmp_path / "b.json").read_text())["ClippedVoxels"] == 24
    assert seen(tmp_path / "b.nrrd")[0].max() == 255


def test_zipped_dicom_is_one_series_with_the_rest(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path / "in")
    (plain,) = formats.inventory(tmp_path / "in")
    expected = plain.load().array
    for file in list((tmp_path / "in").iterdir())[:2]:
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    (entry,) = formats.inventory(tmp_path / "in")
    assert (entry.name, entry.refusal) == (plain.name, None)
    volume = entry.load()
    np.testing.assert_array_equal(volume.array, expected)
    files = formats.write(volume, tmp_path / "out", DERIVATION)
    assert [file.name for file in files] == ["IM0001.dcm", "IM0002.dcm", "IM0003.dcm"]
    cut = next(file for file in (tmp_path / "in").iterdir() if file.name.endswith(".gz"))
    cut.write_bytes(cut.read_bytes()[:-500])
    assert any(
        "cannot be read" in str(entry.refusal) or "gzip" in str(entry.refusal)
        for entry in formats.inventory(tmp_path / "in")
    )


def test_what_is_not_read_is_listed_with_the_way_out(tmp_path: Path) -> None:
    names = {
        "a.jxl": "PNG", "b.nef": "16-bit TIFF", "c.zip": "unpack", "d.mnc": "mnc2nii", "e.npy": "Volume.from_array",
        "f.raw": ".mhd or .hdr beside", "g.nia": ".nii.gz", "h.pdf": "original images",
    }  # fmt: skip
    for name in (*names, "notes.txt"):
        (tmp_path / name).write_bytes(b"something " * 50)
    found = {entry.paths[0].name: str(entry.refusal) for entry in formats.inventory(tmp_path)}
    assert set(found) == set(names)
    assert all(way in found[name] for name, way in names.items())
    pair(tmp_path / "ct.img")
    (alone,) = formats.inventory(tmp_path / "ct.img")
    assert alone.refusal == "the voxels of .hdr header beside them: give that one"


def test_a_name_of_one_file_is_never_a_folder(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path / "in")
    (series,) = formats.inventory(tmp_path / "in")
    with pytest.raises(ValueError, match=r"holds several images; name a folder"):
        formats.output_path(series, tmp_path / "in", tmp_path / "x.nii.gz", alone=False)
    for name, reason in {"x.dcm": "goes into a folder", "x.png": "only photos", "x.webp": "not written as"}.items():
        with pytest.raises(ValueError, match=reason):
            formats.output_path(series, tmp_path / "in", tmp_path / name, alone=True)
    one = tmp_path / "one"
    save_all([ct_slice(0)], one)
    (entry,) = formats.inventory(one)
    assert formats.output_path(entry, one, tmp_path / "x.dcm", alone=True) == tmp_path / "x.dcm"
    assert formats.write(entry.load(), tmp_path / "x.dcm", DERIVATION) == [tmp_path / "x.dcm"]
    assert formats.inventory(tmp_path / "x.dcm")[0].refusal is None
    photo = Volume.from_array(np.eye(8), modality="PHOTO")
    with pytest.raises(ValueError, match="place in space"):
        formats.write(photo, tmp_path / "x.mha", DERIVATION)


def test_the_reported_files_are_read(tmp_path: Path) -> None:
    shutil.copytree(shared("reports/other_formats"), tmp_path / "in")
    entries = {entry.paths[0].name: entry for entry in formats.inventory(tmp_path / "in", Modality.CT)}
    assert set(entries) == {"ct.hdr", "ct.mha", "ct.mhd", "ct.nia", "ct.nrrd", "mr.mgz"}
    arrays = [entries[name].load().array for name in ("ct.hdr", "ct.mha", "ct.mhd", "ct.nrrd")]
    assert all((array == arrays[0]).all() for array in arrays)


TEXTS = {
    "UTF-8": "Å…à ½ 脑 \u2028\x0b\x1e x".encode(),  # some of its bytes and of its characters end lines of Python
    "Latin-1": "Åre\x85\xa0 µ".encode("latin-1"),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("words", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a脑.nhdr", "a脑.mhd"])
def test_texts_of_any_encoding_come_back_byte_for_byte(name: str, words: bytes, end: bytes, tmp_path: Path) -> None:
    apart = name.endswith("hdr") or name.endswith("mhd")
    if "nhdr" in name or "nrrd" in name:
        own = b"description:=" + words
        lines = [*map(str.encode, NRRD), *(["data file: a脑.raw".encode()] if apart else []), own, b""]
    else:
        own = b"Comment = " + words
        lines = [own, *map(str.encode, META[:4]), ("ElementDataFile = " + ("a脑.raw" if apart else "LOCAL")).encode()]
    head, voxels = b"".join(line + end for line in lines), VALUES.tobytes()[:240]
    (tmp_path / name).write_bytes(head + (b"" if apart else voxels))
    (tmp_path / "a脑.raw").write_bytes(voxels)
    volume = formats.inventory(tmp_path / name, Modality.MR)[0].load()
    written = formats.write(volume, tmp_path / "out" / name, DERIVATION)[0]
    assert own in written.read_bytes().split(b"\n")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(written))).T, volume.array[0])


@pytest.mark.parametrize("micro", ["µm".encode(), "µm".encode("latin-1"), "μm".encode(), b"um"])
def test_micrometres_in_any_encoding(micro: bytes, tmp_path: Path) -> None:
    units = b" ".join([b'"' + micro + b'"'] * 3)
    head = text(*NRRD, "space: LPS", "space directions: (500,0,0) (0,500,0) (0,0,3000)", "space units: ?")
    (tmp_path / "a.nrrd").write_bytes(head.replace(b"?", units, 1))
    affine = formats.inventory(tmp_path, Modality.MR)[0].load().affine
    np.testing.assert_allclose(np.abs(np.diag(affine)), [0.5, 0.5, 3, 1])
