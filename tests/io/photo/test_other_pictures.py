"""WebP, GIF, JPEG 2000, AVIF, HEIC and PNM are read as others read them; pictures of scans are told."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, features

from monai_sasm.errors import RefusedError
from monai_sasm.io import formats
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.photo.photo import read

DERIVATION = Derivation("monai_sasm", "1.0")
RAMP = np.stack(np.broadcast_arrays(np.arange(24)[:, None] * 10, np.arange(20) * 12, 77), -1).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 65536, (9, 7, 3)).astype(np.uint16)


def saved(path: Path, kind: str, **options: object) -> Path:
    Image.fromarray(RAMP).save(path, kind, **options)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.jp2", "a.ppm", "a.avif", "a.heic"])
def test_colours_are_those_that_pillow_sees(name: str, tmp_path: Path) -> None:
    kind = {"a.webp": "WEBP", "a.gif": "GIF", "a.jp2": "JPEG2000", "a.ppm": "PPM", "a.avif": "AVIF", "a.heic": "HEIF"}[
        name
    ]
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    source = saved(tmp_path / name, kind)
    expected = np.asarray(Image.open(source).convert("RGB"))
    (entry,) = formats.inventory(tmp_path)
    assert entry.refusal is None
    volume = entry.load()
    np.testing.assert_array_equal(np.rint(volume.array * 255).transpose(1, 2, 0), expected)
    assert any("written as PNG" in note for note in volume.notes)
    target = formats.output_path(entry, tmp_path, tmp_path / "out")
    assert target == tmp_path / "out" / "a.png"
    formats.write(volume, target, DERIVATION)
    np.testing.assert_array_equal(np.asarray(Image.open(target)), expected)
    with pytest.raises(ValueError, match="not written as"):
        formats.output_path(entry, source, tmp_path / f"out{source.suffix}") if name != "a.ppm" else formats.write(
            volume, tmp_path / "b.ppm", DERIVATION
        )


def test_profile_and_orientation_come_along(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "a.webp", "WEBP", exif=exif, icc_profile=b"profile" * 9, lossless=True)
    formats.save(read(tmp_path / "a.webp"), tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert image.getexif()[0x0112] == 6
    assert image.info["icc_profile"] == b"profile" * 9


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_of_several_pictures_is_said(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(RAMP, shift, 0)) for shift in (0, 5, 9)]
    frames[0].save(
        tmp_path / "a", kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    volume = read(tmp_path / "a")
    assert any("only the first of 3 pictures" in note for note in volume.notes)
    first = Image.open(tmp_path / "a")
    np.testing.assert_array_equal(np.rint(volume.array * 255).transpose(1, 2, 0), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize(("bits", "channels"), [(16, 3), (12, 1), (16, 1)])
def test_deep_jpeg_2000_stays_deep(bits: int, channels: int, tmp_path: Path) -> None:
    values = (NOISE >> (16 - bits))[..., :channels].squeeze()
    data = imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=bits, reversible=True)
    (tmp_path / "a.j2k").write_bytes(data)
    volume = read(tmp_path / "a.j2k")
    np.testing.assert_allclose(
        volume.array, np.moveaxis(values.reshape(9, 7, channels), 2, 0) / (2**bits - 1), atol=2e-5
    )
    (written,) = formats.save(volume, tmp_path / "a.png")
    assert imagecodecs.png_decode(written.read_bytes()).dtype == np.uint16


PNM = {
    "P1": (b"P1 # comment\n3 2\n1 0 1\n001", [[0, 1, 0], [1, 1, 0]]),
    "P2": (b"P2\n# a comment\n2 2\n# another\n10\n0 5\n10 1", [[0, 0.5], [1, 0.1]]),
    "P4": (b"P4\n3 2\n" + bytes([0b10100000, 0b00100000]), [[0, 1, 0], [1, 1, 0]]),
    "P5": (b"P5 2 2 200\n" + bytes([0, 100, 200, 50]), [[0, 0.5], [1, 0.25]]),
    "P5 deep": (b"P5\n2 1\n4095\n" + np.array([4095, 1], ">u2").tobytes(), [[1, 1 / 4095]]),
}


@pytest.mark.parametrize("kind", PNM)
def test_pnm_of_every_kind(kind: str, tmp_path: Path) -> None:
    content, expected = PNM[kind]
    (tmp_path / "a.pgm").write_bytes(content)
    np.testing.assert_allclose(
        read(tmp_path / "a.pgm").array[0], expected, atol=1 / 500 if "deep" not in kind else 1e-4
    )


def test_deep_ppm(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n7 9\n65535\n" + NOISE.astype(">u2").tobytes())
    np.testing.assert_allclose(read(tmp_path / "a.ppm").array.transpose(1, 2, 0), NOISE / 65535, atol=1e-6)


DAMAGED = {
    "cut.pgm": b"P5 20 20 255\n" + bytes(300),
    "over.pgm": b"P2 2 1 9\n5 10\n",
    "no.pgm": b"P5 20 x",
    "zero.pgm": b"P5 2 1 0\n12",
    "cut.webp": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(20),
    "cut.gif": b"GIF89a" + bytes(20),
    "cut.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
    "cut.avif": b"\0\0\0\x1cftypavif" + bytes(60),
    "cut.heic": b"\0\0\0\x1cftypheic" + bytes(60),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_ones_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(RefusedError):
        formats.inventory(tmp_path)[0].load()


def test_texts_are_no_pictures(tmp_path: Path) -> None:
    for name, content in {"a.txt": b"P1 is the first point", "b.txt": b"P5: five"}.items():
        (tmp_path / name).write_bytes(content)
    assert all("not an image" in str(entry.refusal) for entry in formats.inventory(tmp_path))


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_a_picture_of_a_scan_is_told(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:100, :100]
    head = np.where((rows - 50) ** 2 + (columns - 50) ** 2 < 35**2, 120 + rows % 30, 2)
    texture = 60 + 100 * np.random.default_rng(0).random((100, 100))

    def told(name: str, pixels: np.ndarray) -> bool:
        return any("X-ray, CT or MR" in note for note in read(picture(tmp_path / name, pixels)).notes)

    assert told("a.png", head)
    assert told("b.jpg", np.repeat(head[..., None], 3, 2))
    assert told("IM-CT-001.png", texture)
    assert told("chest_x-ray.png", texture)
    assert not told("garden.png", texture)
    assert not told("cat.png", np.stack([head, head // 2, head // 3], -1))
    assert not told("mri.png", np.stack([texture, texture / 2, texture], -1)), "in colour"
    assert not told("dark.png", np.zeros((64, 64)))


def waves(channels: int) -> np.ndarray:
    """Smooth colours in [0, 1], and alpha."""
    x = np.linspace(0, 1, 64)
    grey = 0.5 + 0.4 * np.sin(9 * x)[:, None] * np.cos(7 * x)[None]
    bands = {1: [grey], 3: [grey, grey**2, 1 - grey], 4: [grey, grey**2, 1 - grey, grey]}
    return np.stack(bands[channels], -1)


def encoded(image: np.ndarray, kind: str, bits: int, *, lossless: bool = True) -> bytes:
    """AVIF or HEIC of that many bits."""
    stored = np.rint(image * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    if kind == "avif":
        if not imagecodecs.AVIF.available:
            pytest.skip("this imagecodecs has no AVIF")
        return bytes(imagecodecs.avif_encode(np.squeeze(stored), level=100 if lossless else 97, bitspersample=bits))
    heif = pytest.importorskip("pillow_heif")
    heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    mode, filled = ("RGB", stored) if bits == 8 else ("RGB;16", stored << (16 - bits))
    buffer = io.BytesIO()
    heif.from_bytes(mode, image.shape[1::-1], filled.tobytes()).save(buffer, quality=100, chroma=444)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_deep_avif_keeps_its_bits(bits: int, channels: int, tmp_path: Path) -> None:
    image = waves(channels)
    (tmp_path / "a.avif").write_bytes(encoded(image, "avif", bits))
    volume = read(tmp_path / "a.avif")
    colours = image[..., :3]
    np.testing.assert_allclose(volume.array, np.moveaxis(colours, 2, 0), atol=0.55 / (2**bits - 1))
    formats.save(volume, tmp_path / "a.png")
    stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    assert stored.dtype == (np.uint8 if bits == 8 else np.uint16)
    if channels == 4:
        np.testing.assert_allclose(stored[..., 3] / np.iinfo(stored.dtype).max, image[..., 3], atol=0.51 / 255)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_deep_pictures_have_the_colours_of_eight_bits(kind: str, bits: int, tmp_path: Path) -> None:
    """Matrix and range of both decoders agree: no channel is brighter or darker than by rounding."""
    image = waves(3)
    (tmp_path / f"a.{kind}").write_bytes(encoded(image, kind, 8, lossless=False))
    (tmp_path / f"b.{kind}").write_bytes(encoded(image, kind, bits, lossless=False))
    shallow, deep = (read(tmp_path / f"{name}.{kind}").array for name in "ab")
    assert np.abs((deep - shallow).mean((1, 2))).max() < 1 / 255
    assert np.abs(deep - np.moveaxis(image, 2, 0)).mean() < np.abs(shallow - np.moveaxis(image, 2, 0)).mean()
    assert len(np.unique(deep)) > 1.2 * 256, "more steps than 8 bits have"


def test_deep_pictures_that_are_cut_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avif").write_bytes(encoded(waves(3), "avif", 10))
    monkeypatch.setattr(imagecodecs.AVIF, "available", False)
    volume = read(tmp_path / "a.avif")
    assert any("a picture of 10 bits, read with 8" in note for note in volume.notes)
    np.testing.assert_allclose(volume.array, np.moveaxis(waves(3), 2, 0), atol=1.01 / 255)
