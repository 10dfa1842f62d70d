"""DICOMweb against a server that says what the test wants: refusals, outages, lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pydicom
import pytest

from monai_sasm.node.config import WebPeer
from monai_sasm.node.deliver import NotTakenError, TroubleError, UnreachableError, deliver
from monai_sasm.node.dicomweb import SeriesFound, fetch_series, find_series
from monai_sasm.node.web import Web
from tests.command import sasm
from tests.io.dicom.dicom_cases import STEP, ct_slice, other_object, save, uid

pytest.importorskip("requests")

BOUNDARY = "a-boundary"
SLICES = 3
Answer = tuple[int, str, bytes]


class Server:
    """Answers with ``answer(method, path, body)`` and keeps the requests."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, bytes], Answer] = lambda method, path, body: (200, "application/json", b"[]")
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.redirect: tuple[int, str] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                outer.requests.append((self.command, self.path, dict(self.headers)))
                if outer.redirect is not None:
                    self.send_response(outer.redirect[0])
                    self.send_header("Location", outer.redirect[1])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                status, kind, content = outer.answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/web"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def multipart(files: list[Path]) -> Answer:
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file.read_bytes() + b"\r\n"
        for file in files
    ]
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    return 200, kind, b"".join(parts) + f"--{BOUNDARY}--".encode()


def stored(body: bytes, failed: dict[str, int] | None = None) -> Answer:
    """What a server answers to STOW-RS: it has stored the slices that are in the request, except the failed ones."""
    failed = failed or {}
    uids = [uid("plain", number) for number in range(SLICES) if uid("plain", number).encode() in body]

    def items(names: list[str]) -> dict[str, Any]:
        found = [{"00081155": {"vr": "UI", "Value": [name]}} for name in names]
        for item in found:
            if reason := failed.get(item["00081155"]["Value"][0]):
                item["00081197"] = {"vr": "US", "Value": [reason]}
        return {"vr": "SQ", "Value": found}

    said = {"00081199": items([name for name in uids if name not in failed]), "00081198": items(list(failed))}
    return 202 if failed else 200, "application/dicom+json; charset=utf-8", json.dumps(said).encode()


def series_row(series: str, count: int, **tags: str) -> dict[str, Any]:
    values = {"0020000D": uid("study"), "0020000E": series, "00080060": "CT", "00201209": count}
    values |= {tag.removeprefix("tag"): value for tag, value in tags.items()}
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items() if value != ""}


def serving(
    files: list[Path], announced: int, series: str = uid("plain"), **tags: str
) -> Callable[[str, str, bytes], Answer]:
    """A server with one series, of which it announces so many objects; it gives that to any question."""

    def answer(method: str, path: str, body: bytes) -> Answer:
        if path.split("?")[0].endswith("/series"):
            return 200, "application/dicom+json", json.dumps([series_row(series, announced, **tags)]).encode()
        return multipart(files)

    return answer


def test_pull_fetches_a_series_once(server: Server, files: list[Path], tmp_path: Path, capsys: Any) -> None:
    server.answer = serving(files, SLICES)
    command = ("pull", server.url, "-o", tmp_path / "out", "--study", uid("study"), "--json")
    assert sasm(*command) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["status"], row["instances"]) == ("ok", SLICES)
    got = {pydicom.dcmread(file).SOPInstanceUID: file for file in Path(row["path"]).iterdir()}
    assert set(got) == {uid("plain", number) for number in range(SLICES)}
    assert sasm(*command) == 3
    assert "exists already" in json.loads(capsys.readouterr().out)["reason"]


def test_an_incomplete_answer_leaves_nothing(server: Server, files: list[Path], tmp_path: Path, capsys: Any) -> None:
    server.answer = serving(files[:2], SLICES)
    assert sasm("pull", server.url, "-o", tmp_path / "out", "--series", uid("plain")) == 4
    assert "announced 3 objects and sent 2" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["../../elsewhere", "..", "1.2/3", "", "1" * 65])
def test_a_uid_that_is_none_never_becomes_a_path(server: Server, tmp_path: Path, name: str) -> None:
    web = Web(WebPeer("server", server.url))
    with pytest.raises(ValueError, match="no UIDs"):
        fetch_series(web, SeriesFound(uid("study"), name, "CT", 1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_series_than_asked_for_is_refused(server: Server, files: list[Path], tmp_path: Path) -> None:
    server.answer = serving(files, SLICES)
    web = Web(WebPeer("server", server.url))
    with pytest.raises(ValueError, match="another series"):
        fetch_series(web, SeriesFound(uid("study"), uid("other"), "CT", None), tmp_path / "out")


ID, ACCESSION, MODALITY = "tag00100020", "tag00080050", "tag00080060"


@pytest.mark.parametrize(
    ("question", "told", "code"),
    [
        (("--patient", "SECRET-17"), {ID: "SECRET-17"}, 0),
        (("--patient", "SECRET-17"), {}, 0),
        (("--patient", "SECRET-*"), {ID: "SECRET-17"}, 0),
        (("--patient", "SECRET-17"), {ID: "SOMEBODY"}, 2),
        (("--patient", "SOMEBODY"), {ID: "SOMEBODY"}, 4),
        (("--patient", "SOMEBODY"), {}, 4),
        (("--patient", "SOME*"), {ID: "SECRET-17"}, 2),
        (("--patient", "SECRET-1"), {}, 4),
        (("--accession", "A1"), {ACCESSION: "A2"}, 2),
        (("--accession", "A1"), {ACCESSION: "A1"}, 0),
        (("--accession", "A1"), {}, 0),
        (("--accession", "A3"), {}, 4),
        (("--study", uid("study"), "--modality", "mr"), {}, 2),
        (("--study", uid("study"), "--modality", "mr"), {MODALITY: ""}, 4),
        (("--study", uid("study"), "--modality", "ct"), {MODALITY: ""}, 0),
    ],
)
def test_pull_takes_only_what_was_asked_for(
    server: Server, files: list[Path], tmp_path: Path, question: tuple[str, ...], told: dict[str, str], code: int
) -> None:
    """The objects are of patient SECRET-17 and order A1, CT; the server says this or that of them."""
    server.answer = serving(files, SLICES, **told)
    assert sasm("pull", server.url, "-o", tmp_path / "out", *question) == code
    assert len(list((tmp_path / "out").glob("*/*.dcm"))) == (0 if code else SLICES)
    assert {"00100020", "00080050", "00080060"} <= set(server.requests[0][1].replace("=", "&").split("&"))


@pytest.mark.parametrize(("told", "code"), [({ACCESSION: "A1"}, 0), ({}, 4)])
def test_what_objects_do_not_say_the_server_must(
    server: Server, tmp_path: Path, told: dict[str, str], code: int
) -> None:
    bare = [save(ct_slice(number, AccessionNumber=""), tmp_path / f"{number}.dcm") for number in range(SLICES)]
    server.answer = serving(bare, SLICES, **told)
    assert sasm("pull", server.url, "-o", tmp_path / "out", "--accession", "A1") == code


def test_objects_that_share_a_uid_are_all_fetched(server: Server, tmp_path: Path) -> None:
    slices = [ct_slice(number, SOPInstanceUID=uid("shared")) for number in range(SLICES)]
    shared = [save(one, tmp_path / f"{number}.dcm") for number, one in enumerate(slices)]
    server.answer = serving([*shared, shared[0]], SLICES)
    found = SeriesFound(uid("study"), uid("plain"), "CT", SLICES)
    folder = fetch_series(Web(WebPeer("server", server.url)), found, tmp_path / "out")
    places = sorted(float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in folder.iterdir())
    assert places == [STEP * number for number in range(SLICES)]


def test_pull_without_a_question_or_a_server(tmp_path: Path, capsys: Any) -> None:
    assert sasm("pull", "http://127.0.0.1:1/web", "-o", tmp_path) == 2
    assert "say what to fetch" in capsys.readouterr().err
    assert sasm("pull", "http://127.0.0.1:1/web", "-o", tmp_path, "--study", "1.2") == 4
    assert "does not answer" in capsys.readouterr().err
    assert sasm("pull", "PACS@127.0.0.1:104", "-o", tmp_path, "--study", "1.2") == 2
    assert "DICOMweb" in capsys.readouterr().err


def test_credentials_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = WebPeer("server", server.url, token_env="A_TOKEN")
    with pytest.raises(ValueError, match="A_TOKEN is not set"):
        Web(peer)
    monkeypatch.setenv("A_TOKEN", "very secret")
    assert find_series(Web(peer), {"Modality": "CT"}) == []
    assert server.requests[-1][2]["Authorization"] == "Bearer very secret"


def test_credentials_of_a_netrc_file_are_not_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert find_series(Web(WebPeer("server", server.url)), {"Modality": "CT"}) == []
    assert "Authorization" not in server.requests[-1][2]
    monkeypatch.setenv("A_NAME", "me")
    monkeypatch.setenv("A_WORD", "mine")
    find_series(Web(WebPeer("server", server.url, user_env="A_NAME", password_env="A_WORD")), {"Modality": "CT"})
    assert server.requests[-1][2]["Authorization"] == "Basic bWU6bWluZQ=="


def test_push_says_what_was_refused(server: Server, files: list[Path], capsys: Any) -> None:
    """A server that answers 409 to everything with the second object in it."""
    unwanted = uid("plain", 1).encode()

    def answer(method: str, path: str, body: bytes) -> Answer:
        return (409, "application/dicom+json", b"{}") if unwanted in body else stored(body)

    server.answer = answer
    assert sasm("push", server.url, files[0].parent, "--json") == 8
    row = json.loads(capsys.readouterr().out)
    assert (row["files"], row["taken"], row["status"]) == (SLICES, SLICES - 1, "failed")
    assert row["reason"] == "server refused 1 of 3 objects"


@pytest.mark.parametrize(("reason", "kind"), [(0xC000, TroubleError), (0x0110, TroubleError), (0xA900, NotTakenError)])
def test_the_failed_sequence_is_heard(reason: int, kind: type, server: Server, files: list[Path]) -> None:
    server.answer = lambda method, path, body: stored(body, {uid("plain", 2): reason})
    taken: list[str] = []
    with pytest.raises(NotTakenError, match="refused 1 of 3") as raised:
        deliver(WebPeer("web", server.url), files, "SASM", taken.extend)
    assert raised.type is kind
    assert taken == [uid("plain", 0), uid("plain", 1)]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_outage_is_no_refusal(server: Server, files: list[Path], status: int) -> None:
    server.answer = lambda method, path, body: (status, "text/plain", b"")
    with pytest.raises(UnreachableError, match=f"HTTP {status}"):
        deliver(WebPeer("web", server.url), files, "SASM", lambda uids: None)
    assert len(server.requests) == 1


def test_push_leaves_unfinished_results_alone(server: Server, files: list[Path], capsys: Any) -> None:
    root = files[0].parent
    for place in (".sasm-batch/staging/x/half.dcm", ".hidden/old.dcm", "below/.half.dcm"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(files[0].read_bytes())
    (root / "below" / "fourth.dcm").write_bytes(files[2].read_bytes())
    files[2].unlink()
    server.answer = lambda method, path, body: stored(body)
    assert sasm("push", server.url, root, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["files"], row["taken"]) == (SLICES, SLICES)


def test_push_passes_over_the_directory_of_a_disc(server: Server, files: list[Path], capsys: Any) -> None:
    """It lists the files and is none to store: archives refuse it."""
    save(other_object("1.2.840.10008.1.3.10", ""), files[0].parent / "DICOMDIR")
    server.answer = lambda method, path, body: stored(body)
    assert sasm("push", server.url, files[0].parent, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["files"], row["taken"]) == (SLICES, SLICES)


@pytest.mark.parametrize(("harm", "told"), [("pixels", "1.dcm is damaged"), ("link", "leads nowhere")])
def test_push_sends_nothing_of_what_is_not_whole(
    server: Server, files: list[Path], capsys: Any, harm: str, told: str
) -> None:
    if harm == "pixels":
        dataset = pydicom.dcmread(files[1])
        del dataset.PixelData
        dataset.save_as(files[1])
    else:
        (files[0].parent / "z.dcm").symlink_to(files[0].parent / "gone.dcm")
    assert sasm("push", server.url, files[0].parent) == 4
    assert told in capsys.readouterr().err
    assert server.requests == []


def test_push_without_files(server: Server, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    assert sasm("push", server.url, tmp_path) == 3
    assert "holds no DICOM" in capsys.readouterr().err
    assert server.requests == []
