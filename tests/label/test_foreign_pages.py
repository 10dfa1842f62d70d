"""A page of a stranger in a real browser, and the label server: the guard by itself, and around MONAI Label."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest

from monai_sasm.label.guard import Guard
from tests.browser import chromium_running, needed
from tests.foreign_pages import check_refused
from tests.label.conftest import RunningServer
from tests.ports import free_port

ASKED = [
    ("GET", "/info/"),
    ("GET", "/datastore/image?image=head"),
    ("POST", "/infer/restore?image=head"),
    ("PUT", "/datastore/label?image=head&label=stolen"),
    ("DELETE", "/batch/infer"),
]
TOKEN = "t" * 43


def check_in_browser(*arguments: Any) -> None:
    """Browser and check in a thread of their own: the browser of other tests may hold this one's event loop."""

    def check() -> None:
        with chromium_running() as browser:
            check_refused(browser, *arguments)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(check).result()


def test_a_foreign_page_gets_nothing_past_the_guard() -> None:
    """In place of MONAI Label there is a program that answers all, and notes it."""
    uvicorn = needed("uvicorn")
    passed: list[tuple[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        passed.append((scope["method"], scope["path"]))
        kind = (b"content-type", b"application/json")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        await send({"type": "http.response.body", "body": json.dumps({"name": "Jane"}).encode()})

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Guard(app, TOKEN), port=port, log_level="error", lifespan="off"))
    thread = Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.05)
        check_in_browser(f"http://127.0.0.1:{port}", TOKEN, ASKED, "Jane")
    finally:
        server.should_exit = True
        thread.join()
    assert set(passed) == {("GET", "/info/")}, "only the page with the token, at the end"


@pytest.mark.slow
def test_a_foreign_page_gets_nothing_from_monai_label(server: RunningServer) -> None:
    before = sorted(str(path) for path in server.studies.rglob("*"))
    check_in_browser(server.address, server.token, ASKED, "restore")
    assert sorted(str(path) for path in server.studies.rglob("*")) == before
