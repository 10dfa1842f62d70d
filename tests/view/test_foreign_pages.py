"""A page of a stranger in a real browser, and the server of ``sasm view``."""

from __future__ import annotations

from typing import Any

from tests.foreign_pages import check_refused
from tests.view.conftest import Running

ASKED = [
    ("GET", "/api/state"),
    ("GET", "/api/images/1/look"),
    ("POST", "/api/images/1/gate/save"),
    ("POST", "/api/images/1/gate/fill"),
    ("PUT", "/api/files/stolen.png"),
    ("POST", "/api/files"),
]


def test_a_foreign_page_gets_nothing(viewer: Running, chromium: Any) -> None:
    check_refused(chromium, viewer.base, viewer.token, ASKED, "abdomen")
    assert not list(viewer.output.rglob("*stolen*"))
