"""The page that restores in the tab alone gives what `sasm restore` gives, and sends nothing anywhere."""

from __future__ import annotations

import base64
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import monai_sasm as sasm
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.gate.occupied import _body
from monai_sasm.io.orientation import orientation_of
from monai_sasm.restoration.coherence import seen_slices, shares
from monai_sasm.restoration.shelter import sheltered
from monai_sasm.types import Modality
from tests.data import CHECKOUT, ct_small, shared
from tests.view.conftest import PATIENCE, Tab, needed

TOLERANCE = 1e-3  # of the scale


class Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as it is put on a host: that of SASM_DEMO_PAGE, or made now."""
    if given := os.environ.get("SASM_DEMO_PAGE"):
        return CHECKOUT / given
    needed("onnxruntime"), needed("onnx")
    if shutil.which("npm") is None and os.environ.get("CI") != "true":
        pytest.skip("npm is not installed")
    sys.path.insert(0, str(CHECKOUT / "scripts"))
    from build_demo import build

    place = tmp_path_factory.mktemp("demo") / "page"
    build(place)
    return place


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A host of static files, which knows nothing of the page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def page(address: str, chromium: Any) -> Iterator[Tab]:
    """One tab for all tests, for its networks take a while; it asked its host alone, and sent nothing there."""
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    one, sent = Tab(context.new_page()), []
    one.page.set_default_timeout(PATIENCE)
    context.on("request", lambda request: one.requests.append(request.url))
    context.on("request", lambda request: sent.append((request.method, request.post_data)))
    one.page.on("pageerror", lambda error: one.errors.append(str(error)))
    one.page.goto(address)
    one.page.wait_for_selector("body[data-state=ready]", timeout=PATIENCE)
    yield one
    context.close()
    assert one.errors == []
    assert [url for url in one.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert set(sent) <= {("GET", None)}, "nothing is sent"


@pytest.fixture(scope="module")
def restorer() -> sasm.Restorer:
    return sasm.Restorer("cpu", precision="float32")


def dropped(page: Tab, *paths: Path) -> None:
    page.page.set_input_files("#files", [str(path) for path in paths])


def opened(page: Tab, name: str, expert: str = "gate") -> None:
    """Click a card and wait for its middle slice; other images are open in the same tab."""
    page.page.click(f"button.card:has-text('{name}')")
    card = page.page.get_attribute(f"button.card:has-text('{name}')", "data-id")
    if expert != "gate":
        page.page.wait_for_selector(f"#expert option[value='{expert}']", state="attached")
        page.page.select_option("#expert", expert)
    page.page.wait_for_selector(f"body[data-shown^='{card} {expert} '][data-shown$=' restored']")


def arrays(page: Tab) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The slice that is shown before, and its change at strength 1, ``(c, H, W)``."""
    found = []
    for name in ("before", "change"):
        shape, text = page.page.evaluate(
            """async (name) => {
                const one = sasmView.now[name], reader = new FileReader();
                const done = new Promise((then) => (reader.onload = then));
                reader.readAsDataURL(new Blob([one.data]));
                await done;
                return [one.shape, reader.result.split(",")[1]];
            }""",
            name,
        )
        found.append(np.frombuffer(base64.b64decode(text), np.float32).reshape(shape).transpose(2, 0, 1))
    return found[0], found[1]


def compared(page: Tab, volume: sasm.Volume, restorer: sasm.Restorer, index: int, **choices: Any) -> float:
    """Largest difference from what `sasm restore` makes of a slice, as part of the scale; how large the change is."""
    before, change = arrays(page)
    show = orientation_of(volume).show
    scale = scaling_for(volume).scale
    wanted = restorer(volume, **choices).volume.as_slices()[index]
    assert np.abs(before - show(volume.as_slices()[index])).max() <= 1e-6 * scale
    assert np.abs(before + change - show(wanted)).max() <= TOLERANCE * scale
    return float(np.abs(change).max() / scale)


def test_a_ct_slice(page: Tab, restorer: sasm.Restorer, folder: Path) -> None:
    dropped(page, folder / "samples" / "ct.dcm")
    opened(page, "ct.dcm")
    volume = next(sasm.open_images(folder / "samples" / "ct.dcm"))
    assert compared(page, volume, restorer, 0) > 0.05
    assert page.page.inner_text("#acting").startswith("lowdose_ct_unet 99 %")


def test_slices_of_an_mr_volume(page: Tab, restorer: sasm.Restorer, folder: Path) -> None:
    dropped(page, folder / "samples" / "brain.nii.gz")
    page.page.click(".card:has-text('brain.nii.gz') button:has-text('MR')")
    page.page.wait_for_selector("button.card:has-text('brain.nii.gz')")
    opened(page, "brain.nii.gz")
    volume = next(sasm.open_images(folder / "samples" / "brain.nii.gz", "MR"))
    middle = len(volume.as_slices()) // 2
    assert page.page.evaluate("() => sasmView.study.ends.join('')") == "RLAP"
    assert compared(page, volume, restorer, middle) > 0.02
    page.page.press("#marks", "ArrowDown")
    page.shown(f"gate {middle + 1}")
    compared(page, volume, restorer, middle + 1)


def test_a_photo_that_is_wet_and_noisy(page: Tab, restorer: sasm.Restorer, folder: Path) -> None:
    dropped(page, folder / "samples" / "window.png")
    opened(page, "window.png")
    assert compared(page, next(sasm.open_images(folder / "samples" / "window.png")), restorer, 0) > 0.2


def test_a_grey_photo_by_a_named_expert(page: Tab, restorer: sasm.Restorer, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    grey = np.clip(rng.normal(120, 20, (75, 90)), 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    dropped(page, tmp_path / "grey.png")
    opened(page, "grey.png", "noise_photo_unet")
    volume = next(sasm.open_images(tmp_path / "grey.png"))
    assert compared(page, volume, restorer, 0, expert="noise_photo_unet") > 0.05


def test_a_whole_slice_of_a_scanner(page: Tab, restorer: sasm.Restorer, tmp_path: Path) -> None:
    path = sorted(path for path in shared("ct_ldct_pairs/L096_dicom/quarter").rglob("*") if path.is_file())[0]
    shutil.copy(path, tmp_path / "quarter dose.dcm")
    dropped(page, tmp_path / "quarter dose.dcm")
    started = time.monotonic()
    opened(page, "quarter dose.dcm")
    assert time.monotonic() - started < 100, "3 s on an idle machine, as scripts/time_view.py measures"
    assert compared(page, next(sasm.open_images(tmp_path / "quarter dose.dcm")), restorer, 0) > 0.02


def test_what_cannot_be_read_rightly_is_refused(page: Tab, tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(ct_small())
    for name, change in (
        ("localizer.dcm", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("iodine.dcm", {"ImageType": ["DERIVED", "PRIMARY", "IODINE"]}),
        ("nowhere.dcm", {"PixelSpacing": None}),
        ("inverse.dcm", {"PhotometricInterpretation": "MONOCHROME1"}),
    ):
        other = deepcopy(dataset)
        other.SeriesInstanceUID = pydicom.uid.generate_uid()
        for keyword, value in change.items():
            setattr(other, keyword, value)
        other.save_as(tmp_path / name)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "notes.txt").write_text("no image" * 99)
    dropped(page, *tmp_path.iterdir())
    for name, reason in {
        "localizer": "a localizer by its Image Type",
        "iodine": "a parameter map by its Image Type",
        "nowhere": "its place in space is not known",
        "inverse": "this kind of pixels is not read in the tab; sasm view reads it",
        "deep": "16 bits",
        "notes": "this kind of file is not read in the tab",
    }.items():
        page.page.wait_for_selector(f".card.refused:has-text('{name}'):has-text('{reason}')")


def test_nothing_serious_keeps_people_out(page: Tab) -> None:
    page.page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.page.evaluate("async () => (await axe.run()).violations.map((one) => [one.impact, one.id, one.help])")
    assert [one for one in found if one[0] in ("serious", "critical")] == []
    page.page.keyboard.press("?")
    assert "Save" not in page.page.inner_text("#keys")
    page.page.keyboard.press("Escape")


def padded(height: int, width: int, *, fill: float) -> NDArray[np.float32]:
    """A body of noise in air in padding, with metal and a table, working scale."""
    rng = np.random.default_rng(height)
    row, column = np.mgrid[:height, :width] - np.array([height, width])[:, None, None] / 2
    image = np.where(np.hypot(row, column * 0.8) < height / 3, 0.04, -1.0) + rng.normal(0, 0.03, (height, width))
    image[np.hypot(row, column) > height / 2] = fill
    image[height // 2 : height // 2 + 4, width // 2 : width // 2 + 3] = 3.5
    image[3:12, 10:20] = -1.0
    return image.astype(np.float32)


@pytest.mark.parametrize("modality", [Modality.CT, Modality.MR], ids=lambda one: one.value)
@pytest.mark.parametrize(
    ("height", "width", "fill"), [(130, 157, -2.0), (141, 128, -0.7), (64, 61, -1.024), (300, 290, 0)]
)
def test_shelter_and_air(page: Tab, height: int, width: int, fill: float, modality: Modality) -> None:
    """Padding, clipped air, metal and squares of one value, compared with monai_sasm number by number."""
    image = padded(height, width, fill=fill) - (0.0 if modality is Modality.CT else np.float32(min(fill, -1.2)))
    seen = page.page.evaluate(
        """async ([image, height, width, profile, air]) => {
            const { sheltered, continued, result, body } = await import("./pixels.js");
            const one = sheltered(Float32Array.from(image), height, width, profile);
            const given = continued(one.seen, height, width, one.padding);
            const all = [one.seen, one.kept, one.padding, given, result(one, given.map((value) => value + 0.2))];
            return [...all, body(one.seen, height, width, air)].map((each) => [...each]);
        }""",
        [image.ravel().tolist(), height, width, profile_of(modality), Modality.CT.profile.air],
    )
    batch = torch.from_numpy(image)[None, None]
    shelter = sheltered(batch, modality.profile)
    given = shelter.for_experts(shelter.seen)
    wanted = [shelter.seen, shelter.kept, shelter.padding, given, shelter.result(given + 0.2)]
    wanted.append(_body(shelter.seen, Modality.CT.profile.air or 0))
    for one, other in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(np.reshape(one, (height, width)), other[0, 0].numpy(), atol=2e-6)
    assert bool(shelter.kept.any())


def profile_of(modality: Modality) -> dict[str, Any]:
    profile = modality.profile
    return {"trained": profile.trained, "scale": profile.scale, "nonnegative": profile.nonnegative}


def test_shares_of_seen_slices(page: Tab) -> None:
    for count, distance in ((2, 3.0), (9, 5.0), (21, 2.5), (30, 0.7), (42, 1.0), (60, 10.0), (300, 1.25)):
        found = page.page.evaluate(
            "async (given) => Object.values((await import('./pixels.js')).shares(...given))",
            [count, distance],
        )
        assert found[0] == seen_slices(count, distance).tolist()
        np.testing.assert_allclose(found[1], shares(count, distance), atol=1e-12)
