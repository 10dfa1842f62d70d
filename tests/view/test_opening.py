"""How the page comes into the user's browser: no other user of the machine may learn the token on the way."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from tests.browser import needed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions and command lines are those of a Unix system")


def test_the_token_is_in_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser's command line has what ``webbrowser.open`` was given."""
    needed("starlette"), needed("uvicorn")
    from monai_sasm.view import serving

    told: list[str] = []
    seen: dict[str, Any] = {}
    asked = threading.Event()

    def browser(url: str) -> bool:
        page = Path(url2pathname(urlsplit(url).path))
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (page, page.parent)]
        seen.update(url=url, content=page.read_text(), modes=modes)
        asked.set()
        return True

    class Server:
        def __init__(self, *arguments: Any) -> None:
            pass

        def run(self, sockets: Any) -> None:
            assert asked.wait(60)

    monkeypatch.setattr(serving, "_Server", Server)
    monkeypatch.setattr(serving.webbrowser, "open", browser)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.umask(0)
    try:
        serving.serve(None, output=tmp_path / "out", announce=told.append)
    finally:
        os.umask(before)
    token = told[0].split("#")[1]
    assert len(token) > 30
    assert token not in seen["url"]
    assert f"0;url={told[0]}" in seen["content"]
    assert seen["modes"] == [0o600, 0o700]
    assert not list(tmp_path.glob("sasm-*")), "it is gone when the server is"


def test_a_browser_comes_from_the_file_to_the_page(viewer: Any, chromium: Any, tmp_path: Path) -> None:
    from monai_sasm.view.serving import _leading_to

    page = chromium.new_page()
    page.goto(_leading_to(viewer.address, tmp_path).as_uri())
    page.wait_for_selector("body[data-state=ready]", timeout=120_000)
    assert page.url == viewer.address
    page.close()
