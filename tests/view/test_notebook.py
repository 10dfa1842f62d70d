"""`sasm view` in a cell of a notebook: a page of another origin on this machine frames it, and nobody else's does."""

from __future__ import annotations

import threading
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_sasm.view.notebook import View
from tests.view.conftest import PATIENCE, Running, needed


def policy(base: str) -> str:
    connection = HTTPConnection(base.removeprefix("http://"), timeout=60)
    connection.request("GET", "/")
    return connection.getresponse().headers["content-security-policy"]


def test_a_cell_shows_the_page(tmp_path: Path, chromium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("starlette"), needed("uvicorn")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "scans").mkdir()
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(tmp_path / "scans" / "grey.png")
    view = View(tmp_path / "scans", output=tmp_path / "results", height=500)
    base = view.address.split("/#")[0]
    cells = tmp_path / "cells"
    cells.mkdir()
    (cells / "index.html").write_text(f"<!doctype html><p>cell</p>{view._repr_html_()}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(cells)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = chromium.new_page()
    page.goto(f"http://localhost:{server.server_port}/")
    page.frame_locator("iframe").locator("button.card:has-text('grey.png')").wait_for(timeout=PATIENCE)
    assert page.locator("iframe").evaluate("one => one.getBoundingClientRect().height") == 500
    assert policy(base).endswith("frame-ancestors http://127.0.0.1:* http://localhost:*")
    page.close()
    server.shutdown()
    view.close()
    with pytest.raises(OSError, match="refused"):
        policy(base)


def test_without_the_option_nothing_frames_the_page(viewer: Running) -> None:
    assert policy(viewer.base).endswith("frame-ancestors 'none'")


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="check the path"):
        View(tmp_path / "nothing")
