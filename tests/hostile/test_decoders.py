"""A decoder that crashes, hangs or takes all memory costs one image, with a reason; the others are restored."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.uid import RLELossless

from monai_sasm.cli.main import main
from monai_sasm.errors import RefusedError
from monai_sasm.io import apart
from monai_sasm.io.dicom import pixels
from monai_sasm.io.formats import inventory
from monai_sasm.io.photo import photo
from monai_sasm.node.restorer import SeriesRestorer
from tests.data import CHECKOUT
from tests.hostile import bad_decoders as bad
from tests.hostile.intact import intact_files
from tests.hostile.laws import restored
from tests.io.dicom.dicom_cases import ct_slice, save

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the faults are made with signals")


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another process decodes, for a few seconds at most, more where the machine is slow; a new one."""
    monkeypatch.setattr(apart, "SECONDS", 300.0)
    apart._state.end()
    with apart.decoding_apart():
        started = time.monotonic()
        apart.decode(bad.double, b"\1", stored=1)  # starts, and imports
        monkeypatch.setattr(apart, "SECONDS", max(5.0, 6 * (time.monotonic() - started)))
        apart._state.end()  # the next one has the environment of the test
        yield
    apart._state.end()


def test_arrays_come_back(decoding: None) -> None:
    data = np.random.default_rng(0).bytes(3 << 20)
    got = apart.decode(bad.double, data, stored=len(data))
    np.testing.assert_array_equal(got, bad.double(data))
    got[0] = 7  # and can be written to
    other = apart.decode(bad.speak, stored=0)
    assert other != os.getpid()
    assert apart.decode(bad.speak, stored=0) == other, "what it prints does no harm, and it stays"


def test_every_kind_of_file_is_the_same(decoding: None, tmp_path: Path) -> None:
    """Headers, which the writers need, come over as well as pixels."""
    (tmp_path / "in").mkdir()
    for number, intact in enumerate(intact_files()):
        (tmp_path / "in" / f"{number:02d}{intact.name}").write_bytes(intact.pack(intact.content))
    for name, settings in (("deflate.tif", {"compression": "adobe_deflate", "resolution": (300, 300)}), ("a.bmp", {})):
        picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
        if name.endswith("bmp"):
            Image.fromarray(picture).save(tmp_path / "in" / name)
        else:
            tifffile.imwrite(tmp_path / "in" / name, picture, resolutionunit="inch", **settings)
    known = 0
    for entry in inventory(tmp_path / "in", None):
        if entry.refusal is not None:
            continue
        there = entry.load()
        with decoding_here():
            here = entry.load()
        np.testing.assert_array_equal(there.array, here.array)
        if entry.format == "raster":
            header, other = there.source.pixels.header, here.source.pixels.header
            assert repr(header) == repr(other), entry.name
            known += 1
    assert known >= 8


@contextmanager
def decoding_here() -> Iterator[None]:
    """Decode here for the block."""
    depth, apart._state.depth = apart._state.depth, 0
    yield
    apart._state.depth = depth


def test_outside_of_the_block_nothing_is_started() -> None:
    assert apart.decode(bad.process, stored=0) == os.getpid()


@pytest.mark.parametrize(
    ("function", "arguments", "error", "reason"),
    [
        (bad.misbehave, [bad.CRASH], RefusedError, r"crashed \(SIGSEGV\)"),
        (bad.misbehave, [bad.HANG], RefusedError, "took longer than 2 s"),
        (bad.misbehave, [bad.BOMB], MemoryError, "more memory than is free"),
        (bad.refuse, ["that is no image"], RefusedError, "^that is no image$"),
        (bad.fail, [b"SECRET"], RuntimeError, "^unforeseen KeyError in a decoder$"),
        (bad.panic, [], RuntimeError, "unforeseen Panic"),
        (bad.stranger, [], Exception, "is no part of an answer"),
        (bad.half_an_answer, [], RefusedError, r"crashed \(exit code 0\)"),
    ],
)
def test_a_fault_costs_one_call(
    function: Callable[..., Any],
    arguments: list[Any],
    error: type[Exception],
    reason: str,
    decoding: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STRANGER", str(tmp_path / "made by a stranger"))
    seconds = apart.SECONDS
    if bad.HANG in arguments:
        assert list(apart.decode(bad.double, b"\1", stored=1)) == [2]
        monkeypatch.setattr(apart, "SECONDS", 2.0)
    with pytest.raises(error, match=reason):
        apart.decode(function, *arguments, stored=0)
    monkeypatch.setattr(apart, "SECONDS", seconds)
    assert list(apart.decode(bad.double, b"\1", stored=1)) == [2]
    assert not (tmp_path / "made by a stranger").exists()


def test_memory_is_bounded(decoding: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is free, not by what the machine would lend."""
    monkeypatch.setattr("monai_sasm.io.memory.free_memory", lambda: 2 << 30)
    with pytest.raises(MemoryError):
        apart.decode(bad.take, str(3 << 30), stored=0)
    assert apart.decode(bad.take, str(1 << 28), stored=0) == 1 << 28


def photos(folder: Path, *contents: bytes) -> Path:
    """Small JPEG photos, each with a comment."""
    folder.mkdir()
    for number, content in enumerate(contents):
        picture = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.jpg", comment=content)
    return folder


def slices(folder: Path, *contents: bytes) -> Path:
    """Compressed CT series of one slice, each with a comment."""
    for number, content in enumerate(contents):
        dataset = ct_slice(number, series=f"series {number}")
        dataset.ImageComments = content.decode()
        path = save(dataset, folder / f"{number}.dcm")
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    return folder


@pytest.mark.parametrize("kind", [photos, slices])
def test_a_batch_goes_on(
    kind: Callable[..., Path], trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoding: None
) -> None:
    monkeypatch.setattr(photo, "decoded", bad.photo_decoded)
    monkeypatch.setattr(pixels, "decoded", bad.dicom_decoded)
    source = kind(tmp_path / "in", b"sound", bad.CRASH, bad.HANG, b"sound, too")
    rows = restored(source, tmp_path / "out", trust)
    assert sorted(row["status"] for row in rows) == ["failed", "failed", "ok", "ok"]
    reasons = sorted(row["reason"] for row in rows if row["status"] == "failed")
    assert "crashed (SIGSEGV)" in reasons[0]
    assert "took longer than" in reasons[1]


def test_restoring_a_folder_goes_on(
    trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(photo, "decoded", bad.photo_decoded)
    source = photos(tmp_path / "in", b"sound", bad.CRASH, b"sound, too")
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(source), "-o", str(tmp_path / "out"), "--trust", str(trust), "--device", "cpu"])
    assert ended.value.code == 8
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 2
    assert "crashed (SIGSEGV)" in capsys.readouterr().err


def test_the_node_goes_on(trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "decoded", bad.dicom_decoded)
    source = slices(tmp_path / "in", b"sound", bad.CRASH)
    (tmp_path / "out").mkdir()
    outcome = SeriesRestorer({"trust": [str(trust)], "device": "cpu"})(source, tmp_path / "out")
    assert outcome.written == 1
    ((files, reason),) = outcome.refused
    assert [file.name for file in files] == ["1.dcm"]
    assert "crashed (SIGSEGV)" in reason


def test_a_daemon_may_decode() -> None:
    """Workers of Dask are daemons of multiprocessing."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=bad.within_a_daemon, args=[answer], daemon=True)
    process.start()
    assert answer.get(timeout=120) == ([2, 4], True)
    process.join()


def test_the_folder_the_user_stands_in_runs_nothing(tmp_path: Path) -> None:
    for name in (
        "json",
        "struct",
        "signal",
        "numpy",
        "pickle",
        "sitecustomize",
        "usercustomize",
        "tests",
        "monai_sasm",
    ):
        (tmp_path / f"{name}.py").write_text("open('run', 'w')")
    code = (
        f"import sys; sys.path[:] = [{str(CHECKOUT)!r}, *(path for path in sys.path if path)]\n"
        "from tests.hostile import bad_decoders as bad\n"
        "from monai_sasm.io.apart import decode, decoding_apart\n"
        "with decoding_apart():\n"
        "    print(decode(bad.double, b'\\1', stored=1))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.stdout == "[2]\n"
    assert not (tmp_path / "run").exists()


def test_a_fork_has_its_own() -> None:
    code = (
        "import os\n"
        "from tests.hostile import bad_decoders as bad\n"
        "from monai_sasm.io.apart import decode, decoding_apart\n"
        "with decoding_apart():\n"
        "    first = decode(bad.speak, stored=0)\n"
        "    child = os.fork()\n"
        "    other = decode(bad.speak, stored=0)\n"
        "    if not child:\n"
        "        os._exit(0 if other != first else 1)\n"
        "    assert other == first\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
