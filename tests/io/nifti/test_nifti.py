"""NIfTI laws: what was not changed comes back bit for bit, geometry and header always; hostile files are refused."""

from __future__ import annotations

import gzip
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.nifti import format as nifti_format
from monai_sasm.io.nifti.export import export
from monai_sasm.io.nifti.header import open_plain
from monai_sasm.io.nifti.read import read
from monai_sasm.io.nifti.write import write
from monai_sasm.types import Modality
from tests.data import DATA

DERIVATION = Derivation("monai_sasm", "1.0", {"noise_mri_unet": "ab" * 32}, {"strength": 1.0})
AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 3.0, 12.5], [0, 0, 0, 1]])
REAL = (
    "mri/ms_patient04/study1_FLAIR.nii.gz",
    "mri/tumour_PGBM-003_nifti/T2.nii.gz",
    "mri/tumour_TCGA-FG-6692_native/fla.nii.gz",
    "mri/pyradiomics_brain_tumour/brain1_image.nii.gz",
    "ct_volumes/totalsegmentator/example_ct.nii.gz",
    "ct_ldct_pairs/L143_nifti/full/L143_B30f_i019.nii.gz",
)


def numbers(dtype: str, shape: tuple[int, ...] = (6, 5, 4)) -> np.ndarray:
    values = np.random.default_rng(0).integers(3, 120, shape).astype(dtype)
    return values + np.asarray(0.25, dtype) if np.dtype(dtype).kind == "f" else values


def save(
    path: Path, raw: np.ndarray, *, slope: float = np.nan, intercept: float = np.nan, kind: str = "Nifti1"
) -> Path:
    """A file with a full header, written by nibabel."""
    header = getattr(nibabel, f"{kind}Header")(endianness=">" if raw.dtype.byteorder == ">" else "<")
    header.set_data_dtype(raw.dtype)
    header["descrip"], header["cal_max"] = b"scanner text", 77.0
    header.set_xyzt_units("mm", "sec")
    image = getattr(nibabel, f"{kind}Image")(raw, AFFINE, header)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 2)
    if raw.ndim == 4:
        image.header["pixdim"][4] = 2.5
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("name", REAL)
def test_real_file_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    source = DATA / name
    if not source.exists():
        pytest.skip(f"real data not there: {source}")
    volume = read(source, Modality.MR)
    write(volume, tmp_path / "out.nii", DERIVATION)
    assert (tmp_path / "out.nii").read_bytes() == gzip.decompress(source.read_bytes())
    reference = nibabel.load(source)
    np.testing.assert_array_equal(volume.affine, reference.affine)
    np.testing.assert_allclose(volume.array[0], reference.get_fdata(dtype=np.float32), rtol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["Nifti1", "Nifti2"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", "<i4", "<f4", ">f4", "<f8", "<i8"])
def test_unchanged_file_comes_back_bit_for_bit(dtype: str, kind: str, suffix: str, tmp_path: Path) -> None:
    raw = numbers(dtype)
    if dtype in ("<i4", "<i8"):
        raw[0, 0, 0] = 2**24 + 1  # float32 cannot hold it
    if dtype == "<f8":
        raw[0, 0, 0] = 1 / 3
    source = save(tmp_path / f"in{suffix}", raw, kind=kind)
    target, _ = write(read(source, Modality.MR), tmp_path / "out" / f"x{suffix}", DERIVATION)
    assert open_plain(target).read() == open_plain(source).read()


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1024.0), (0.01, 3.7), (-0.5, 10.0)])
def test_scaled_integers_come_back_bit_for_bit(slope: float, intercept: float, tmp_path: Path) -> None:
    source = save(tmp_path / "in.nii", numbers("<i2"), slope=slope, intercept=intercept)
    volume = read(source, Modality.CT)
    np.testing.assert_allclose(volume.array[0], nibabel.load(source).get_fdata(), rtol=1e-6)
    target, _ = write(volume, tmp_path / "out.nii", DERIVATION)
    assert target.read_bytes() == source.read_bytes()


def test_changed_voxels_round_within_half_a_quantum_and_the_header_stays(tmp_path: Path) -> None:
    source = save(tmp_path / "in.nii.gz", numbers("<i2", (6, 5, 4, 3)))
    volume = read(source, Modality.MR)
    assert volume.array.shape == (3, 6, 5, 4)
    changed = volume.array + np.float32(0.3) * np.arange(3, dtype=np.float32)[:, None, None, None]
    target, _ = write(volume.with_array(changed), tmp_path / "out.nii.gz", DERIVATION)
    before, after = nibabel.load(source), nibabel.load(target)
    assert np.abs(np.moveaxis(after.get_fdata(), 3, 0) - changed).max() <= 0.5
    assert after.get_data_dtype() == np.dtype("<i2")
    for field in ("descrip", "cal_max", "xyzt_units", "pixdim", "qform_code", "sform_code", "srow_x", "quatern_b"):
        np.testing.assert_array_equal(before.header[field], after.header[field], err_msg=field)
    assert after.header.extensions[0].get_content() == b"kept"


def test_values_past_the_type_get_a_fresh_scaling(tmp_path: Path) -> None:
    volume = read(save(tmp_path / "in.nii", numbers("u1")), Modality.MR)
    changed = volume.array * 10 - 500
    target, _ = write(volume.with_array(changed), tmp_path / "out.nii", DERIVATION)
    image = nibabel.load(target)
    assert image.get_data_dtype() == np.uint8
    assert np.abs(image.get_fdata() - changed[0]).max() <= 0.51 * (changed.max() - changed.min()) / 255


def test_values_past_an_end_the_source_touches_are_clipped_and_counted(tmp_path: Path) -> None:
    raw = numbers("<u2")
    raw[0, 0, :2] = 0
    volume = read(save(tmp_path / "in.nii", raw), Modality.MR)
    changed = volume.array.copy()
    changed[0, 0, 0, :2] = -4.0
    target, sidecar = write(volume.with_array(changed), tmp_path / "out.nii", DERIVATION)
    np.testing.assert_array_equal(np.asarray(nibabel.load(target).dataobj), raw)
    assert json.loads(sidecar.read_text())["ClippedVoxels"] == 2


def test_nan_and_infinite_voxels_come_back_whatever_was_done(tmp_path: Path) -> None:
    raw = numbers("<f4")
    raw[1, 2, 3], raw[0, 0, 0], raw[5, 4, 3] = np.nan, np.inf, -np.inf
    volume = read(save(tmp_path / "in.nii", raw), Modality.MR)
    assert volume.array[0, 1, 2, 3] == np.nanmin(raw[np.isfinite(raw)])
    target, _ = write(volume.with_array(volume.array + 1), tmp_path / "out.nii", DERIVATION)
    np.testing.assert_array_equal(np.asarray(nibabel.load(target).dataobj), raw + 1)


def test_slice_axis_is_stated_or_thick_or_last(tmp_path: Path) -> None:
    assert read(save(tmp_path / "a.nii", numbers("<i2")), Modality.MR).slice_axis == 2
    thick = nibabel.Nifti1Image(numbers("<i2"), np.diag([4.0, 1, 1, 1]))
    thick.to_filename(tmp_path / "b.nii")
    assert read(tmp_path / "b.nii", Modality.MR).slice_axis == 0
    thick.header.set_dim_info(0, 2, 1)
    thick.to_filename(tmp_path / "c.nii")
    assert read(tmp_path / "c.nii", Modality.MR).slice_axis == 1
    nibabel.Nifti1Image(numbers("<i2"), np.eye(4)).to_filename(tmp_path / "d.nii")
    assert read(tmp_path / "d.nii", Modality.MR).slice_axis == 2
    nibabel.Nifti1Image(numbers("<i2", (8, 1, 7)), np.eye(4)).to_filename(tmp_path / "e.nii")
    single = read(tmp_path / "e.nii", Modality.MR)
    assert (single.slice_axis, single.geometry) == (1, "single")
    nibabel.Nifti1Image(numbers("<i2", (8, 7)), np.eye(4)).to_filename(tmp_path / "f.nii")
    flat = read(tmp_path / "f.nii", Modality.MR)
    assert (flat.slice_axis, flat.array.shape) == (None, (1, 8, 7))
    target, _ = write(flat, tmp_path / "g.nii", DERIVATION)
    assert target.read_bytes() == (tmp_path / "f.nii").read_bytes()


def test_affine_is_millimetres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(numbers("<i2"), np.diag([1e-3, 1e-3, 2e-3, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "m.nii")
    np.testing.assert_allclose(read(tmp_path / "m.nii", Modality.MR).affine, np.diag([1, 1, 2, 1]), rtol=1e-6)


def test_modality_is_never_guessed(tmp_path: Path) -> None:
    for name, expected in (("sub-1_T1w", Modality.MR), ("sub-1_bold", Modality.MR), ("sub-1_ct", Modality.CT)):
        entry = nifti_format.inspect(save(tmp_path / f"{name}.nii.gz", numbers("<i2")))
        assert (entry.modality, entry.refusal) == (expected, None)
    unknown = save(tmp_path / "scan.nii.gz", numbers("<i2"))
    assert "modality='CT' or modality='MR'" in str(nifti_format.inspect(unknown).refusal)
    assert nifti_format.inspect(unknown, Modality.CT).load().modality is Modality.CT
    with pytest.raises(RefusedError, match="modality='CT'"):
        nifti_format.inspect(unknown).load()


def rgb(path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.Nifti1Image(pixels, np.eye(4)).to_filename(path)


def cut(path: Path) -> None:
    save(path, numbers("<i2"))
    path.write_bytes(path.read_bytes()[:-10])


def bomb(path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    with gzip.open(path, "wb") as file:
        file.write(header.binaryblock + b"\0" * 1000)


def overflow(path: Path) -> None:
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((2**31, 2**31, 2**31))  # the product is 0 in 64 bits
    header["vox_offset"] = 544
    header.set_sform(np.eye(4), 1)
    path.write_bytes(header.binaryblock + bytes(100))


def offset(path: Path) -> None:
    save(path, numbers("<i2"))
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(128).tobytes()
    path.write_bytes(data)


def extensions(path: Path) -> None:
    """70 KiB that unpack to one extension of 70 MiB."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 4, 4))
    header["vox_offset"] = 70 << 20
    with gzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + b"\1\0\0\0" + struct.pack("<ii", (70 << 20) - 352, 6) + bytes(70 << 20))


def analyze(path: Path) -> None:
    path.write_bytes(nibabel.AnalyzeHeader().binaryblock)  # named .nii


def labels(path: Path) -> None:
    image = nibabel.Nifti1Image(numbers("u1"), np.eye(4))
    image.header.set_intent("label")
    image.to_filename(path)


REFUSED = {
    "vectors": (lambda path: save(path, numbers("<f4", (4, 4, 4, 1, 3))), "vectors"),
    "complex": (lambda path: save(path, numbers("c8")), "real-valued"),
    "rgb": (rgb, "RGB"),
    "cut": (cut, "cut short"),
    "bomb": (bomb, "cut short"),
    "overflow": (overflow, "cut short"),
    "offset": (offset, "damaged"),
    "extensions": (extensions, "of extensions"),
    "analyze": (analyze, "must be named .hdr"),
    "labels": (labels, "label map"),
    "profile": (lambda path: save(path, numbers("<i2", (9, 1, 1))), "two axes"),
    "empty": (lambda path: path.write_bytes(b""), "ends inside"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    make, reason = REFUSED[case]
    path = tmp_path / "in.nii"
    make(path)
    entry = nifti_format.inspect(path, Modality.MR)
    assert reason in str(entry.refusal)
    with pytest.raises(RefusedError, match=reason):
        entry.load()


def test_cut_gzip_is_refused_when_read(tmp_path: Path) -> None:
    path = save(tmp_path / "in.nii.gz", np.random.default_rng(0).integers(0, 9999, (20, 20, 20)).astype("<i2"))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RefusedError, match="end early"):
        nifti_format.inspect(path, Modality.MR).load()


def test_memory_is_asked_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_sasm.io import memory

    path = save(tmp_path / "in.nii", numbers("<i2"))
    monkeypatch.setattr(memory, "free_memory", lambda: 100)
    with pytest.raises(RefusedError, match="memory"):
        read(path, Modality.MR)


def test_source_and_existing_files_are_safe_and_failures_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "in.nii", numbers("<i2"))
    volume = read(source, Modality.MR)
    before = source.read_bytes()
    with pytest.raises(ValueError, match="source"):
        write(volume, source, DERIVATION, overwrite=True)
    os.link(source, tmp_path / "link.nii")
    with pytest.raises(ValueError, match="source"):
        write(volume, tmp_path / "link.nii", DERIVATION, overwrite=True)
    with pytest.raises(ValueError, match="source"):  # in.json describes the source
        write(volume, tmp_path / "in.nii.gz", DERIVATION, overwrite=True)
    write(volume, tmp_path / "out" / "x.nii", DERIVATION)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(volume, tmp_path / "out" / "x.nii", DERIVATION)
    write(volume, tmp_path / "out" / "x.nii", DERIVATION, overwrite=True)
    with pytest.raises(ValueError, match="finite"):
        write(volume.with_array(volume.array * np.float32(np.nan)), tmp_path / "out" / "y.nii", DERIVATION)
    with pytest.raises(ValueError, match=r"\.nii"):
        write(volume, tmp_path / "out" / "y.png", DERIVATION)
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(volume, tmp_path / "out" / "z.nii", DERIVATION)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x.json", "x.nii"]
    assert source.read_bytes() == before


def test_sidecar_names_source_tool_and_models(tmp_path: Path) -> None:
    source = save(tmp_path / "in.nii", numbers("<i2"))
    _, sidecar = write(read(source, Modality.MR), tmp_path / "out.nii.gz", DERIVATION)
    record = json.loads(sidecar.read_text())
    assert record["Sources"] == ["in.nii"]
    assert record["GeneratedBy"] == [{"Name": "monai_sasm", "Version": "1.0"}]
    assert record["Models"] == {"noise_mri_unet": "ab" * 32}
    assert str(tmp_path) not in sidecar.read_text()


@pytest.mark.parametrize(("unit", "step"), [("sec", 2.5), ("msec", 2500.0), ("unknown", 1.5)])
def test_maps_of_time_points_keep_their_time(unit: str, step: float, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((6, 5, 4, 3), np.int16), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4], image.header["toffset"] = step, 0.5
    nibabel.save(image, tmp_path / "bold.nii.gz")
    volume = read(tmp_path / "bold.nii.gz", Modality.MR)
    for count, expected in ((3, (step, 0.5)), (2, (1, 0)), (1, None)):
        path = export(np.ones((count, 6, 5, 4), np.float32), volume, tmp_path / f"{count}.nii")
        header = nibabel.load(path).header
        assert header.get_xyzt_units() == ("mm", unit)
        if expected is not None:
            assert (float(header["pixdim"][4]), float(header["toffset"])) == expected, count
    plain = replace(volume, source=None)
    made = nibabel.load(export(plain.array, plain, tmp_path / "array.nii")).header
    assert made.get_xyzt_units() == ("mm", "unknown")


def test_a_map_keeps_a_qform_that_differs_from_the_sform(tmp_path: Path) -> None:
    """Viewers that go by the qform show the map where they show its image."""
    image = nibabel.Nifti1Image(np.ones((6, 5, 4), np.float32), np.diag([1.0, 1, 2, 1]))
    oblique = np.diag([1.0, 1, 2, 1])
    oblique[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    oblique[:3, 3] = [5, -3, 2]
    image.set_sform(np.diag([1.0, 1, 2, 1]), 2)
    image.set_qform(oblique, 1)
    nibabel.save(image, tmp_path / "image.nii.gz")
    volume = read(tmp_path / "image.nii.gz", Modality.MR)
    written = nibabel.load(export(volume.array[0], volume, tmp_path / "map.nii.gz"))
    np.testing.assert_allclose(written.header.get_qform(), oblique, atol=1e-5)
    np.testing.assert_allclose(written.header.get_sform(), np.diag([1.0, 1, 2, 1]))
    assert int(written.header["qform_code"]) == 1
