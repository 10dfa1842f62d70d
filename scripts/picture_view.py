"""Make the picture of `sasm view` in the manual: a series, and the same at a lower dose, in Debian's Chromium.

    python scripts/picture_view.py SERIES [-o docs/view.png] [--dose 0.1]

The picture is published: take a series whose terms allow that. docs/view.png shows the DICOM example of
TotalSegmentator (https://github.com/wasserth/TotalSegmentator, tests/reference_files/example_ct_dicom, Apache-2.0).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from browser import launched, new_page, serving

from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.functional.intensity import square_spacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import inventory, write

SIMULATED = Derivation("picture_view", "1", summary="simulated dose", label="sim")
REGION = (0.65, 0.70, 0.035)  # centre and radius of region A, shares of the picture's width and height


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("series", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/view.png"))
    parser.add_argument("--dose", type=float, default=0.1, help="Share of the dose of the series.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        scans = Path(place) / "scans"
        write_low_dose(options.series, scans / f"{100 * options.dose:g} percent of the dose", options.dose)
        shutil.copytree(options.series, scans / "full dose")
        take(scans, f"{100 * options.dose:g} percent", options.output)


def write_low_dose(series: Path, target: Path, dose: float) -> None:
    """The series with the noise of a lower dose, simulated in the sinogram."""
    clean = inventory(series)[0].load()
    slices = torch.from_numpy(np.ascontiguousarray(clean.as_slices()))
    model = LowDoseCt(square_spacing(clean), (dose, dose), kernel="sharp")
    count, channels, height, width = slices.shape
    params = model.draw((count, channels, height, width), torch.Generator().manual_seed(0))
    write(clean.from_slices(model.apply(slices, params).numpy()), target, SIMULATED)


def take(scans: Path, card: str, output: Path) -> None:
    """Open a series, measure a region, and take the picture when all is restored."""
    from playwright.sync_api import sync_playwright

    with serving(scans, scans / "results") as address, sync_playwright() as running:
        browser = launched(running)
        page = new_page(browser)
        page.goto(address)
        page.click(f"button.card:has-text('{card}')")
        page.wait_for_selector("#progress:has-text('All slices restored')")
        page.wait_for_selector(".card:has-text('full dose'):has-text('noise')")
        page.keyboard.press("+")
        page.keyboard.press("c")
        box = page.locator("#marks").bounding_box()
        assert box is not None
        x, y = box["x"] + REGION[0] * box["width"], box["y"] + REGION[1] * box["height"]
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + REGION[2] * box["width"], y, steps=3)
        page.mouse.up()
        page.keyboard.press("w")
        page.screenshot(path=output)
        browser.close()


if __name__ == "__main__":
    main()
