"""Who may ask the viewer's server for what, and what it does with what it is sent."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from monai_sasm.cli.main import main
from monai_sasm.errors import RefusedError
from monai_sasm.view.found import Found
from monai_sasm.view.studies import Study
from tests.data import CHECKOUT
from tests.view.conftest import Running, needed

STATIC = CHECKOUT / "monai_sasm" / "view" / "static"


def ask(viewer: Running, path: str, method: str = "GET", body: Any = None, **headers: str | None) -> Any:
    """Status, headers and content of an answer; the token goes with it unless ``authorization`` is given."""
    host, port = viewer.base.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    given = {"authorization": f"Bearer {viewer.token}"} | headers
    sent = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    connection.putrequest(method, path, skip_host="host" in sent, skip_accept_encoding=True)
    for name, value in sent.items():
        connection.putheader(name, value)
    if body is not None and "content-length" not in sent:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def images(viewer: Running) -> dict[str, dict[str, Any]]:
    """Cards by place, when the folder has been looked through."""
    for _ in range(200):
        state = json.loads(ask(viewer, "/api/state")[2])
        if not state["looking"]:
            return {card["place"]: card for card in state["images"]}
        time.sleep(0.1)
    raise AssertionError("the folder is being looked through for ever")


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Basic TOKEN", "TOKEN", "Bearer TOKENx"])
@pytest.mark.parametrize("path", ["/api/state", "/api/images/1/look", "/api/images/1/gate/change/0", "/api/nothing"])
def test_nothing_is_told_without_the_token(path: str, given: str | None, viewer: Running) -> None:
    header = None if given is None else given.replace("TOKEN", viewer.token)
    status, _, content = ask(viewer, path, authorization=header)
    assert status == 401
    assert "sasm view printed" in json.loads(content)["detail"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=str,
)
def test_other_pages_and_names_are_not_answered_even_with_the_token(
    method: str, headers: dict[str, str], viewer: Running
) -> None:
    for path in ("/api/state", "/api/files/a.png", "/", "/static/app.js"):
        status, found, content = ask(viewer, path, method, **headers)
        assert status == 403
        assert not any(name.lower().startswith("access-control") for name in found)
        assert b"images" not in content


def test_the_page_alone_may_be_led_to(viewer: Running) -> None:
    """By the file that is opened in the browser; the page is empty without the token, which no request brings."""
    led = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(viewer, "/", sec_fetch_dest="document", **led)[0] == 200
    assert ask(viewer, "/", sec_fetch_dest="iframe", **led)[0] == 403
    assert ask(viewer, "/", "POST", sec_fetch_dest="document", **led)[0] == 403
    assert ask(viewer, "/", sec_fetch_dest="document", origin="http://evil.example", **led)[0] == 403
    for path in ("/api/state", "/static/app.js"):
        assert ask(viewer, path, sec_fetch_dest="document", **led)[0] == 403


def test_the_page_may_load_nothing_from_elsewhere(viewer: Running) -> None:
    for path in ("/", "/static/app.js", "/api/state"):
        status, headers, content = ask(viewer, path, origin=viewer.base)
        assert status == 200
        assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"")
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in headers
    sources = [*STATIC.iterdir(), *(CHECKOUT / "scripts" / "demo").iterdir()]
    own = sum(len(path.read_text().splitlines()) for path in sources if path.suffix in (".js", ".css"))
    assert own <= 2050, "the page stays small, with what replaces its server in the tab alone"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2f..%2fserver.py",
        "/static/%2e%2e/%2e%2e/found.py",
        "/static//etc/passwd",
        "/api/images/..%2f..%2fetc%2fpasswd/look",
        "/api/images/999/look",
        "/api/images/1/gate/change/99999",
        "/api/images/1/gate/weight/..%2f..%2fx/0",
    ],
)
def test_no_path_of_a_request_is_opened(path: str, viewer: Running) -> None:
    images(viewer)
    status, _, content = ask(viewer, path)
    assert status in (404, 422)
    assert b"root:" not in content
    assert b"import" not in content


def test_an_upload_gets_a_plain_name_in_a_folder_of_its_own(viewer: Running) -> None:
    before = {path for path in viewer.scans.parent.rglob("*") if path.is_file() and "sasm-view-" not in str(path)}
    for name in ("..%2F..%2Fevil.png", "%2Fetc%2Fcron.d%2Fevil", "a%00b.png", "..", "C%3A%5Cevil.png"):
        assert ask(viewer, f"/api/files/{name}", "PUT", b"no picture")[0] in (200, 404, 422)
    status, _, content = ask(viewer, "/api/files", "POST", b"")
    assert status == 200
    places = {card["place"] for card in json.loads(content)["images"]}
    assert not any(".." in place or place.startswith("/") for place in places)
    uploads = [path for path in viewer.scans.parent.rglob("sasm-view-*/**/*") if path.is_file()]
    assert uploads
    assert all(path.stat().st_mode & 0o077 == 0 for path in viewer.scans.parent.glob("sasm-view-*"))
    after = {path for path in viewer.scans.parent.rglob("*") if path.is_file() and "sasm-view-" not in str(path)}
    assert after - before == set()


def test_too_large_an_upload_is_refused_before_it_is_read(viewer: Running) -> None:
    status, _, content = ask(viewer, "/api/files/huge.nii", "PUT", content_length=str(3 << 30))
    assert status == 413
    assert "at most 2 GiB" in json.loads(content)["detail"]


def test_what_is_uploaded_is_counted_as_it_comes() -> None:
    found = Found(limit=1000)
    found.count(900)
    with pytest.raises(RefusedError, match="can be dropped on the page"):
        found.count(101)
    found.count(100)
    found.close()


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"strength": 2}', b'{"strength": "NaN"}', b"x" * 70_000])
def test_a_request_that_makes_no_sense_is_an_answer_with_a_reason(body: bytes, viewer: Running) -> None:
    number = images(viewer)["garden.png"]["id"]
    status, _, content = ask(viewer, f"/api/images/{number}/gate/save", "POST", body)
    assert status == 422
    assert json.loads(content)["detail"]
    assert not (viewer.output / "garden.png").exists()


def test_only_photos_are_filled_and_enlarged(viewer: Running) -> None:
    number = images(viewer)["abdomen"]["id"]
    for path, body in (("fill", b"\0" * 128 * 128), ("enlarge", b'{"factor": 2}')):
        status, _, content = ask(viewer, f"/api/images/{number}/gate/{path}", "POST", body)
        assert status == 422
        assert "that nobody measured" in json.loads(content)["detail"]
    photo = images(viewer)["garden.png"]["id"]
    assert ask(viewer, f"/api/images/{photo}/gate/fill", "POST", b"\0" * 5)[0] == 422
    assert ask(viewer, f"/api/images/{photo}/gate/fill", "POST", b"\0" * 128 * 97)[0] == 422
    assert ask(viewer, f"/api/images/{photo}/gate/enlarge", "POST", b'{"factor": 3}')[0] == 422


@pytest.mark.parametrize(("output", "told"), [("results", "Will be written to"), ("scans", "Cannot be saved")])
def test_an_image_that_cannot_be_saved_there_can_be_looked_at(output: str, told: str, tmp_path: Path) -> None:
    """As by `sasm view restored/`, where results go to `restored`."""
    needed("starlette")
    from monai_sasm.view.server import Viewer

    (tmp_path / "scans").mkdir()
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(tmp_path / "scans" / "grey.png")
    found = Found()
    found.look(tmp_path / "scans")
    (image,) = found
    about = Viewer(found, cast(Any, None), tmp_path / output)._about(Study(image, {"expert": None}))
    assert about["shape"] == [3, 40, 50]
    assert about["target"].startswith(told)


def test_what_is_refused_is_not_opened(viewer: Running) -> None:
    number = images(viewer)["broken.png"]["id"]
    for path in (f"/api/images/{number}/gate/about", f"/api/images/{number}/gate/change/0"):
        status, _, content = ask(viewer, path)
        assert status == 422
        assert "the content is not what the name says" in json.loads(content)["detail"]


def test_a_path_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["view", str(tmp_path / "nothing"), "--no-open"])
    assert ended.value.code == 2
    assert "does not exist" in capsys.readouterr().err
