"""An upload is what this server received: nothing else that lies among temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from monai_sasm.label.uploads import Uploads


def test_only_what_this_server_received_is_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    uploads = Uploads()
    assert uploads.folder.parent == shared.resolve()
    assert uploads.folder.stat().st_mode & 0o077 == 0, "nobody else may look into it or write there"
    received = Path(tempfile.NamedTemporaryFile(suffix=".nii.gz").name)  # noqa: SIM115  (as MONAI Label does it)
    assert received not in uploads, "it is gone"
    received.write_bytes(b"voxels")
    assert received in uploads
    somebody = shared / "tmpabcdefgh.nii.gz"
    somebody.write_bytes(b"voxels of somebody else")
    assert somebody not in uploads
    with tempfile.NamedTemporaryFile(prefix="sasm-") as result:
        assert Path(result.name).parent == uploads.folder
        assert Path(result.name) not in uploads, "a result is nobody's upload"
    with tempfile.TemporaryDirectory() as folder:
        assert Path(folder) not in uploads
        (Path(folder) / "tmpx").touch()
        assert Path(folder) / "tmpx" not in uploads
    assert str(received) not in uploads
