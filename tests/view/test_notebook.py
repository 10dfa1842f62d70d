"""`sasm view` in a cell of a notebook: a page of another origin on this machine frames it, and nobody else's does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_sasm.view.notebook import View
from tests.data import CHECKOUT
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


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_it_survives_the_interruption_of_a_cell_and_ends_with_the_kernel(tmp_path: Path) -> None:
    needed("starlette"), needed("uvicorn")
    kernel = """
import signal, sys, time
from monai_sasm.view.notebook import View
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
view = View(sys.argv[1])
print(view.address.split("/#")[0], flush=True)
time.sleep(300)
"""
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(tmp_path / "grey.png")
    command = [sys.executable, "-c", kernel, str(tmp_path / "grey.png")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment, cwd=CHECKOUT
    )
    assert process.stdout is not None
    base = process.stdout.readline().strip()
    assert policy(base)
    os.killpg(process.pid, signal.SIGINT)  # as Jupyter does
    assert process.stdout.readline().strip() == "interrupted"
    time.sleep(2)
    assert policy(base)
    process.kill()
    ends = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < ends:
        try:
            policy(base)
        except OSError:
            break
        time.sleep(0.2)
    else:
        pytest.fail("the server outlives its kernel")
    process.wait()


def test_without_the_option_nothing_frames_the_page(viewer: Running) -> None:
    assert policy(viewer.base).endswith("frame-ancestors 'none'")


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="check the path"):
        View(tmp_path / "nothing")
