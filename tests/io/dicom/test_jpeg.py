"""JPEG Extended and Lossless decode by imagecodecs, to the pixels that other decoders see."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom import jpeg
from monai_sasm.io.dicom.pixels import missing_decoder, read_stored
from tests.data import DATA

ODD = DATA / "dicom_odd"
EXTENDED_12_BIT, PROCESS_14, FIRST_ORDER = jpeg.SYNTAXES
LOSSLESS = [
    "pydicom-data/JPEG-LL.dcm",
    "pylibjpeg-data/JPEGLossless__JPEGLossless_1s_1f_i_16_16_bad.dcm",
    "dicom2nifti/generic__compressed_jpeg__001",
]
needs_data = pytest.mark.skipif(not ODD.is_dir(), reason=f"no real data at {DATA}; set SASM_DATA")


def image(signed: bool = False) -> np.ndarray:
    rows, columns = np.mgrid[:40, :56]
    values = 60 * rows + columns * columns % 997
    return (values - 1200 if signed else values).astype(np.int16 if signed else np.uint16)


def written(folder: Path, frames: list[bytes], syntax: str, signed: bool = False) -> Path:
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    dataset.Rows, dataset.Columns = image().shape
    dataset.BitsStored = 16 if signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(folder / "a.dcm")
    return folder / "a.dcm"


def lossless(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(pixels.view(np.uint16), bitspersample=16))


@pytest.mark.parametrize("syntax", jpeg.SYNTAXES)
def test_the_codings_need_no_other_package(syntax: str) -> None:
    assert missing_decoder(syntax) is None
    assert jpeg.is_available(syntax)
    assert not jpeg.is_available("1.2.840.10008.1.2.4.50")


@pytest.mark.parametrize("signed", [False, True])
def test_lossless_pixels_come_back(tmp_path: Path, signed: bool) -> None:
    _, stored = read_stored(written(tmp_path, [lossless(image(signed))], PROCESS_14, signed))
    np.testing.assert_array_equal(stored.values[0], image(signed))


def test_twelve_bits_come_back_within_the_rounding(tmp_path: Path) -> None:
    coded = imagecodecs.jpeg8_encode(image(), level=100, bitspersample=12)
    _, stored = read_stored(written(tmp_path, [bytes(coded)], EXTENDED_12_BIT))
    assert np.abs(stored.values[0] - image()).max() <= 4
    assert stored.values.max() > 3000  # twelve bits, not eight


@pytest.mark.parametrize("kept", [0.4, 0.95])
def test_a_truncated_codestream_is_refused(tmp_path: Path, kept: float) -> None:
    coded = lossless(image())
    path = written(tmp_path, [coded[: int(len(coded) * kept)]], PROCESS_14)
    with pytest.raises(RefusedError, match="cut off"):
        read_stored(path)


@pytest.mark.parametrize("appended", [b"\x90", b"\0", b"\xff", b"\0\xd9\x12 of something else"])
def test_what_an_archive_appends_to_a_frame_does_not_matter(tmp_path: Path, appended: bytes) -> None:
    """RICORD's files end with a byte of whatever was in memory where the length was odd."""
    _, stored = read_stored(written(tmp_path, [lossless(image()) + appended], PROCESS_14))
    np.testing.assert_array_equal(stored.values[0], image())


def test_the_end_of_a_thumbnail_is_not_that_of_the_image(tmp_path: Path) -> None:
    coded = lossless(image())
    thumbnail = b"\xff\xd8\xff\xda\0\0\xff\xd9"
    application = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = written(tmp_path, [coded[:2] + application + coded[2 : len(coded) // 2]], PROCESS_14)
    with pytest.raises(RefusedError, match="cut off"):
        read_stored(path)


def test_colour_is_not_read() -> None:
    colour = imagecodecs.jpeg8_encode(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="one sample per pixel"):
        jpeg.decoded(bytes(colour))


def test_pydicom_2_gets_the_frames_in_its_type(tmp_path: Path) -> None:
    frames = [lossless(image(signed=True)), lossless(image(signed=True)[::-1].copy())]
    dataset = pydicom.dcmread(written(tmp_path, frames, PROCESS_14, signed=True))
    flat = jpeg.get_pixeldata(dataset)
    assert flat.dtype == np.int16
    np.testing.assert_array_equal(flat.reshape(2, 40, 56), [image(signed=True), image(signed=True)[::-1]])
    assert jpeg.supports_transfer_syntax(FIRST_ORDER)


@needs_data
@pytest.mark.parametrize("name", LOSSLESS)
def test_real_lossless_files_equal_two_other_decoders(name: str) -> None:
    found = ODD / name
    path = found if found.is_file() else sorted(file for file in found.rglob("*") if file.is_file())[0]
    frames = getattr(pydicom.encaps, "generate_frames", None) or pydicom.encaps.generate_pixel_data_frame  # pydicom 2
    data = pydicom.dcmread(path).PixelData
    frame = next(
        frames(data, **({"number_of_frames": 1} if frames.__name__ == "generate_frames" else {"nr_frames": 1}))
    )
    samples = jpeg.decoded(frame)
    np.testing.assert_array_equal(samples, imagecodecs.ljpeg_decode(frame))
    np.testing.assert_array_equal(samples, imagecodecs.jpegsof3_decode(frame))
    _, stored = read_stored(path)
    np.testing.assert_array_equal(stored.values[0].astype(np.uint16), samples)


def test_threads_register_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pytest.importorskip("pydicom.pixels")

    class Slow:
        """A decoder of pydicom between whose answer and whose refusal another thread has its turn."""

        def __init__(self) -> None:
            self.plugins: list[str] = []
            self._unavailable: tuple[str, ...] = ()

        @property
        def available_plugins(self) -> tuple[str, ...]:
            known = tuple(self.plugins)
            time.sleep(0.02)
            return known

        def add_plugin(self, label: str, _path: tuple[str, str]) -> None:
            if label in self.plugins:
                raise ValueError(f"already has a plugin named {label!r}")
            self.plugins.append(label)

    decoders = {syntax: Slow() for syntax in jpeg.SYNTAXES}
    monkeypatch.setattr(pixels, "get_decoder", decoders.__getitem__)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: jpeg.register(), range(3)))
    assert all(decoder.plugins == [jpeg.PLUGIN] for decoder in decoders.values())
