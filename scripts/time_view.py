"""How soon the pages of `sasm view` and of the tab alone answer, in Debian's Chromium; for an idle machine.

    python scripts/time_view.py [--demo docs/demo] [--runs 3]

One line a figure, with its limit: the best of the runs. Processor seconds are those of the server, of Chromium and of
their children together, and hardly change on a busy machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from browser import launched, new_page, serving
from PIL import Image

from monai_sasm.evaluation.synthetic_series import write_ct_series

Figure = tuple[str, float, float, float, str]  # what, value, limit, processor seconds, unit


class _Silent(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, help="Folder that build_demo.py wrote; left out where there is none.")
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    found: list[list[Figure]] = []
    with tempfile.TemporaryDirectory() as place, sync_playwright() as running:
        scans = Path(place) / "scans"
        write_ct_series(scans / "series", 24)
        write_ct_series(Path(place) / "single", 1, study=2)
        noise = np.random.default_rng(0).integers(90, 150, (750, 1000, 3), np.uint8)
        Image.fromarray(noise).resize((4000, 3000), Image.Resampling.NEAREST).save(scans / "photo.png")
        for number in range(options.runs):
            browser = launched(running)
            run = viewer(browser, scans, Path(place) / f"results {number}")
            if options.demo is not None:
                run += demo(browser, options.demo, Path(place) / "single" / "0000.dcm")
            found.append(run)
            browser.close()
    for figures in zip(*found, strict=True):
        what, _, limit, processor, unit = figures[0]
        rate = unit == "frames/s"
        best = (max if rate else min)(one[1] for one in figures)
        fine = best >= limit if rate else best <= limit
        sign = ">=" if rate else "<="
        print(
            f"{what:42} {best:8.2f} {unit:8} ({sign} {limit:g}: {'yes' if fine else 'no'}; processor {processor:.2f} s)"
        )


def viewer(browser: Any, scans: Path, output: Path) -> list[Figure]:
    """The page with its server."""
    page = new_page(browser)
    with ExitStack() as until_done:
        until_done.callback(page.close)

        def shown() -> None:
            page.goto(until_done.enter_context(serving(scans, output)))
            page.wait_for_selector("body[data-state]", state="attached")

        first = _timed("command to page", 3, shown)
        page.wait_for_selector("body[data-state=ready]", state="attached")
        slice_ = _timed("middle slice of 512 x 512 after the click", 1.5, partial(_open, page, "series"))
        frames = page.evaluate(
            """async () => {
                const one = document.getElementById("strength"), start = performance.now();
                let frames = 0;
                for (; performance.now() - start < 2000; frames++) {
                    one.value = (frames % 100) / 100;
                    one.dispatchEvent(new Event("input"));
                    await new Promise(requestAnimationFrame);
                }
                return frames / 2;
            }"""
        )
        page.wait_for_selector("#progress:has-text('All slices restored')")
        preview = _timed("preview of a photo of 12 million pixels", 2, partial(_preview, page))
    return [first, slice_, ("strength slider", frames, 30, 0.0, "frames/s"), preview]


def demo(browser: Any, folder: Path, image: Path) -> list[Figure]:
    """The page in the tab alone."""
    with _host(folder) as address:
        page = new_page(browser)
        page.goto(address)
        page.wait_for_selector("body[data-state=ready]", state="attached")
        page.set_input_files("#files", str(image))
        _open(page, image.name)  # loads the expert
        again = image.with_name("again.dcm")
        content = image.read_bytes().replace(b"3.8.498.1.2.2", b"3.8.498.1.2.9")
        again.write_bytes(content)
        page.set_input_files("#files", str(again))
        figure = _timed("slice of 512 x 512 in the tab alone", 3, partial(_open, page, again.name))
        page.close()
    return [figure]


def _open(page: Any, name: str) -> None:
    page.wait_for_selector(f"button.card:has-text('{name}')")
    card = page.get_attribute(f"button.card:has-text('{name}')", "data-id")
    page.click(f"button.card:has-text('{name}')")
    page.wait_for_selector(f"body[data-shown^='{card} '][data-shown$=' restored']", state="attached")


def _preview(page: Any) -> None:
    page.click("button.card:has-text('photo')")
    page.wait_for_selector("#busy:has-text('Preview')")


def _timed(what: str, limit: float, run: Callable[[], None]) -> Figure:
    before, started = _processor(), time.perf_counter()
    run()
    return what, time.perf_counter() - started, limit, _processor() - before, "s"


def _processor() -> float:
    """Seconds that this process and all that descend from it have used, of those that live."""
    parents, used = {}, {}
    for one in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = one.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(one.parent.name)] = int(fields[1])
        used[int(one.parent.name)] = int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(used.get(pid, 0) for pid in ours) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _host(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


if __name__ == "__main__":
    main()
