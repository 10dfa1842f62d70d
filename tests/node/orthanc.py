"""A throw-away Orthanc with DICOMweb on free ports of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.ports import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TITLE = "ORTHANC"


def require_orthanc() -> str:
    """The Orthanc program; in CI it must be there, elsewhere its absence skips the test."""
    program = shutil.which("Orthanc")
    if program and PLUGIN.exists():
        return program
    reason = "Orthanc with DICOMweb is not installed: apt install orthanc orthanc-dicomweb"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    dicom_port: int
    http_port: int

    @property
    def web(self) -> str:
        """Root of its DICOMweb service."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def rest(self, path: str, body: Any = None) -> Any:
        """A call of its REST interface: GET, or POST with a body (bytes as they are, other things as JSON)."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.http_port}{path}", data=data)
        with urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def upload(self, files: list[Path]) -> None:
        """Put files into it, past DICOM."""
        for file in files:
            self.rest("/instances", file.read_bytes())

    def series(self) -> dict[str, Any]:
        """Series Instance UID -> what it knows of the series."""
        return {one["MainDicomTags"]["SeriesInstanceUID"]: one for one in self.rest("/series?expand")}

    def send(self, series: str, modality: str) -> None:
        """Push a series, named by its UID, to a modality by C-STORE; returns when it has."""
        self.rest(f"/modalities/{modality}/store", {"Resources": [self.series()[series]["ID"]], "Synchronous": True})


@contextmanager
def running_orthanc(folder: Path, modalities: dict[str, tuple[str, int]]) -> Iterator[Orthanc]:
    """Orthanc with its files in ``folder``; ``modalities`` maps names to AE title and port on this machine."""
    program = require_orthanc()
    server = Orthanc(free_port(), free_port())
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": server.http_port,
        "DicomPort": server.dicom_port,
        "DicomAet": TITLE,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "OverwriteInstances": True,
        "StableAge": 1,
        "DicomModalities": {name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "HttpThreadsCount": 4,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(config))
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait_until_ready(server, process, folder / "log.txt")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_ready(server: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(150):
        if process.poll() is not None:
            pytest.fail(f"Orthanc ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            server.rest("/system")
            return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail("Orthanc does not answer")
