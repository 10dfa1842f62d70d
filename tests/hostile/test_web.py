"""DICOMweb servers that lie, redirect, repeat themselves or never end."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from monai_sasm.node import dicomweb, web
from monai_sasm.node.config import WebPeer, config_from
from monai_sasm.node.deliver import NotTakenError, UnreachableError, deliver
from monai_sasm.node.dicomweb import SeriesFound, fetch_series, find_series
from monai_sasm.node.multipart import Parts, boundary_of, encode
from monai_sasm.node.web import Web
from tests.command import sasm
from tests.io.dicom.dicom_cases import uid
from tests.node.test_dicomweb import SLICES, Server, multipart, series_row, serving, stored
from tests.node.test_node import Archive, running, send, series
from tests.node.waiting import wait_for

LOGIN = b"<html><body>Please sign in</body></html>"
FOUND = SeriesFound(uid("study"), uid("plain"), "CT", SLICES)


@pytest.fixture
def other() -> Iterator[Server]:
    """A server of somebody else, to which nothing may be sent."""
    one = Server()
    yield one
    one.close()


Lie = Callable[[bytes], tuple[int, str, bytes]]
LIES: dict[str, Lie] = {
    "a login page": lambda body: (200, "text/html", LOGIN),
    "nothing": lambda body: (200, "application/dicom+json", b""),
    "no content": lambda body: (204, "application/dicom+json", b""),
    "an empty object": lambda body: (200, "application/dicom+json", b"{}"),
    "null": lambda body: (200, "application/dicom+json", b"null"),
    "a list": lambda body: (200, "application/dicom+json", b"[[[]]]"),
    "another shape": lambda body: (
        200,
        "application/dicom+json",
        b'{"00081199": {"Value": [3, "x", {"00081155": 1}]}}',
    ),
    "depth": lambda body: (200, "application/dicom+json", b"[" * 200_000),
    "other objects": lambda body: (200, "application/json", _named("1.2")),
    "too much": lambda body: (200, "application/dicom+json", b" " * (web.MAX_ANSWER + 1)),
    "an outage": lambda body: (503, "text/html", LOGIN),
}


def _named(name: str) -> bytes:
    return json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [name]}}]}}).encode()


@pytest.mark.parametrize("lie", LIES)
def test_only_what_a_server_names_is_stored(
    lie: str, server: Server, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_ANSWER", 1 << 20)
    server.answer = lambda method, path, body: LIES[lie](body)
    taken: list[str] = []
    with pytest.raises(UnreachableError):
        deliver(WebPeer("web", server.url), files, "SASM", taken.extend)
    assert taken == []


def test_what_a_server_is_silent_about_is_sent_again(server: Server, files: list[Path]) -> None:
    server.answer = lambda method, path, body: (200, "application/dicom+json", _named(uid("plain", 1)))
    taken: list[str] = []
    with pytest.raises(UnreachableError, match="2 of 3"):
        deliver(WebPeer("web", server.url), files, "SASM", taken.extend)
    assert taken == [uid("plain", 1)]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_of_a_destination_come_before_those_of_the_environment(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    used: list[Any] = []

    def send(self: Any, request: Any, **given: Any) -> Any:
        used.append((given["verify"], given["proxies"].get("https")))
        raise requests.ConnectionError

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "everybody.pem"))
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    own = str(tmp_path / "own.pem")
    for bundle in (own, None):
        one = Web(WebPeer("pacs", "https://pacs.example/dicom-web", ca_bundle=bundle))
        for ask in (lambda one=one: one.get_json("/series", {}), lambda one=one: one.post("/studies", "x/y", b"")):
            with pytest.raises(OSError, match="does not answer"):
                ask()
    proxy = "http://proxy.example:3128"
    assert used == [(own, proxy)] * 2 + [(str(tmp_path / "everybody.pem"), proxy)] * 2


def test_a_refusal_of_all_is_a_refusal(server: Server, files: list[Path]) -> None:
    server.answer = lambda method, path, body: (415, "text/html", LOGIN)
    with pytest.raises(NotTakenError, match="3 of 3"):
        deliver(WebPeer("web", server.url), files, "SASM", lambda uids: None)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(
    code: int, server: Server, other: Server, files: list[Path], tmp_path: Path
) -> None:
    other.answer = lambda method, path, body: stored(body) if method == "POST" else multipart(files)
    server.redirect = code, other.url
    taken: list[str] = []
    with pytest.raises(UnreachableError, match=f"HTTP {code}, a redirect"):
        deliver(WebPeer("web", server.url), files, "SASM", taken.extend)
    with pytest.raises(OSError, match="redirect"):
        find_series(Web(WebPeer("web", server.url)), {"PatientID": "SECRET-17"})
    with pytest.raises(OSError, match="redirect"):
        fetch_series(Web(WebPeer("web", server.url)), FOUND, tmp_path / "out")
    assert (taken, other.requests) == ([], [])


def test_a_node_behind_a_login_page_keeps_what_it_has(server: Server, tmp_path: Path, archive: Archive) -> None:
    """The page answers, for a while; nothing is lost, and the other destination does not wait."""
    server.answer = lambda method, path, body: (200, "text/html", LOGIN)
    destinations = {"web": server.url, "archive": f"ARCHIVE@127.0.0.1:{archive.port}"}
    with running(tmp_path, archive, destinations=destinations) as (node, rows):
        send(node, series())
        wait_for(lambda: len(archive.taken) == 4 and node.counters.snapshot()["send_failures"] > 1)
        assert len(node.spool.jobs("outgoing")) == 1
        assert not rows
        server.answer = lambda method, path, body: (200, "application/json", _all_named(body))
        wait_for(lambda: rows)
        assert rows[0]["status"] == "ok"
        assert len(archive.taken) == 4


def _all_named(body: bytes) -> bytes:
    uids = [uid("derived", uid("plain", number)) for number in range(4)]
    found = [{"00081155": {"vr": "UI", "Value": [name]}} for name in uids if name.encode() in body]
    return json.dumps({"00081199": {"vr": "SQ", "Value": found}}).encode()


@pytest.mark.parametrize(
    "rows", [b'{"a": 1}', b"3", b'"text"', LOGIN, b"[" * 200_000, b'[{"0020000E": {"Value": ["1.2"]}}]', b"[3]"]
)
def test_queries_are_answered_with_what_was_asked_for(rows: bytes, server: Server) -> None:
    server.answer = lambda method, path, body: (200, "application/dicom+json", rows)
    with pytest.raises((ValueError, OSError)):
        find_series(Web(WebPeer("web", server.url)), {"SeriesInstanceUID": "1.2.3"})


def test_a_server_without_end_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "MAX_SERIES", 50)

    def endless(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        return 200, "application/json", json.dumps([series_row(f"1.2.{len(server.requests)}", 1)]).encode()

    server.answer = endless
    with pytest.raises(ValueError, match="more than 50 series"):
        find_series(Web(WebPeer("web", server.url)), {"Modality": "CT"})


@pytest.mark.parametrize("seconds", [0.0])
def test_a_server_that_drips_is_given_up(seconds: float, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "DEADLINE", seconds)
    server.answer = lambda method, path, body: (200, "application/json", b"[]")
    with pytest.raises(OSError, match="has not ended"):
        find_series(Web(WebPeer("web", server.url)), {"Modality": "CT"})


def test_one_object_four_times_is_one_object(
    server: Server, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = serving(files[:1] * 4, 4)
    assert sasm("pull", server.url, "-o", tmp_path / "out", "--series", uid("plain")) == 4
    assert "announced 4 objects and sent 1" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def part(content: bytes, headers: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"--b\r\n" + headers + b"\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (part(LOGIN) + b"--b--", "something else than a DICOM"),
        (part(b"") + b"--b--", "something else than a DICOM"),
        (part(b"\0" * 500) + b"--b--", "something else than a DICOM"),
        (part(b"\0" * 128 + b"DICM" + b"\0" * 100) + b"--b--", "damaged"),
        (part(b"\0" * 128 + b"DICM" + b"\0" * 2000) + b"--b--", "longer than"),
        (part(b"x", b"A: " + b"b" * 20_000 + b"\r\n"), "headers"),
        (part(b"\0" * 128 + b"DICM"), "broke off"),
        (b"--b", "broke off"),
        (b"", "broke off"),
        (b"--b--", "sent 0"),
        (b"no boundary at all", "broke off"),
    ],
)
def test_answers_that_are_no_series(
    body: bytes, reason: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "MAX_OBJECT_BYTES", 1000)
    server.answer = lambda method, path, asked: (200, "multipart/related; boundary=b", body)
    with pytest.raises(ValueError, match=reason):
        fetch_series(Web(WebPeer("web", server.url)), FOUND, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", ["text/html", "application/dicom", "multipart/related", ""])
def test_answers_of_another_kind(kind: str, server: Server, tmp_path: Path) -> None:
    server.answer = lambda method, path, asked: (200, kind, LOGIN)
    with pytest.raises(OSError, match="something else than objects"):
        fetch_series(Web(WebPeer("web", server.url)), FOUND, tmp_path / "out")


def test_objects_without_end_are_given_up(
    server: Server, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "MAX_OBJECTS", 5)
    server.answer = lambda method, path, asked: multipart(files[:1] * 7)
    with pytest.raises(ValueError, match="more than 5 objects"):
        fetch_series(Web(WebPeer("web", server.url)), FOUND, tmp_path / "out")


def test_a_long_object_is_not_held_in_memory(tmp_path: Path) -> None:
    piece = bytes(1 << 16)

    def body() -> Iterator[bytes]:
        yield b"--b\r\n\r\n" + bytes(128) + b"DICM"
        for _ in range(1024):
            yield piece
        yield b"\r\n--b--"

    tracemalloc.start()
    parts = Parts(body(), b"b")
    assert parts.next()
    with open(tmp_path / "object", "wb") as file:
        assert parts.copy(file, 1 << 30) == 132 + (64 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not parts.next()
    assert peak < 2 << 20


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 4096])
def test_parts_are_the_same_however_they_arrive(size: int, files: list[Path]) -> None:
    kind, body = encode(files)
    boundary = boundary_of(kind)
    assert boundary is not None
    parts = Parts((body[start : start + size] for start in range(0, len(body), size)), boundary)
    found = []
    while parts.next():
        copy = io.BytesIO()
        parts.copy(copy, 1 << 20)
        found.append(copy.getvalue())
    assert found == [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    "address", ["http://10.1.2.3/web", "http://pacs.example/web", "http://127.0.0.1.evil.example/web"]
)
def test_a_token_is_not_sent_in_the_clear(address: str) -> None:
    def peer(**more: Any) -> Any:
        settings = {"spool": "s", "allow": ["A"], "destinations": {"web": {"url": address, **more}}}
        return config_from(settings).destinations[0]

    for credentials in ({"token_env": "T"}, {"user_env": "U", "password_env": "P"}):
        with pytest.raises(ValueError, match="not sent to another machine over http"):
            peer(**credentials)
        assert peer(**credentials, plain_http=True).plain_http
    assert peer().token_env is None
    for safe in (
        address.replace("http:", "https:"),
        "http://127.0.0.1:8042/web",
        "http://[::1]/web",
        "http://localhost",
    ):
        assert WebPeer("web", safe, token_env="T").url == safe


def test_credentials_are_no_part_of_an_address() -> None:
    with pytest.raises(ValueError, match="environment variables") as told:
        WebPeer("web", "https://me:secret@pacs.example/web")
    assert "secret" not in str(told.value)


def test_what_is_pulled_can_be_read_by_its_owner_only(server: Server, files: list[Path], tmp_path: Path) -> None:
    server.answer = serving(files, SLICES)
    assert sasm("pull", server.url, "-o", tmp_path / "out", "--study", uid("study")) == 0
    found = list((tmp_path / "out").rglob("*"))
    assert len(found) == SLICES + 1
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "out", *found]} == {0o700, 0o600}
    assert pydicom.dcmread(max(found)).SeriesInstanceUID == uid("plain")
