"""`sasm view` as a process of its own, and a tab to look at it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium_running, needed
from tests.data import CHECKOUT
from tests.view import scans

PATIENCE = 120_000  # ms: a machine that tests run on may be busy


@dataclass
class Running:
    """A viewer that was started: address with its token, folders, process."""

    address: str
    scans: Path
    output: Path
    process: subprocess.Popen[str]

    @property
    def base(self) -> str:
        return self.address.split("/#")[0]

    @property
    def token(self) -> str:
        return self.address.split("#")[1]


def started(folder: Path, output: Path, *options: str) -> Running:
    command = [sys.executable, "-m", "monai_sasm.cli.main", "view", str(folder), "--no-open", "-o", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(output.parent)}
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--precision", "float32", *options],
        stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    return Running(address, folder, output, process)


@pytest.fixture(scope="session")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One viewer for all tests of this folder; what it left behind is looked at in the end."""
    needed("starlette"), needed("uvicorn")
    place = tmp_path_factory.mktemp("view")
    running = started(scans.make(place / "scans"), place / "results")
    yield running
    running.process.terminate()
    assert running.process.wait(60) != 0
    assert not list(place.glob("sasm-view-*")), "uploads are deleted on the way out"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the tests of a file: others run asyncio, which Playwright does not bear beside it."""
    with chromium_running() as browser:
        yield browser


@dataclass
class Tab:
    """A page with the viewer, and what it asked for and complained about."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, name: str, expert: str | None = None) -> None:
        """Click a card, and wait for the middle slice."""
        self.page.click(f".card:has-text('{name}')")
        self.shown("gate")
        if expert is not None:
            self.page.wait_for_selector(f"#expert option[value='{expert}']", state="attached", timeout=PATIENCE)
            self.page.select_option("#expert", expert)
            self.shown(expert)

    def shown(self, what: str) -> None:
        """Wait until a restored slice is shown, of an expert or with an index: ``"lowdose_ct_unet 3"``."""
        self.page.wait_for_selector(f"body[data-shown*='{what}'][data-shown$=' restored']", timeout=PATIENCE)

    def value(self, column: int, row: int) -> dict[str, list[float]]:
        return self.page.evaluate("([x, y]) => sasmView.valueAt(x, y)", [column, row])

    def drag(self, start: tuple[float, float], end: tuple[float, float], pane: int = 0) -> None:
        """Drag the pointer between two pixels of the image."""
        places = [
            self.page.evaluate(
                """([x, y, pane]) => {
                    const stage = sasmView.stage, box = stage.marks.getBoundingClientRect();
                    const spot = stage.spot(stage.panes()[pane], [x * stage.step[0], y * stage.step[1]]);
                    return [box.left + spot[0] / stage.ratio, box.top + spot[1] / stage.ratio];
                }""",
                [*point, pane],
            )
            for point in (start, end)
        ]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        self.page.mouse.move(*places[1], steps=4)
        self.page.mouse.up()

    def grey(self, column: float, row: float, pane: int = 0) -> list[int]:
        """Red, green and blue of the picture where the centre of a pixel of the image is."""
        return self.page.evaluate(
            """([x, y, pane]) => {
                const stage = sasmView.stage, gl = stage.renderer.gl, out = new Uint8Array(4);
                stage.paint();
                const spot = stage.spot(stage.panes()[pane], [(x + 0.5) * stage.step[0], (y + 0.5) * stage.step[1]]);
                const bottom = stage.picture.height - 1 - Math.floor(spot[1]);
                gl.readPixels(Math.floor(spot[0]), bottom, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, out);
                return [...out.slice(0, 3)];
            }""",
            [column, row, pane],
        )


@pytest.fixture
def tab(viewer: Running, chromium: Any) -> Iterator[Tab]:
    """A fresh tab at 1280 x 720; nothing it asked for may have left the machine, nothing may have gone wrong in it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    one = Tab(context.new_page())
    one.page.set_default_timeout(PATIENCE)
    one.page.on("request", lambda request: one.requests.append(request.url))
    one.page.on("pageerror", lambda error: one.errors.append(str(error)))
    one.page.goto(viewer.address)
    one.page.wait_for_selector("body[data-state=ready]", timeout=PATIENCE)
    yield one
    context.close()
    assert one.errors == []
    foreign = [url for url in one.requests if not url.startswith((f"{viewer.base}/", "data:", "blob:"))]
    assert foreign == []
