"""How much memory there is, and files that promise more pixels than they can hold."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from monai_sasm.errors import RefusedError
from monai_sasm.io import memory
from monai_sasm.io.memory import _container, refuse_if_too_short
from tests.hostile.conftest import FREE
from tests.hostile.laws import restored

GIB = 1 << 30


def group(folder: Path, limit: str, usage: int, cache: int = 0, version: int = 2) -> None:
    """The files of one control group, as Linux shows them."""
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    word = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 1\n{word} {cache}\n")


def left(tmp_path: Path, *lines: str) -> int | None:
    (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))
    return _container(tmp_path / "cgroup", tmp_path / "sys")


def test_a_container_of_version_2(tmp_path: Path) -> None:
    group(tmp_path / "sys", str(4 * GIB), 3 * GIB, GIB)
    assert left(tmp_path, "0::/") == 2 * GIB
    assert left(tmp_path, "0::/docker/not/mounted/here") == 2 * GIB, "the path is the host's"


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    group(tmp_path / "sys" / "a" / "b", "max", GIB)
    group(tmp_path / "sys" / "a", str(2 * GIB), GIB)
    group(tmp_path / "sys" / "a" / "b" / "c", str(8 * GIB), GIB)
    assert left(tmp_path, "0::/a/b/c") == GIB
    assert left(tmp_path, "0::/a/b") == GIB
    assert left(tmp_path, "0::/other") is None


def test_a_container_of_version_1(tmp_path: Path) -> None:
    group(tmp_path / "sys" / "memory" / "docker" / "x", str(4 * GIB), 2 * GIB, GIB, version=1)
    group(tmp_path / "sys" / "memory", str((1 << 63) - 4096), 9 * GIB, version=1)
    assert left(tmp_path, "5:cpu,cpuacct:/docker/x", "3:memory:/docker/x", "0::/system.slice") == 3 * GIB
    assert left(tmp_path, "3:memory:/other") is None, "no limit"


@pytest.mark.parametrize("lines", [[], ["nonsense"], ["0::"], ["::::"], ["0::/../../.."]])
def test_what_nobody_tells_is_no_limit(lines: list[str], tmp_path: Path) -> None:
    assert left(tmp_path, *lines) is None
    assert _container(tmp_path / "missing", tmp_path) is None


def test_a_group_that_uses_more_than_it_may_has_nothing_left(tmp_path: Path) -> None:
    group(tmp_path / "sys", str(GIB), 2 * GIB)
    assert left(tmp_path, "0::/") == 0


def test_an_image_is_refused_by_the_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_machine", lambda: 64 * GIB)
    monkeypatch.setattr(memory, "_container", lambda *places: GIB)
    assert memory.free_memory() == GIB
    with pytest.raises(RefusedError, match=r"1\.0 GiB of memory are free"):
        memory.refuse_if_too_large(2 * GIB)
    monkeypatch.setattr(memory, "_container", lambda *places: None)
    memory.refuse_if_too_large(2 * GIB)


def promising(kind: str, side: int) -> bytes:
    """An intact small picture whose header says ``side`` times ``side``."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    if kind == "JPEG":
        frame = content.index(b"\xff\xc0") + 5
        content[frame : frame + 4] = struct.pack(">HH", side, side)
    elif kind == "PNG":
        content[16:24] = struct.pack(">II", side, side)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", side, side)
    else:
        for tag in (256, 257):
            place = content.index(struct.pack("<H", tag), content.index(struct.pack("<H", 256)))
            content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, side)
    return bytes(content)


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("BMP", "bmp"), ("TIFF", "tif")])
def test_a_short_file_cannot_hold_many_pixels(kind: str, suffix: str, trust: Path, tmp_path: Path) -> None:
    """12000 times 12000 pixels in some hundred bytes: refused by their number, however much memory there is."""
    content = promising(kind, 12000)
    assert len(content) < 1000
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a.{suffix}").write_bytes(content)
    (row,) = restored(tmp_path / "in", tmp_path / "out", trust)
    assert row["status"] in ("skipped", "failed")
    assert "cannot hold them" in row["reason"]


def test_a_blank_picture_may_be_short(tmp_path: Path) -> None:
    refuse_if_too_short(1 << 24, 100)
    with pytest.raises(RefusedError, match="cannot hold"):
        refuse_if_too_short((1 << 24) + 1, 100)
    blank = io.BytesIO()
    Image.new("1", (8000, 8000)).save(blank, "PNG")
    refuse_if_too_short(8000 * 8000, len(blank.getvalue()))


def test_the_estimate_is_the_way_from_file_to_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 megapixels stay below 4 GB, and are refused where less is free."""
    from monai_sasm.io.photo.pixels import check_size, memory_for

    assert memory_for(100_000_000, 3) < 4e9
    assert memory_for(12_000_000, 3) < 1.5e9
    monkeypatch.setattr(memory, "free_memory", lambda: int(4e9))
    with pytest.raises(RefusedError, match="reading takes"):
        check_size(10_000, 10_000)
    check_size(9_000, 9_000)
    monkeypatch.setattr(memory, "free_memory", lambda: FREE)
    check_size(250, 250)


@pytest.mark.parametrize("size", [(1200, 1000), (1536, 2048)])
def test_the_estimate_is_what_restoring_a_photo_takes(size: tuple[int, int]) -> None:
    from monai_sasm.evaluation.memory import peak_memory
    from monai_sasm.io.photo.pixels import memory_for

    used = 1e6 * peak_memory("photo", *size)
    assert memory_for(size[0] * size[1], 3) == pytest.approx(used, rel=0.3)
