"""DICOM over TLS, received and sent, with certificates of the test's own."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from monai_sasm.node.config import config_from
from tests.io.dicom.dicom_cases import CT, file_meta_of, uid
from tests.node.test_node import SLICES, Archive, running, send, series
from tests.node.waiting import wait_for

pynetdicom = pytest.importorskip("pynetdicom")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ours.pem`` and ``theirs.pem``, each its own authority, with keys."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "theirs"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


class SafeArchive(Archive):
    """A destination that speaks TLS only."""

    def __init__(self, certificates: Path) -> None:
        super().__init__()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates / "theirs.pem", certificates / "theirs.key")

    def start(self) -> None:
        entity = pynetdicom.AE(ae_title="ARCHIVE")
        entity.add_supported_context(CT)
        handlers = [(pynetdicom.evt.EVT_C_STORE, self._store)]
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=self.context
        )


@pytest.fixture
def archive(certificates: Path) -> Iterator[SafeArchive]:
    one = SafeArchive(certificates)
    one.start()
    yield one
    one.close()


def destination(archive: Archive, authority: Path | None) -> dict[str, Any]:
    return {"archive": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port, "tls_ca": str(authority)}}


def call(node: Any, authority: Path | None, own: Path | None = None) -> list[int] | None:
    """The statuses of a series that is sent over TLS; ``None`` where there is no association."""
    entity = pynetdicom.AE(ae_title="SCANNER")
    entity.add_requested_context(CT, pydicom.uid.ExplicitVRLittleEndian)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    if own is not None:
        context.load_cert_chain(own, own.with_suffix(".key"))
    association = entity.associate("127.0.0.1", node.port, ae_title="SASM", tls_args=(context, "127.0.0.1"))
    if not association.is_established:
        return None
    statuses = []
    for dataset in series():
        dataset.file_meta = file_meta_of(dataset)
        statuses.append(int(association.send_c_store(dataset).Status))
    association.release()
    return statuses


def test_received_and_sent_over_tls(tmp_path: Path, archive: SafeArchive, certificates: Path) -> None:
    ours, theirs = certificates / "ours.pem", certificates / "theirs.pem"
    own = {"tls_certificate": str(ours), "tls_key": str(ours.with_suffix(".key"))}
    with running(tmp_path, archive, destinations=destination(archive, theirs), **own) as (node, rows):
        assert call(node, ours) == [0] * SLICES
        wait_for(lambda: rows)
        assert set(archive.taken) == {uid("derived", uid("plain", number)) for number in range(SLICES)}
        assert call(node, theirs) is None, "the node has another certificate"
        with pytest.raises(AssertionError):
            send(node, series())  # in the clear


def test_callers_need_a_certificate_where_an_authority_is_named(
    tmp_path: Path, archive: SafeArchive, certificates: Path
) -> None:
    ours, theirs = certificates / "ours.pem", certificates / "theirs.pem"
    own = {"tls_certificate": str(ours), "tls_key": str(ours.with_suffix(".key")), "tls_ca": str(theirs)}
    with running(tmp_path, archive, destinations=destination(archive, theirs), **own) as (node, _):
        assert call(node, ours, theirs) == [0] * SLICES
        assert call(node, ours) is None
        assert call(node, ours, ours) is None
        silent = socket.create_connection(("127.0.0.1", node.port), 5)  # shakes no hand, and keeps nobody out
        started = time.monotonic()
        assert call(node, ours, theirs) == [0] * SLICES
        assert time.monotonic() - started < 5
        silent.close()


def test_a_destination_with_another_certificate_gets_nothing(
    tmp_path: Path, archive: SafeArchive, certificates: Path
) -> None:
    with running(tmp_path, archive, destinations=destination(archive, certificates / "ours.pem")) as (node, _):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["send_failures"] > 1)
        assert archive.taken == []
        assert len(node.spool.jobs("outgoing")) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tls_ca": "x"}, "tls_certificate"),
        ({"destinations": {"a": {"ae_title": "A", "host": "h", "port": 1, "tls_key": "x"}}}, "tls_ca must name"),
        (
            {"destinations": {"a": {"ae_title": "A", "host": "h", "port": 1, "tls_ca": "c", "tls_key": "x"}}},
            "a: tls_key needs tls_certificate",
        ),
    ],
)
def test_half_a_setting_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        config_from({"spool": "s", "allow": ["A"], "destinations": {"a": "A@h:1"}, **settings})


def test_missing_files_are_named_at_the_start(tmp_path: Path, archive: SafeArchive) -> None:
    with pytest.raises(ValueError, match="archive: the files of TLS"):  # noqa: SIM117
        with running(tmp_path, archive, destinations=destination(archive, tmp_path / "no.pem")):
            pass
    with pytest.raises(ValueError, match="the node: the files of TLS"):  # noqa: SIM117
        with running(tmp_path, archive, tls_certificate=str(tmp_path / "no.pem")):
            pass
