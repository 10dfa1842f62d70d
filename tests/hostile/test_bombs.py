"""Small files that promise to be huge: refused before anything is allocated for them."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import monai.bundle  # noqa: F401  (loaded ahead, for its size is not the file's)
import nibabel
import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from tests.hostile.conftest import FREE
from tests.hostile.laws import restored
from tests.io.dicom.dicom_cases import ct_slice, file_meta_of

DEFLATED = "1.2.840.10008.1.2.1.99"


def nifti_header(shape: tuple[int, ...], kind: type = nibabel.Nifti1Header) -> bytes:
    header = kind()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["vox_offset"] = 544 if kind is nibabel.Nifti2Header else 352
    header.set_sform(np.eye(4), 1)
    return bytes(header.binaryblock) + b"\0\0\0\0"


def voxels() -> bytes:
    """A volume that is all there, packed 1000 to 1, and needs more memory than there is."""
    slices = FREE // (4 * 512 * 512) + 1
    return gzip.compress(nifti_header((512, 512, slices)) + bytes(2 * 512 * 512 * slices), 1)


def promised_voxels() -> bytes:
    return gzip.compress(nifti_header((30000, 30000, 30000)))


def promised_voxels_unpacked() -> bytes:
    return nifti_header((2**31, 2**31, 2**31), nibabel.Nifti2Header)


def extensions() -> bytes:
    header = bytearray(nifti_header((9, 9, 9)))
    struct.pack_into("<f", header, 108, FREE)
    header[348:] = b"\1\0\0\0" + struct.pack("<ii", FREE - 352, 6)
    return gzip.compress(bytes(header) + bytes(FREE), 1)


def _packed(dataset: Dataset, meta: Callable[[Dataset], None] = lambda meta: None) -> tuple[bytes, bytes]:
    """File meta information for a deflated data set, and the data set, not yet deflated."""
    buffer = DicomBytesIO()
    dataset.file_meta, dataset.preamble = file_meta_of(dataset), b"\0" * 128
    dcmwrite(buffer, dataset, enforce_file_format=True)
    plain = bytes(buffer.getvalue())
    dataset.file_meta.TransferSyntaxUID = DEFLATED
    meta(dataset.file_meta)
    head = DicomBytesIO()
    dcmwrite(head, dataset, enforce_file_format=True)
    inside = plain[plain.index(b"\x08\x00\x05\x00CS") :]
    written = bytes(head.getvalue())
    return written[: 144 + struct.unpack("<L", written[140:144])[0]], inside


def _deflated(inside: bytes, more: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    tail = b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<L", more)  # Data Set Trailing Padding
    return packer.compress(inside + tail) + packer.compress(bytes(more)) + packer.flush()


def deflated(more: int = FREE) -> bytes:
    head, inside = _packed(ct_slice(0))
    return head + _deflated(inside, more)


def deflated_with_false_length(more: int = FREE) -> bytes:
    head, inside = _packed(ct_slice(0))
    return head[:140] + struct.pack("<L", 7) + head[144:] + _deflated(inside, more)


def deflated_with_long_meta(more: int = FREE) -> bytes:
    def fill(meta: Dataset) -> None:
        meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.3", bytes(70000)
        meta.ImplementationVersionName = "x"

    head, inside = _packed(ct_slice(0), fill)
    return head + _deflated(inside, more)


def deflated_without_preamble(more: int = FREE) -> bytes:
    head, inside = _packed(ct_slice(0))
    return head[132:] + _deflated(inside, more)


def promised_pixels() -> bytes:
    dataset = ct_slice(0)
    dataset.Rows = dataset.Columns = 60000
    return _file(dataset)


def promised_runs() -> bytes:
    dataset = ct_slice(0)
    dataset.file_meta = file_meta_of(dataset)
    dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 60000
    return _file(dataset, "1.2.840.10008.1.2.5")


def promised_frame() -> bytes:
    """A JPEG 2000 codestream that says it is larger than the header has it."""
    dataset = ct_slice(0)
    dataset.file_meta = file_meta_of(dataset)
    dataset.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    content = bytearray(_file(dataset, "1.2.840.10008.1.2.4.90"))
    size = content.index(b"\xff\x51") + 6  # Xsiz, Ysiz of the SIZ marker
    content[size : size + 8] = struct.pack(">II", 60000, 60000)
    content[size + 16 : size + 24] = struct.pack(">II", 60000, 60000)  # as one tile
    return bytes(content)


def _file(dataset: Dataset, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    dataset.file_meta, dataset.preamble = file_meta_of(dataset), b"\0" * 128
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = DicomBytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return bytes(buffer.getvalue())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(side: int, pixels: bytes, *extra: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def png() -> bytes:
    side = 9000
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side))
    return _png(side, rows + packer.flush())


def png_text() -> bytes:
    return _png(4, zlib.compress(bytes(4 * 13)), _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(FREE), 1)))


def png_profile() -> bytes:
    return _png(4, zlib.compress(bytes(4 * 13)), _chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(FREE), 1)))


def tiff() -> bytes:
    """One strip that promises 60000 x 60000 pixels."""
    strip = zlib.compress(bytes(1 << 20))
    tags = [(256, 4, 60000), (257, 4, 60000), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 200), (277, 3, 1)]
    tags += [(278, 4, 60000), (279, 4, len(strip))]
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + strip


def bmp() -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head + bytes(99)


def jpeg() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    frame = content.index(b"\xff\xc0") + 5
    content[frame : frame + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(content)


BOMBS = {
    "a_ct.nii.gz": (voxels, promised_voxels, extensions),
    "a_ct.nii": (promised_voxels_unpacked,),
    "a.dcm": (
        *(deflated, deflated_with_false_length, deflated_with_long_meta, deflated_without_preamble),
        *(promised_pixels, promised_runs, promised_frame),
    ),
    "a.png": (png, png_text, png_profile),
    "a.tif": (tiff,),
    "a.bmp": (bmp,),
    "a.jpg": (jpeg,),
}
CASES = [(name, make) for name, makers in BOMBS.items() for make in makers]


@pytest.mark.parametrize(("name", "make"), CASES, ids=[make.__name__ for _, make in CASES])
def test_bombs_are_refused_before_they_go_off(
    name: str, make: Callable[[], bytes], trust: Path, tmp_path: Path, little_memory: None
) -> None:
    content = make()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    assert len(content) < FREE // 20
    before = peak(anew=True)
    (row,) = restored(tmp_path / "in", tmp_path / "out", trust)
    if make not in (png_text, png_profile):  # what is beside the pixels may be left out
        assert row["status"] in ("skipped", "failed"), row
    assert peak() - before < FREE


def peak(*, anew: bool = False) -> int:
    """The most memory that this process has held, bytes: ever, or since it was asked ``anew``."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        pytest.skip("only Linux tells the peak of a process")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_the_cases_would_go_off(tmp_path: Path) -> None:
    """They are what they say: unpacked, they are larger than the memory; deflated ones are found to be deflated."""
    assert len(gzip.decompress(extensions())) > FREE
    from pydicom import dcmread

    for make in (deflated, deflated_with_false_length, deflated_with_long_meta, deflated_without_preamble):
        dataset = dcmread(io.BytesIO(make(1000)), force=True)
        assert (dataset.Rows, len(dataset.DataSetTrailingPadding)) == (64, 1000)
