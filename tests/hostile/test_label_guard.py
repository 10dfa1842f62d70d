"""Who may ask the MONAI Label server for what; the guard by itself, without MONAI Label."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.cli.label import _app_in
from monai_sasm.errors import RefusedError
from monai_sasm.label.guard import Guard, token_in

TOKEN = "t" * 43
PASSED = 299


def ask(
    path: str = "/info/",
    method: str = "GET",
    body: bytes = b"",
    guard: dict[str, Any] | None = None,
    **headers: str | None,
) -> tuple[int, Any]:
    """Status and content of the answer; :data:`PASSED` where the request reaches MONAI Label."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": PASSED, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:8000", "authorization": f"Bearer {TOKEN}"} | headers
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "server": ("192.168.1.5", 8000),
        "headers": [
            (name.replace("_", "-").encode(), text.encode()) for name, text in given.items() if text is not None
        ],
    }
    asyncio.run(Guard(app, TOKEN, **(guard or {}))(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_who_has_the_token_may_ask() -> None:
    assert ask()[0] == PASSED
    for host in ("localhost:8000", "[::1]:8000", "LOCALHOST", "192.168.1.5:8000"):
        assert ask(host=host)[0] == PASSED
    for origin in ("http://127.0.0.1:8000", "https://127.0.0.1:8000"):
        assert ask(origin=origin)[0] == PASSED


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "",
        None,
        "[::1",
        "10.0.0.1",
        "127.0.0.1:8000, evil.example",
        "localhost\u0000",
    ],
)
def test_another_name_is_not_answered(host: str | None) -> None:
    assert ask(host=host)[0] == 403
    assert ask("/auth/token", "POST", f"password={TOKEN}".encode(), host=host)[0] == 403


def test_refusals_say_what_to_do_in_the_browser_and_where_the_server_runs() -> None:
    for told, flag in (
        (ask(host="evil.example")[1]["detail"], "--allow-host NAME"),
        (ask(origin="http://evil.example")[1]["detail"], "--allow-origin URL"),
    ):
        assert "open the address that was printed" in told
        assert f"`sasm label-server {flag}`" in told


def test_a_name_that_is_allowed_is_answered() -> None:
    assert ask(host="ws1.example:80", guard={"hosts": ["WS1.example"]})[0] == PASSED


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:3000", "http://127.0.0.1:8000.evil.example", "file://"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_foreign_pages_may_not_ask_even_with_the_token(origin: str, method: str) -> None:
    assert ask("/infer/sasm_mr?image=head", method, origin=origin)[0] == 403
    assert ask("/auth/token", "POST", f"password={TOKEN}".encode(), origin=origin)[0] == 403


def test_pages_without_an_origin_may_not_ask() -> None:
    """Pictures, links and frames of other pages carry no Origin, but browsers say where they come from."""
    for site in ("cross-site", "same-site"):
        assert ask("/datastore/image?image=head", sec_fetch_site=site)[0] == 403
    assert ask("/datastore/image?image=head", sec_fetch_site="none")[0] == PASSED


def test_an_origin_that_is_allowed_needs_the_token_still() -> None:
    more: dict[str, Any] = {"guard": {"origins": ["https://viewer.example/"]}, "origin": "https://viewer.example"}
    assert ask(**more)[0] == PASSED
    assert ask(method="OPTIONS", authorization=None, **more)[0] == PASSED
    assert ask(authorization=None, **more)[0] == 401


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ü"]
)
@pytest.mark.parametrize(
    "path", ["/info/", "/", "/infer/x", "/openapi.json", "/auth/token/valid", "/static/x", "/docs"]
)
def test_without_the_token_nothing_is_answered(path: str, given: str | None) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"):
        assert ask(path, method, authorization=given)[0] == 401


def test_monai_labels_own_clients_log_in_with_the_token() -> None:
    assert ask("/auth/", authorization=None)[1]["enabled"] is True
    for body in (f"username=x&password={TOKEN}", f"password={TOKEN}"):
        status, said = ask("/auth/token", "POST", body.encode(), authorization=None)
        assert (status, said) == (200, {"access_token": TOKEN, "token_type": "bearer"})
    for wrong in (
        b"",
        b"password=",
        b"password=x",
        b"\xff" * 100,
        f"token={TOKEN}".encode(),
        b"password=" + b"x" * 99_999,
    ):
        assert ask("/auth/token", "POST", wrong, authorization=None)[0] == 401
    assert ask("/auth/token/valid")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/datastore/image?image=../../x"),
        ("PUT", "/datastore/image?image=x"),
        ("PUT", "/datastore/"),
        ("PUT", "/datastore/image/info?image=x"),
        ("PUT", "/datastore/updatelabelinfo?label=x&tag=final"),
        ("DELETE", "/datastore/image?id=head"),
        ("DELETE", "/datastore/label?id=head&tag=final"),
        ("DELETE", "/datastore/"),
        ("PUT", "/model/sasm_mr"),
        ("DELETE", "/model/sasm_mr"),
        ("GET", "/model/sasm_mr"),
        ("POST", "/train/"),
        ("POST", "/scoring/x"),
        ("POST", "/reload"),
        ("GET", "/proxy/dicom/wado/x"),
        ("POST", "/proxy/dicom/stow/studies"),
        ("GET", "/logs/"),
        ("GET", "/ohif/../x"),
        ("GET", "/datastore/dataset"),
        ("GET", "/static/../../x"),
        ("POST", "/infer/../reload"),
        ("POST", "/infer/wsi/x"),
        ("GET", "/session/../x"),
        ("DELETE", "/session/.."),
        ("PATCH", "/info/"),
        ("TRACE", "/info/"),
    ],
)
def test_what_the_app_does_not_need_is_off(method: str, path: str) -> None:
    assert ask(path, method)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/datastore/label?image=../../x&tag=final",
        "/datastore/label?image=head&tag=../x",
        "/datastore/label?image=/etc/x",
        "/datastore/label?image=a&image=../x",
        "/datastore/label?image=..&tag=x",
        "/datastore/label?image=.hidden",
        "/datastore/label?image=%2e%2e%2fx",
        "/datastore/label?image=a%00b",
        "/datastore/label?image=",
        "/datastore/label?image=a%5Cb",
        "/session/?uncompress=true",
        "/datastore/label?image=a&tag=",
    ],
)
def test_names_in_requests_that_write_are_names(path: str) -> None:
    assert ask(path, "PUT")[0] == 422


def test_what_the_app_needs_is_on() -> None:
    for method, path in (
        ("PUT", "/datastore/label?image=Doe^Ü 1.2&tag=final"),
        ("PUT", "/session/"),
        ("POST", "/infer/sasm_mr?image=a/b"),
        ("GET", "/datastore/"),
        ("GET", "/datastore/image?image=head"),
        ("HEAD", "/datastore/label?image=a&tag=final"),
        ("POST", "/activelearning/first"),
        ("POST", "/batch/infer/x?images=all"),
        ("DELETE", "/session/a-b"),
        ("GET", "/session/a-b?update_ts=true"),
        ("POST", "/infer/x?session_id=&output=json"),
    ):
        assert ask(path, method)[0] == PASSED, path


def test_the_token_is_made_once_for_its_owner(tmp_path: Path) -> None:
    token = token_in(tmp_path)
    assert len(token) >= 43
    assert token_in(tmp_path) == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(RefusedError, match="others can read"):
        token_in(tmp_path)
    (tmp_path / "token").unlink()
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        token_in(tmp_path)
    (tmp_path / "token").unlink()
    (tmp_path / "token").write_text("guess")
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(RefusedError, match="no token"):
        token_in(tmp_path)


@pytest.mark.parametrize(
    "planted", ["monai_sasm.py", "numpy/__init__.py", "lib/x.py", "bin/python", ".env", "main.pyc"]
)
def test_a_folder_that_brings_code_is_no_app(planted: str, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    assert _app_in(folder) == folder == _app_in(folder)
    assert folder.stat().st_mode & 0o077 == 0
    (folder / planted).parent.mkdir(exist_ok=True)
    (folder / planted).write_text("")
    with pytest.raises(FileExistsError, match="load code"):
        _app_in(folder)


def test_the_folder_the_user_stands_in_runs_nothing(tmp_path: Path) -> None:
    """``sasm label-server .`` in a folder of images that came with a ``monailabel/`` and an ``.env`` of its own."""
    for name in ("monailabel/__init__.py", "monailabel/main.py", "sitecustomize.py", "sasm-label-app/main.py"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_text("open('owned', 'w'); raise SystemExit(9)")
    real = tmp_path / "real" / "monailabel"
    real.mkdir(parents=True)
    (real / "__init__.py").write_text("")
    (real / "main.py").write_text("import os, sys; print(os.getcwd(), sys.path, sys.argv)")
    code = "import sys; sys.path.pop(0); sys.argv[0] = 'sasm'; from monai_sasm.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(real.parent), *sys.path[1:]])}
    environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    command = [sys.executable, "-c", code, "label-server", "."]
    done = subprocess.run(
        command, cwd=tmp_path / "images", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "state" / "sasm" / "label-app") in done.stdout.split()[0]
    assert f"'--studies', '{tmp_path / 'images'}'" in done.stdout
    assert "?token=" in done.stderr
    assert not list(tmp_path.rglob("owned"))
