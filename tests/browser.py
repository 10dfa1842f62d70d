"""Debian's Chromium, for tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

RESOLVE = "--host-resolver-rules=MAP *.example 127.0.0.1"
"""Flag of Chromium: a name of the stranger's means this machine (DNS rebinding)."""
FLAGS = [
    "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", RESOLVE,
]  # fmt: skip


def needed(module: str) -> Any:
    """A library of the extras; in CI it must be there, elsewhere its absence skips the test."""
    return import_module(module) if os.environ.get("CI") == "true" else pytest.importorskip(module)


@contextmanager
def chromium_running() -> Iterator[Any]:
    """Debian's Chromium; in CI it must be there, elsewhere its absence skips the test.

    Only one at a time, and no asyncio beside it in the thread: so says Playwright.
    """
    program = shutil.which("chromium")
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("chromium is missing in CI: apt-get install chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    playwright = needed("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield browser
        browser.close()
