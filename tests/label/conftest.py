"""MONAI Label with our app, as users start it: its own environment, made by the script, and a server of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import nibabel
import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.data import CHECKOUT
from tests.io.dicom.dicom_cases import ct_slice, save
from tests.ports import free_port

SCRIPT = CHECKOUT / "monai_sasm" / "label" / "environment.sh"
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-1.1, 1.2, 4.0]), [30.0, -25.0, 12.0]
)


@dataclass(frozen=True)
class Answer:
    """Status, body and, for JSON, its content."""

    status: int
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class RunningServer:
    """A server, its images, and requests to it by the standard library."""

    address: str
    studies: Path
    log: Path
    token: str

    @property
    def with_token(self) -> str:
        """The address as a user enters it."""
        return f"{self.address}/?token={self.token}"

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        kind: str = "text/plain",
        method: str | None = None,
        **headers: str | None,
    ) -> Answer:
        """GET, or POST with a body; ``headers`` are added, or left out where they are ``None``."""
        given = {"Content-Type": kind, "Authorization": f"Bearer {self.token}"} | headers
        request = Request(
            self.address + path, body, {name: value for name, value in given.items() if value}, method=method
        )
        try:
            with urlopen(request, timeout=300) as answer:
                return Answer(answer.status, answer.read())
        except HTTPError as error:
            return Answer(error.code, error.read())

    def infer(
        self,
        model: str,
        image: str = "",
        session_id: str = "",
        upload: tuple[str, bytes] | None = None,
        output: str = "image",
        **params: Any,
    ) -> Answer:
        """What MONAI Label documents as ``POST /infer/{model}``; an upload is a name and the content of a file."""
        body, kind = form({"params": json.dumps(params)}, *([("file", *upload)] if upload else []))
        query = urlencode({"image": image, "session_id": session_id, "output": output})
        return self.ask(f"/infer/{model}?{query}", body, kind)


def form(fields: dict[str, str], *files: tuple[str, str, bytes]) -> tuple[bytes, str]:
    """A form with texts and files (field, file name, content), RFC 7578; and its content type."""
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{name}"\r\n\r\n{text}\r\n'.encode() for name, text in fields.items()]
    parts += [
        f'{head}"{field}"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n" for field, name, content in files
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def environment() -> Path:
    """MONAI Label's environment; CI makes it, elsewhere its absence skips the tests."""
    folder = Path(os.environ.get("SASM_LABEL_ENV") or CHECKOUT / ".venv-label")
    if os.environ.get("CI") == "true":
        subprocess.run([str(SCRIPT), str(folder)], check=True)
    elif not (folder / "bin" / "monailabel").exists():
        pytest.skip("MONAI Label's environment is not made: sasm label-environment")
    return folder / "bin"


def write_studies(folder: Path) -> Path:
    """An oblique float32 MR volume, a CT series of four slices, and a photo."""
    generator = np.random.default_rng(0)
    head = skimage.data.shepp_logan_phantom()[::10, ::11]
    noisy = np.hypot(800 * np.repeat(head[..., None], 5, 2) + generator.normal(0, 60, (*head.shape, 5)), 30)
    folder.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(noisy.astype(np.float32), OBLIQUE), folder / "head.nii.gz")
    for number in range(4):
        save(ct_slice(number), folder / "ct" / f"{number}.dcm")
    cat = skimage.data.chelsea()[100:148, 150:214]
    nibabel.save(nibabel.Nifti1Image(noisy.astype(np.float32), OBLIQUE), folder.parent / "outside.nii.gz")
    (folder / "link").symlink_to(folder.parent)
    Image.fromarray((cat + generator.normal(0, 20, cat.shape)).clip(0, 255).astype(np.uint8)).save(folder / "cat.png")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """MONAI Label on a free port of the loopback interface."""
    programs, folder = environment(), tmp_path_factory.mktemp("label")
    studies, app, port = write_studies(folder / "studies"), folder / "app", free_port()
    subprocess.run([str(programs / "sasm"), "label-app", str(app)], check=True, cwd=folder)
    settings = {"MONAILABEL_PYEXE": str(programs / "python"), "SASM_BUNDLES": str(folder / "none")}
    command = [str(programs / "monailabel"), "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--conf", "device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    token = (app / "token").read_text()
    running = RunningServer(f"http://127.0.0.1:{port}", studies, folder / "server.log", token)
    with open(running.log, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=os.environ | settings)
    try:
        _wait_until_ready(running, process)
        yield running
    finally:
        process.terminate()  # the program is a shell script that has become Python
        process.wait(timeout=60)


def _wait_until_ready(running: RunningServer, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"MONAI Label ended: {running.log.read_text(errors='replace')[-3000:]}")
        try:
            running.ask("/info/")
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail("MONAI Label does not answer")
