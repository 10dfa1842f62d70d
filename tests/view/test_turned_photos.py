"""Photos of phones are shown upright, and what is painted on them or looked at is found in the file."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageOps
from starlette.requests import Request

from monai_sasm.view.found import Found
from monai_sasm.view.photo_jobs import Enlarging, Filling
from monai_sasm.view.server import Viewer
from monai_sasm.view.studies import Study

HEIGHT, WIDTH = 24, 40


class Shown(SimpleNamespace):
    """The studies of a viewer, without networks."""

    def __call__(self, image: Any, expert: str | None = None) -> Study:
        return Study(image, {"expert": expert})

    def add(self, study: Study) -> None:
        self.made = study


@pytest.fixture(params=range(1, 9))
def photo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[274] = request.param
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    return tmp_path / "a.png"


def upright(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def stored(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def viewing(path: Path) -> tuple[Viewer, Shown, str]:
    found, studies = Found(), Shown(restorer=None)
    found.look(path)
    (image,) = found
    return Viewer(found, cast(Any, studies), path.parent / "out"), studies, image.id


def asked(answer: Any, name: str, body: bytes = b"", query: bytes = b"", **path: Any) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    params = {"id": name, "expert": "gate", **path}
    scope = {"type": "http", "method": "POST", "headers": [], "query_string": query, "path_params": params}
    return asyncio.run(answer(Request(scope, receive)))


def test_it_is_shown_as_viewers_show_it(photo: Path) -> None:
    viewer, _, name = viewing(photo)
    expected = upright(photo)
    for query in (b"", b"preview=1"):
        answer = asked(viewer.before, name, query=query, index=0)
        shown = np.frombuffer(answer.body, np.float16).reshape(json.loads(answer.headers["x-sasm"])["shape"])
        np.testing.assert_array_equal(np.rint(255 * shown.astype(np.float32)), expected)
    assert json.loads(asked(viewer.about, name).body)["shape"] == [3, *expected.shape[:2]]
    card = json.loads(asked(viewer.look, name).body)
    assert card["shape"] == list(expected.shape[:2])
    thumbnail = Image.open(io.BytesIO(base64.b64decode(card["thumbnail"].split(",")[1])))
    assert (thumbnail.height > thumbnail.width) == (expected.shape[0] > expected.shape[1])


def test_what_is_painted_and_looked_at_is_found_in_the_file(photo: Path) -> None:
    viewer, studies, name = viewing(photo)
    shown = upright(photo)
    top, left, bottom, right = 2, 3, 9, 19
    known = np.ones(shown.shape[:2], np.uint8)
    known[top:bottom, left:right] = 0
    asked(viewer.fill, name, known.tobytes())
    assert isinstance(studies.made, Filling)
    hole, painted = stored(photo)[~studies.made._known], shown[known == 0]
    assert sorted(map(tuple, hole)) == sorted(map(tuple, painted))
    asked(viewer.enlarge, name, json.dumps({"factor": 2, "view": [top, left, bottom, right]}).encode())
    assert isinstance(studies.made, Enlarging)
    assert studies.made._view is not None
    first, second, third, fourth = map(int, studies.made._view)
    seen = stored(photo)[first:third, second:fourth].reshape(-1, 3)
    assert sorted(map(tuple, seen)) == sorted(map(tuple, painted))
