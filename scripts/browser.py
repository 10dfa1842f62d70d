"""Debian's Chromium, and the server of `sasm view`, for scripts that look at its page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking"]
PATIENCE = 600_000  # ms


def launched(running: Any) -> Any:
    """Chromium, of a running Playwright."""
    return running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)


def new_page(browser: Any) -> Any:
    """An empty page of 1280 x 720 pixels."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(PATIENCE)
    return page


@contextmanager
def serving(scans: Path, output: Path) -> Iterator[str]:
    """`sasm view` of a folder, on the CPU; gives the address of its page, and ends the server whatever happens."""
    command = [sys.executable, "-m", "monai_sasm.cli.main", "view", str(scans), "--no-open", "--device", "cpu"]
    server = subprocess.Popen([*command, "-o", str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(60)
