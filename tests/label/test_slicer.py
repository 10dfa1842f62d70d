"""The 3D Slicer module's Slicer-free logic, against the real server and against strange ones."""

from __future__ import annotations

import ast
import gzip
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from monai_sasm.label.models import models
from monai_sasm.label.service import InferenceService
from tests.data import CHECKOUT
from tests.label.conftest import OBLIQUE, RunningServer

MODULE = CHECKOUT / "monai_sasm" / "slicer" / "SASM"
SLICERS_OWN = {"slicer", "qt", "ctk", "vtk", "numpy", "SASMLib"}
OLDEST_PYTHON = (3, 9)


@pytest.fixture(autouse=True)
def library_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MODULE))


def head_in_slicer(server: RunningServer) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels and matrix as Slicer holds the file: K, J, I."""
    image = nibabel.load(server.studies / "head.nii.gz")
    return np.asarray(image.dataobj).T, image.affine


@contextmanager
def strange_server(answer: bytes) -> Iterator[str]:
    """A server of this machine that says one thing to everybody."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as there:
        threading.Thread(target=there.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{there.server_address[1]}"
        there.shutdown()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_needs_nothing_that_slicer_has_not() -> None:
    for path in MODULE.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=OLDEST_PYTHON)
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in SLICERS_OWN | sys.stdlib_module_names, f"{path.name} imports {name}"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "uint32"])
def test_a_volume_becomes_a_file_that_others_read(dtype: str) -> None:
    from SASMLib.nifti import decode, encode

    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    content = encode(voxels, OBLIQUE)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels.T)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(image.header.get_zooms(), [1.1, 1.2, 4], rtol=1e-6)
    back, matrix = decode(content)
    np.testing.assert_array_equal(back, voxels)
    assert back.dtype == (dtype if dtype not in ("float64", "uint32") else "float32")
    np.testing.assert_array_equal(matrix, image.affine)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"<html>", gzip.compress(b"\0" * 352, mtime=0)])
def test_another_answer_is_no_volume(content: bytes) -> None:
    from SASMLib.nifti import decode

    with pytest.raises(ValueError, match=r"no .*NIfTI"):
        decode(content)


def test_models_of_volumes_the_pipeline_first(server: RunningServer) -> None:
    from SASMLib.server import Server

    models = Server(server.with_token).models()
    names = [model.name for model in models]
    assert names[:2] == ["sasm_ct", "sasm_mr"]
    assert {"lowdose_ct_unet", "noise_mri_unet"} <= set(names)
    assert {model.modality for model in models} == {"CT", "MR"}
    assert not any(name.startswith(("segment", "restore_then")) for name in names)


def test_no_server_is_said_in_one_sentence() -> None:
    from SASMLib.server import Server, ServerError

    with pytest.raises(ServerError, match="is the server running"):
        Server("127.0.0.1:9").models()
    with pytest.raises(ServerError, match="begins with http"):
        Server("file:///etc/passwd")
    with pytest.raises(ServerError, match="is no address"):
        Server("http://[::1")
    with pytest.raises(ServerError):
        Server("127.0.0.1:80a").models()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "no MONAI Label server at .*not JSON"),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "no MONAI Label server at .*no JSON object"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "no MONAI Label server at .*code 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no MONAI Label server at .*not HTTP"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"name": "MONAILabel - Radiology"}', "runs 'MONAILabel - Radiology'"),
        (b"", "is the server running"),
    ],
)
def test_another_server_is_said_in_one_sentence(answer: bytes, reason: str) -> None:
    from SASMLib.server import Server, ServerError

    with strange_server(answer) as address, pytest.raises(ServerError, match=reason):
        Server(address).models()


def test_no_proxy_sees_what_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from SASMLib.server import Server

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with strange_server(b'HTTP/1.0 200 OK\r\n\r\n{"name": "monai_sasm", "models": {}}') as address:
        assert Server(address).models() == []


def test_a_restoration_is_what_sasm_restores(server: RunningServer) -> None:
    from SASMLib.restoration import Restoration
    from SASMLib.server import Server

    voxels, matrix = head_in_slicer(server)
    run = Restoration(Server(server.with_token), "noise_mri_unet", voxels, matrix, strength=0.5)
    run.start()
    seen = set()
    while not run.wait(0.01):
        seen.add((run.state, run.progress))
    assert (run.state, run.progress, run.reason) == ("done", 1.0, "")
    model = next(model for model in models() if model.name == "noise_mri_unet")
    request = {"image": str(server.studies / "head.nii.gz"), "strength": 0.5}
    path, _ = InferenceService("cpu").prepare(model, request)(lambda _: None)
    expected = np.asarray(nibabel.load(path).dataobj).T
    path.unlink()
    assert run.restored.dtype == np.float32
    np.testing.assert_allclose(run.restored, expected, atol=1e-4 * voxels.max())
    np.testing.assert_array_equal(run.change, run.restored - voxels)
    assert np.abs(run.change).max() > 1
    assert seen


def test_a_refusal_reaches_the_user(server: RunningServer) -> None:
    from SASMLib.restoration import Restoration
    from SASMLib.server import Server

    voxels, matrix = head_in_slicer(server)
    run = Restoration(Server(server.with_token), "noise_mri_unet", voxels, matrix, strength=2)
    run.start()
    assert run.wait(60)
    assert run.state == "failed"
    assert "strength must be between 0 and 1" in run.reason
    with pytest.raises(ValueError, match="failed"):
        _ = run.restored


def test_a_cancelled_job_ends_and_the_server_stays_awake(server: RunningServer) -> None:
    """While a large volume is restored, other requests are answered; after cancelling, the next job comes soon."""
    from SASMLib.nifti import encode
    from SASMLib.server import Server, ServerError

    voxels, matrix = head_in_slicer(server)
    there = Server(server.with_token)
    large = np.tile(voxels, (60, 4, 4))
    job = there.start("noise_mri_unet", encode(large, matrix), {})
    wait_for(lambda: 0 < there.state("noise_mri_unet", job)["progress"] < 1)
    with pytest.raises(ServerError, match="only a job that is done"):
        there.take("noise_mri_unet", job)
    there.cancel("noise_mri_unet", job)
    assert there.state("noise_mri_unet", job)["state"] == "cancelled"
    small = there.start("noise_mri_unet", encode(voxels, matrix), {})
    wait_for(lambda: there.state("noise_mri_unet", small)["state"] == "done")
    assert there.take("noise_mri_unet", small)
    with pytest.raises(ServerError, match="no job named"):
        there.take("noise_mri_unet", small)


class Deaf:
    """A server that is at work for somebody else: it answers late, or not at all."""

    def __init__(self, late: int = 0, lost: bool = False) -> None:
        self.late, self.lost = late, lost

    def start(self, model: str, volume: bytes, parameters: dict[str, Any]) -> str:
        self.volume = volume
        return "job"

    def state(self, model: str, job: str) -> dict[str, Any]:
        from SASMLib.server import NoAnswerYetError, UnreachableError

        self.late -= 1
        if self.late >= 0:
            raise NoAnswerYetError("timed out")
        if self.lost:
            raise UnreachableError("connection refused")
        return {"state": "done", "progress": 1.0}

    def cancel(self, model: str, job: str) -> None:
        from SASMLib.server import NoAnswerYetError

        raise NoAnswerYetError("timed out")

    def take(self, model: str, job: str) -> bytes:
        return self.volume


def restoration_by(server: Deaf, voxels: NDArray[Any] | None = None) -> Any:
    from SASMLib.restoration import Restoration

    run = Restoration(server, "any", np.ones((2, 3, 4), np.int16) if voxels is None else voxels, OBLIQUE)
    run.start()
    return run


def test_a_late_answer_is_waited_for_and_a_lost_server_is_not() -> None:
    late, lost = restoration_by(Deaf(late=3)), restoration_by(Deaf(late=1, lost=True))
    assert late.wait(20)
    assert late.state == "done"
    assert lost.wait(20)
    assert (lost.state, lost.reason) == ("failed", "connection refused")


def test_cancelling_does_not_depend_on_the_server() -> None:
    run = restoration_by(Deaf(late=10**9))
    wait_for(lambda: run.state == "waiting", 20)
    run.cancel()
    assert run.wait(20)
    assert run.state == "cancelled"
    assert "the server was not told" in run.reason


def test_an_answer_on_another_grid_is_not_shown() -> None:
    from SASMLib.nifti import encode

    class Other(Deaf):
        def take(self, model: str, job: str) -> bytes:
            return encode(np.ones((2, 3, 4), np.float32), OBLIQUE + np.eye(4)[:, [3, 0, 1, 2]])

    run = restoration_by(Other())
    assert run.wait(20)
    assert run.state == "failed"
    assert "another grid" in run.reason


def test_whatever_goes_wrong_the_user_is_told() -> None:
    class Broken(Deaf):
        def take(self, model: str, job: str) -> bytes:
            raise KeyError("job")

    run = restoration_by(Broken())
    assert run.wait(20)
    assert (run.state, run.reason) == ("failed", "KeyError: 'job'")
