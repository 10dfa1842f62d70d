"""Inputs that scanners, archives and cameras really write, and that are easily taken for something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import inventory, output_path, write
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, mr_slice, save_all

READ = "read"
ROWS, COLUMNS = np.mgrid[:64, :80]
COLOUR = np.stack([ROWS * 3, COLUMNS * 3, ROWS + COLUMNS], -1).astype(np.uint8)


def outcomes(folder: Path, modality: Modality | None = None, **options: Any) -> list[str]:
    """``read``, or the reason, of each image; what is read is written and read again, to the last bit."""
    found = []
    for entry in inventory(folder, modality, **options):
        try:
            volume = entry.load()
        except RefusedError as error:
            found.append(str(error))
            continue
        written = write(volume, output_path(entry, folder, folder / "out"), Derivation("monai_sasm", "1.0"))
        again = next(iter(inventory(written[0].parent, modality, force_modality=True))).load()
        np.testing.assert_array_equal(again.array, volume.array)
        found.append(READ)
    return found


def with_values(**values: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def only_imager_spacing(dataset: Dataset) -> None:
    dataset.ImagerPixelSpacing = dataset.PixelSpacing
    del dataset.PixelSpacing


def in_colour(dataset: Dataset) -> None:
    with_values(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8)(dataset)
    with_values(BitsStored=8, HighBit=7, PixelRepresentation=0, PixelData=bytes(3 * 64 * 64))(dataset)


STORAGE = "1.2.840.10008.5.1.4.1.1."
SERIES = {  # what is changed of a CT (or, named mr, an MR) series -> a word of the reason
    "plain": (with_values(), READ),
    "white is zero": (with_values(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1"),
    "a palette": (with_values(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
    "colour, mr": (in_colour, "RGB"),
    "a spacing at the detector": (only_imager_spacing, "Pixel Spacing"),
    "a scout": (with_values(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]), "localizer"),
    "no intercept": (with_values(RescaleIntercept=0), "Hounsfield"),
    "electron density": (with_values(RescaleType="ED"), "Rescale Type ED"),
    "an unspecified unit": (with_values(RescaleType="US"), "Rescale Type US"),
    "a tilt that is none": (with_values(GantryDetectorTilt=15.0), READ),
    "negative steps": (with_values(SpacingBetweenSlices=-3.0), READ),
    "dose report": (with_values(SOPClassUID=STORAGE + "88.67"), "Radiation Dose SR"),
    "key objects": (with_values(SOPClassUID=STORAGE + "88.59"), "Key Object"),
    "PET": (with_values(SOPClassUID=STORAGE + "128"), "Positron"),
    "NM": (with_values(SOPClassUID=STORAGE + "20"), "Nuclear"),
    "XA": (with_values(SOPClassUID=STORAGE + "12.1"), "Angiographic"),
    "cone beam": (with_values(SOPClassUID=STORAGE + "13.1.1"), "X-Ray 3D"),
    "mammogram": (with_values(SOPClassUID=STORAGE + "1.2"), "Mammography"),
    "radiograph": (with_values(SOPClassUID=STORAGE + "1"), "Computed Radiography"),
    "spectra": (with_values(SOPClassUID=STORAGE + "4.2"), "Spectroscopy"),
    "ADC by its description, mr": (with_values(SeriesDescription="Apparent Diffusion Coefficient"), "parameter map"),
    "iodine": (with_values(ImageType=["DERIVED", "SECONDARY", "AXIAL"], SeriesDescription="Iodine(Water)"), "map"),
    "fat fraction, mr": (with_values(ImageType=["DERIVED", "PRIMARY", "DIXON", "FAT_FRACTION"]), "parameter map"),
    "water, mr": (with_values(ImageType=["DERIVED", "PRIMARY", "DIXON", "WATER"]), READ),
    "Philips real part, mr": (with_values(ImageType=["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"]), "real part"),
    "Philips magnitude, mr": (with_values(ImageType=["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]), READ),
    "trace-weighted, mr": (with_values(ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "NORM"]), READ),
}


@pytest.mark.parametrize("case", SERIES)
def test_series(case: str, tmp_path: Path) -> None:
    change, wanted = SERIES[case]
    slices = [(mr_slice if case.endswith(", mr") else ct_slice)(number) for number in range(3)]
    for one in slices:
        change(one)
    save_all(slices, tmp_path)
    assert {wanted if wanted in one else one for one in outcomes(tmp_path)} == {wanted}


@pytest.mark.parametrize("kind", ["US", "HU_MOD"])
def test_whoever_knows_the_unit_may_say_so(kind: str, tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(3)]
    for one in slices:
        one.RescaleType = kind
    save_all(slices, tmp_path)
    assert "or pass force_modality=True" in outcomes(tmp_path)[0]
    assert outcomes(tmp_path, force_modality=True) == [READ]


def test_the_notes_of_macos_are_no_damaged_images(tmp_path: Path) -> None:
    save_all([ct_slice(0)], tmp_path)
    (tmp_path / "f000").rename(tmp_path / "a.dcm")
    for name in ("._a.dcm", "._b.dcm"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(100))
    told = sorted(outcomes(tmp_path))
    assert [one.split(":")[0] for one in told] == [
        READ,
        "the content is not what the name says, or damaged",
        "what macOS keeps on the file beside it (AppleDouble), no image",
    ]


def test_a_scout_among_the_slices_is_left_out(tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(4)]
    slices[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    slices[1].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]  # and one that does not say it
    save_all(slices, tmp_path)
    shapes = [entry.load().array.shape[1] for entry in inventory(tmp_path) if entry.refusal is None]
    assert sorted(shapes) == [1, 2]


def raw_of_a_camera(path: Path) -> None:
    preview = {"subfiletype": 1}
    with tifffile.TiffWriter(path) as writer:
        writer.write(COLOUR, photometric="rgb", metadata=None, **preview)


def dng(path: Path) -> None:
    tifffile.imwrite(
        path, COLOUR, photometric="rgb", metadata=None, extratags=[(50706, 1, 4, bytes([1, 4, 0, 0]), True)]
    )


EXIF = Image.Exif()
EXIF[274] = 6
PHOTOS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "grey with alpha, 16 bits": (
        "a.png",
        lambda p: p.write_bytes(imagecodecs.png_encode(np.stack([ROWS * 900, COLUMNS * 800], -1).astype(np.uint16))),
        READ,
    ),
    "turned by EXIF": ("a.jpg", lambda p: Image.fromarray(COLOUR).save(p, quality=100, subsampling=0, exif=EXIF), READ),
    "CMYK": ("a.jpg", lambda p: Image.fromarray(COLOUR).convert("CMYK").save(p), "printing"),
    "CMYK TIFF": ("a.tif", lambda p: Image.fromarray(COLOUR).convert("CMYK").save(p), "CMYK"),
    "two pages": ("a.tif", lambda p: tifffile.imwrite(p, np.stack([COLOUR] * 2), photometric="rgb"), "2 pages"),
    "float": ("a.tif", lambda p: tifffile.imwrite(p, np.float32(COLOUR / 255), photometric="rgb"), READ),
    "float of 0 to 255": ("a.tif", lambda p: tifffile.imwrite(p, np.float32(COLOUR), photometric="rgb"), "from 0 to 1"),
    "signed": ("a.tif", lambda p: tifffile.imwrite(p, (ROWS * 9 - 50).astype(np.int16)), "int16"),
    "white is zero": ("a.tif", lambda p: tifffile.imwrite(p, COLOUR[..., 0], photometric="miniswhite"), READ),
    "preview of a raw": ("a.tif", raw_of_a_camera, "preview"),
    "DNG": ("a.dng", dng, "camera raws"),
    "empty": ("a.png", lambda p: p.write_bytes(b""), "empty"),
    "empty DICOM": ("a.dcm", lambda p: p.write_bytes(b""), "empty"),
    "another content": ("a.png", lambda p: p.write_text("hello"), "not what the name says"),
}


@pytest.mark.parametrize("case", PHOTOS)
def test_photos(case: str, tmp_path: Path) -> None:
    name, make, wanted = PHOTOS[case]
    make(tmp_path / name)
    (told,) = outcomes(tmp_path) if wanted != READ or name != "a.jpg" else [opened(tmp_path)]
    assert wanted in told


def opened(folder: Path) -> str:
    (entry,) = inventory(folder)  # JPEG loses something whenever it is written
    assert entry.load().array.shape == (3, 64, 80), "in stored order; the viewer turns it"
    return READ


VOXELS = np.random.default_rng(0).gamma(2, 100, (40, 40, 6)).astype(np.int16)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("scl_slope", 0, READ), ("scl_slope", np.nan, READ), ("scl_slope", -1, "negative"), ("pixdim", -1, READ),
        ("xyzt_units", 0, READ), ("xyzt_units", 3, READ), ("intent_code", 1002, "label map"), ("dim", 9, "damaged"),
        ("datatype", 32, "not real-valued"), ("datatype", 128, "RGB NIfTI"),
    ],
)  # fmt: skip
def test_fields_of_nifti(field: str, value: float, wanted: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS, np.diag([-1.0, 1, 3, 1]))  # left-handed
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    header[field] = [value, *np.atleast_1d(header[field])[1:]] if header[field].ndim else value
    content[:348] = header.binaryblock
    (tmp_path / "sub-1_T1w.nii").write_bytes(content)
    (told,) = outcomes(tmp_path)
    assert wanted in told


@pytest.mark.parametrize("coded", [0, 1])
@pytest.mark.parametrize("sizes", [(2, 40, 40), (3, 40, 40, 1), (4, 40, 40, 1, 0)])
def test_a_single_slice_needs_no_thickness(sizes: tuple[int, ...], coded: int, tmp_path: Path) -> None:
    """Of 2-D files pixdim[3] is undefined, and 0 as the number of time points is 1 to niftilib."""
    image = nibabel.Nifti1Image(VOXELS[..., 0], np.eye(4))
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    header["dim"], header["pixdim"] = [*sizes, *[1] * (8 - len(sizes))], [1, 2, 3, 0, 0, 0, 0, 0]
    header["qform_code"], header["sform_code"] = coded, 0
    content[:348] = header.binaryblock
    (tmp_path / "sub-1_T1w.nii").write_bytes(content)
    (entry,) = inventory(tmp_path)
    affine = entry.load().affine
    assert affine is not None
    np.testing.assert_allclose(np.abs(np.diag(affine)), [2, 3, 1, 1])
    assert outcomes(tmp_path) == [READ]
    assert (tmp_path / "out" / "sub-1_T1w.nii").read_bytes()[:348] == content[:348]


def test_qform_and_sform_that_disagree_both_come_back(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS, np.diag([1.0, 1, 3, 1]))
    image.set_qform(np.diag([1.0, 1, 3, 1]), 1)
    image.set_sform(np.diag([-1.0, -1, 3, 1]), 2)
    image.to_filename(tmp_path / "sub-1_T1w.nii.gz")
    assert outcomes(tmp_path) == [READ]
    again = nibabel.load(tmp_path / "out" / "sub-1_T1w.nii.gz")
    np.testing.assert_array_equal(again.get_qform(), image.get_qform())
    np.testing.assert_array_equal(again.get_sform(), image.get_sform())


def test_shades_of_dots_are_no_photo_and_line_art_is_let_be(tmp_path: Path) -> None:
    shades = Image.fromarray(np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1)))
    (tmp_path / "dots").mkdir()
    shades.convert("1").save(tmp_path / "dots" / "dithered.png")
    (reason,) = outcomes(tmp_path / "dots")
    assert reason.startswith("its shades are dots of two values (dithered, halftone), not those of a photo")
    assert outcomes(tmp_path / "dots", force_modality=True) == [READ]
    line_art = np.zeros((120, 160), bool)
    line_art[20:100:16, 20:140] = line_art[20:100, 30:32] = True
    (tmp_path / "lines").mkdir()
    Image.fromarray(line_art).save(tmp_path / "lines" / "lines.png")
    assert outcomes(tmp_path / "lines") == [READ]
