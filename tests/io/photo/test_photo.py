"""Photo laws: pixels, bit depth, alpha and metadata come back; what cannot be right is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from monai_sasm.errors import RefusedError
from monai_sasm.io import formats
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.photo import photo as raster
from monai_sasm.io.photo import pixels
from monai_sasm.types import Modality
from tests.data import DATA

DERIVATION = Derivation("monai_sasm", "1.0")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SHAPES = {"grey": (11, 7), "grey+alpha": (11, 7, 2), "rgb": (11, 7, 3), "rgba": (11, 7, 4)}


def samples(shape: tuple[int, ...], dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def exif(orientation: int = 6) -> Image.Exif:
    block = Image.Exif()
    block[274], block[272] = orientation, "camera"
    return block


def returned(source: Path, target: Path | None = None, offset: float = 0.0) -> Path:
    """The file after reading and writing with ``offset`` added to the pixels."""
    volume = raster.read(source)
    target = target or source.with_name(f"out{source.suffix}")
    raster.write(volume.with_array(volume.array + np.float32(offset)), target, DERIVATION)
    return target


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_lossless_pixels_come_back(kind: str, layout: str, dtype: str, tmp_path: Path) -> None:
    before = samples(SHAPES[layout], dtype)
    source = tmp_path / f"in.{kind}"
    if kind == "png":
        source.write_bytes(imagecodecs.png_encode(before))
        after = imagecodecs.png_decode(returned(source).read_bytes())
    else:
        alpha = ["unassalpha"] if before.ndim == 3 and before.shape[2] in (2, 4) else None
        colour = "rgb" if before.shape[-1] in (3, 4) else "minisblack"
        planar = "contig" if before.ndim == 3 else None
        tifffile.imwrite(source, before, photometric=colour, extrasamples=alpha, planarconfig=planar, metadata=None)
        after = tifffile.imread(returned(source))
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after, before)
    volume = raster.read(source)
    colours = 3 if "rgb" in layout else 1
    assert volume.array.shape == (colours, 11, 7)
    assert (volume.modality, volume.affine, volume.slice_axis) == (Modality.PHOTO, None, None)
    expected = before.reshape(11, 7, -1)[..., :colours] / np.iinfo(dtype).max
    np.testing.assert_allclose(volume.array, np.moveaxis(expected, 2, 0), atol=1e-7)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_changed_pixels_are_clipped_and_rounded_and_alpha_stays(dtype: str, tmp_path: Path) -> None:
    before, full = samples((11, 7, 4), dtype), np.iinfo(dtype).max
    source = tmp_path / "in.png"
    source.write_bytes(imagecodecs.png_encode(before))
    after = imagecodecs.png_decode(returned(source, offset=0.1).read_bytes())
    wanted = np.clip(before[..., :3] / full + 0.1, 0, 1) * full
    assert np.abs(after[..., :3] - wanted).max() <= 0.51
    assert after.max() == full
    np.testing.assert_array_equal(after[..., 3], before[..., 3])


@pytest.mark.parametrize("name", ["natural/set12/01.png", "raindrop/pairs/data/0_rain.png"])
def test_real_png_comes_back(name: str, tmp_path: Path) -> None:
    source = DATA / name
    if not source.exists():
        pytest.skip(f"real data not there: {source}")
    after = returned(source, tmp_path / "out.png")
    with Image.open(source) as left, Image.open(after) as right:
        assert left.mode == right.mode
        np.testing.assert_array_equal(np.array(left), np.array(right))


def test_real_jpeg_is_compressed_as_before(tmp_path: Path) -> None:
    sources = sorted((DATA / "natural" / "bsds500" / "test").glob("*.jpg"))[:2]
    if not sources:
        pytest.skip(f"real data not there: {DATA}")
    for source in sources:
        after = returned(source, tmp_path / source.name)
        with Image.open(source) as left, Image.open(after) as right:
            assert left.quantization == right.quantization
            assert left.size == right.size
            assert np.abs(np.array(left, int) - np.array(right, int)).mean() < 1


@pytest.mark.parametrize("bits", [8, 16])
def test_png_metadata_comes_back(bits: int, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "window")
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    image = Image.fromarray(samples((11, 7, 3)))
    image.save(source, icc_profile=PROFILE, dpi=(300, 300), exif=exif(), pnginfo=text)
    if bits == 16:  # Pillow cannot write it: put Pillow's chunks into a 16-bit file
        chunks = source.read_bytes()
        deep = imagecodecs.png_encode(samples((11, 7, 3), "u2"))
        source.write_bytes(deep[:33] + chunks[33 : chunks.index(b"IDAT") - 4] + deep[33:])
    after = returned(source)
    with Image.open(source) as left, Image.open(after) as right:
        left.load(), right.load()
        assert right.info["icc_profile"] == PROFILE
        assert right.info["dpi"] == left.info["dpi"]
        assert right.info["Title"] == "window"
        assert right.info["XML:com.adobe.xmp"] == "<x:xmpmeta/>"
        assert right.info["exif"] == left.info["exif"]
        assert right.getexif()[274] == 6
        assert right.size == left.size


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_jpeg_metadata_tables_and_sampling_come_back(sampling: int, progressive: bool, tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8) * 2
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp.max() - ramp], axis=2))
    options = {"icc_profile": PROFILE, "dpi": (240, 240), "exif": exif(), "comment": b"hello"}
    image.save(source, quality=71, subsampling=sampling, progressive=progressive, **options)
    plain, xmp = source.read_bytes(), b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    after_jfif = 4 + struct.unpack(">H", plain[4:6])[0]
    source.write_bytes(plain[:after_jfif] + struct.pack(">HH", 0xFFE1, len(xmp) + 2) + xmp + plain[after_jfif:])
    after = returned(source)
    with Image.open(source) as left, Image.open(after) as right:
        assert right.quantization == left.quantization
        assert raster.jpeg.decode(after.read_bytes()).header.subsampling == sampling
        assert right.info.get("progressive") == left.info.get("progressive")
        for key in ("icc_profile", "dpi", "exif", "comment"):
            assert right.info[key] == left.info[key], key
        assert after.read_bytes().count(xmp) == 1
        assert np.abs(np.array(left, int) - np.array(right, int)).mean() < 1.5


def test_noisy_progressive_jpeg_falls_back_to_baseline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    header = raster.jpeg.JpegHeader({0: [1] * 64, 1: [1] * 64}, 0, True, False, ())
    noise = samples((512, 512, 3))
    encoded = raster.jpeg.encode(pixels.split(noise, header))
    assert np.abs(raster.jpeg.decode(encoded).values.astype(int) - noise).max() <= 4
    capfd.readouterr()  # libjpeg reports its full buffer


def test_grey_jpeg_stays_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(tmp_path / "in.jpg")
    with Image.open(returned(tmp_path / "in.jpg")) as image:
        assert image.mode == "L"
        assert np.abs(np.array(image, int) - 77).max() <= 1


@pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "packbits", "zstd"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_packing_and_tags_come_back(byteorder: str, compression: str | None, tmp_path: Path) -> None:
    source, before = tmp_path / "in.tif", samples((11, 7, 3), "u2")
    tags = [(274, 3, 1, 8, True), (34675, 7, len(PROFILE), PROFILE, True), (315, 2, 0, "Zoë".encode(), True)]
    with tifffile.TiffWriter(source, byteorder=byteorder) as writer:
        options = {"resolution": (300, 300), "resolutionunit": 2, "extratags": tags, "metadata": None}
        writer.write(before, photometric="rgb", compression=compression, description="drops", **options)
    with tifffile.TiffFile(source) as left, tifffile.TiffFile(returned(source)) as right:
        assert right.byteorder == left.byteorder == byteorder
        old, new = left.pages[0], right.pages[0]
        assert new.compression == old.compression
        for code in (270, 274, 282, 283, 296, 315, 34675):
            assert new.tags[code].value == old.tags[code].value, code
        np.testing.assert_array_equal(new.asarray(), before)


def test_white_is_zero_planar_and_associated_alpha_tiff(tmp_path: Path) -> None:
    before = samples((11, 7))
    tifffile.imwrite(tmp_path / "white.tif", before, photometric="miniswhite", metadata=None)
    np.testing.assert_allclose(raster.read(tmp_path / "white.tif").array[0], 1 - before / 255, atol=1e-6)
    with tifffile.TiffFile(returned(tmp_path / "white.tif")) as file:
        assert file.pages[0].photometric == 0
        np.testing.assert_array_equal(file.pages[0].asarray(), before)
    planes = samples((4, 11, 7))
    options = {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["assocalpha"], "metadata": None}
    tifffile.imwrite(tmp_path / "planar.tif", planes, **options)
    with tifffile.TiffFile(returned(tmp_path / "planar.tif", tmp_path / "p.tif")) as file:
        assert [int(extra) for extra in file.pages[0].extrasamples] == [1]
        np.testing.assert_array_equal(file.pages[0].asarray(), np.moveaxis(planes, 0, 2))


def test_float_tiff_in_range_comes_back_and_outside_is_refused(tmp_path: Path) -> None:
    before = np.random.default_rng(0).random((9, 8, 3), dtype=np.float32)
    tifffile.imwrite(tmp_path / "in.tif", before, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(tifffile.imread(returned(tmp_path / "in.tif")), before)
    tifffile.imwrite(tmp_path / "far.tif", before * 300, photometric="rgb", metadata=None)
    with pytest.raises(RefusedError, match="from 0 to 1"):
        raster.read(tmp_path / "far.tif")


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_palette_and_one_bit_keep_their_look(kind: str, tmp_path: Path) -> None:
    colour = Image.fromarray(samples((11, 7, 3))).quantize(16)
    colour.save(tmp_path / f"palette.{kind}")
    with Image.open(returned(tmp_path / f"palette.{kind}")) as image:
        np.testing.assert_array_equal(np.array(image), np.array(colour.convert("RGB")))
    bit = Image.fromarray(samples((11, 7)) > 127)
    bit.save(tmp_path / f"bit.{kind}")
    with Image.open(returned(tmp_path / f"bit.{kind}", tmp_path / f"out-bit.{kind}")) as image:
        np.testing.assert_array_equal(np.array(image.convert("L")), np.array(bit.convert("L")))
    assert raster.read(tmp_path / f"bit.{kind}").notes


@pytest.mark.parametrize("transparency", [3, (1, 2, 3)])
def test_png_colour_key_becomes_alpha(transparency: object, tmp_path: Path) -> None:
    pixels_ = samples((11, 7, 3)) if isinstance(transparency, tuple) else samples((11, 7))
    pixels_[2, 3] = transparency
    image = Image.fromarray(pixels_)
    image.save(tmp_path / "in.png", transparency=transparency)
    with Image.open(returned(tmp_path / "in.png")) as after:
        alpha = np.array(after)[..., -1]
        assert after.mode in ("LA", "RGBA")
        assert alpha[2, 3] == 0
        assert (alpha == 255).sum() == alpha.size - 1


def test_bmp_comes_back(tmp_path: Path) -> None:
    image = Image.fromarray(samples((11, 7, 3)))
    image.save(tmp_path / "in.bmp", dpi=(96, 96))
    with Image.open(returned(tmp_path / "in.bmp")) as after:
        np.testing.assert_array_equal(np.array(after), np.array(image))
        assert round(after.info["dpi"][0]) == 96


def animated(path: Path) -> None:
    first = Image.fromarray(samples((8, 8, 3)))
    first.save(path, "PNG", save_all=True, append_images=[first.rotate(90)])


def bomb(path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(raster.png.MAGIC + chunk + bytes(12))


def cut(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(samples((64, 64, 3))).save(buffer, kind)
    return buffer.getvalue()[:-2000]


def cmyk(path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(path, "JPEG")


REFUSED = {
    "animated": (animated, "animated"),
    "bomb": (bomb, "exceed the limit"),
    "cmyk jpeg": (cmyk, "printing"),
    "cmyk tiff": (lambda path: Image.new("CMYK", (8, 8)).save(path, "TIFF"), "CMYK"),
    "pages": (lambda path: tifffile.imwrite(path, samples((3, 9, 8)), photometric="minisblack"), "3 pages"),
    "int32 tiff": (lambda path: tifffile.imwrite(path, np.zeros((9, 8), np.int32)), "32-bit"),
    "text": (lambda path: path.write_text("no picture at all"), "whatever the name"),
    "empty": (lambda path: path.write_bytes(b""), "whatever the name"),
    "png header": (lambda path: path.write_bytes(raster.png.MAGIC), "damaged"),
    "jpeg header": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\x00"), "damaged"),
    "tiff header": (lambda path: path.write_bytes(b"II*\0\xff\xff\xff\x7f"), "damaged"),
    "bmp header": (lambda path: path.write_bytes(b"BM12345"), "damaged"),
    "cut bmp header": (lambda path: path.write_bytes(b"BM" + bytes(30)), "damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused_by_its_header(case: str, tmp_path: Path) -> None:
    make, reason = REFUSED[case]
    make(tmp_path / "in")
    assert reason in str(raster.inspect(tmp_path / "in").refusal)
    with pytest.raises(RefusedError, match=reason):
        raster.read(tmp_path / "in")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_cut_pixels_are_refused_when_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(cut(kind))
    with pytest.raises(RefusedError, match="damaged"):
        raster.inspect(tmp_path / "in").load()


def test_photo_is_no_ct(tmp_path: Path) -> None:
    Image.fromarray(samples((8, 8))).save(tmp_path / "a.png")
    assert "no CT units" in str(formats.inventory(tmp_path / "a.png", Modality.CT)[0].refusal)
    assert formats.inventory(tmp_path / "a.png", Modality.PHOTO)[0].refusal is None


def test_source_and_existing_files_are_safe_and_failures_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(samples((8, 8, 3))).save(source)
    before, volume = source.read_bytes(), raster.read(source)
    with pytest.raises(ValueError, match="source"):
        raster.write(volume, source, DERIVATION, overwrite=True)
    (tmp_path / "alias.png").symlink_to(source)
    with pytest.raises(ValueError, match="source"):
        raster.write(volume, tmp_path / "alias.png", DERIVATION, overwrite=True)
    with pytest.raises(ValueError, match="change the suffix"):
        raster.write(volume, tmp_path / "out.jpg", DERIVATION)
    with pytest.raises(ValueError, match="finite"):
        raster.write(volume.with_array(volume.array * np.float32(np.nan)), tmp_path / "out.png", DERIVATION)
    raster.write(volume, tmp_path / "new" / "out.png", DERIVATION)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        raster.write(volume, tmp_path / "new" / "out.png", DERIVATION)
    raster.write(volume, tmp_path / "new" / "out.png", DERIVATION, overwrite=True)
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        raster.write(volume, tmp_path / "new" / "two.png", DERIVATION)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.png"]
    assert source.read_bytes() == before


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("bands", [2, 4])
def test_a_further_band_of_a_tiff_stays_what_it_is(tmp_path: Path, bands: int, extra: int) -> None:
    """ExtraSamples 0 is a band of unspecified meaning, such as near infrared, and no transparency."""
    before = samples((11, 7, bands))
    colour = "rgb" if bands == 4 else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.tif", before, photometric=colour, planarconfig="contig", extrasamples=[extra], metadata=None
    )
    with tifffile.TiffFile(returned(tmp_path / "a.tif", tmp_path / "out.tif")) as file:
        assert [int(one) for one in file.pages[0].extrasamples] == [extra]
        np.testing.assert_array_equal(file.pages[0].asarray(), before)
    if extra == 0:
        with pytest.raises(ValueError, match="would make transparency"):
            returned(tmp_path / "a.tif", tmp_path / "out.png")
