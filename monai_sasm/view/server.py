"""The server of the page: what it may ask for, and who may ask.

It listens on loopback. The page itself holds no data and needs no token; everything below ``/api/`` does. Images are
named by numbers that the server gave out, so that no path of a request is ever opened.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from monai_sasm import __version__
from monai_sasm.errors import RefusedError, as_commands, reason_of
from monai_sasm.functional.intensity import scalings_for
from monai_sasm.functional.uniform_tissue import uniform_rule
from monai_sasm.view.found import Found, Image
from monai_sasm.view.guard import REPORT_POLICY, ViewGuard
from monai_sasm.view.jobs import Jobs
from monai_sasm.view.looks import look
from monai_sasm.view.photo_jobs import FACTORS, Enlarging, Filling
from monai_sasm.view.planes import as_nifti
from monai_sasm.view.studies import Studies, Study

STATIC = Path(__file__).parent / "static"
_MAX_BODY = 1 << 16  # bytes of a request in JSON
Answer = Callable[[Request], Awaitable[Response]]


class Viewer:
    """All requests of the page.

    Args:
        found: the images.
        studies: what is looked at.
        output: folder of results.
    """

    def __init__(self, found: Found, studies: Studies, output: Path) -> None:
        self.found, self.studies, self.output = found, studies, output
        self.jobs = Jobs(studies, output)
        self._fillings = 0

    def app(self, token: str, *, framed: bool = False) -> Starlette:
        """The ASGI application, guarded; ``framed`` see :class:`ViewGuard`."""
        study = "/api/images/{id}/{expert}"
        routes = [
            Route("/", self.page),
            Route("/api/state", _safely(self.state)),
            Route("/api/images/{id}/look", _safely(self.look)),
            Route("/api/images/{id}/modality", _safely(self.modality), methods=["POST"]),
            Route("/api/files/{name}", _safely(self.upload), methods=["PUT"]),
            Route("/api/files", _safely(self.uploaded), methods=["POST"]),
            Route("/api/jobs", _safely(self.working)),
            Route(f"{study}/about", _safely(self.about)),
            Route(f"{study}/progress", _safely(self.progress)),
            Route(f"{study}/before/{{index:int}}", _safely(self.before)),
            Route(f"{study}/change/{{index:int}}", _safely(self.change)),
            Route(f"{study}/weight/{{name}}/{{index:int}}", _safely(self.weight)),
            Route(f"{study}/uncertainty/{{index:int}}", _safely(self.uncertainty)),
            Route(f"{study}/command", _safely(self.command)),
            Route(f"{study}/fill", _safely(self.fill), methods=["POST"]),
            Route(f"{study}/enlarge", _safely(self.enlarge), methods=["POST"]),
            Route(f"{study}/qualify", _safely(self.qualify), methods=["POST"]),
            Route(f"{study}/volume", _safely(self.volume)),
            Route(f"{study}/save", _safely(self.save), methods=["POST"]),
            Route("/report/{name}", self.report),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=routes, middleware=[Middleware(ViewGuard, token=token, framed=framed)])

    async def page(self, request: Request) -> Response:
        """The page; it holds no data."""
        return FileResponse(STATIC / "index.html")

    async def state(self, request: Request) -> Response:
        """What there is: cards of the images, whether the networks are loaded."""
        return JSONResponse(
            {
                "version": __version__,
                "ready": self.studies.ready,
                "trouble": as_commands(self.studies.failure or self.found.trouble or "") or None,
                "looking": self.found.looking,
                "output": str(self.output),
                "images": [image.card() for image in self.found],
            }
        )

    async def look(self, request: Request) -> Response:
        """A thumbnail and the size of an image; its noise, too, once the networks are loaded."""
        image = self._image(request)
        estimator = self.studies.restorer.noise_estimator if self.studies.restorer is not None else None
        return JSONResponse(await run_in_threadpool(look, image.entry, estimator))

    async def modality(self, request: Request) -> Response:
        """The user says what a NIfTI file is."""
        image, body = self._image(request), await _body(request)
        await run_in_threadpool(self.found.declare, image.id, str(body.get("modality")))
        self.studies.forget(image)
        return JSONResponse(self.found[image.id].card())

    async def upload(self, request: Request) -> Response:
        """One file that was dropped on the page, as it is."""
        declared = int(request.headers.get("content-length") or 0)
        if declared > self.found.limit:
            self.found.count(declared)  # raises
        path = self.found.receive(request.path_params["name"])
        try:
            with path.open("wb") as file:
                async for chunk in request.stream():
                    self.found.count(len(chunk))
                    await run_in_threadpool(file.write, chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return JSONResponse({})

    async def uploaded(self, request: Request) -> Response:
        """All files of a drop are there."""
        await run_in_threadpool(self.found.look_at_uploads)
        return await self.state(request)

    async def about(self, request: Request) -> Response:
        """What the page must know to show an image."""
        study = self._study(request)
        return JSONResponse(await run_in_threadpool(self._about, study))

    async def progress(self, request: Request) -> Response:
        """Which slices are restored."""
        study = self._study(request)
        await run_in_threadpool(lambda: study.volume)
        found = study.progress() | {"ready": self.studies.ready, "experts": []}
        if self.studies.restorer is not None:
            experts = self.studies.restorer.experts
            found["experts"] = sorted(name for name in experts if experts.modality(name) is study.volume.modality)
        return JSONResponse(found)

    async def before(self, request: Request) -> Response:
        """A slice as it came, ``(H, W, c)``."""
        study, index = self._study(request), request.path_params["index"]

        def shown() -> NDArray[Any]:
            study.volume  # noqa: B018  # read now
            if _preview(request):
                return study.orientation.show(study.first_look().array)
            return study.orientation.show(_slice(study, index))

        return _raw(await run_in_threadpool(shown), study)

    async def change(self, request: Request) -> Response:
        """What strength 1 adds to a slice, ``(H, W, c)``; waits until it is restored, 204 where that takes long."""
        study, index, preview = self._study(request), request.path_params["index"], _preview(request)

        def restored() -> Response:
            _slice(study, index)
            one = self.studies.ask(study, index, preview=preview)
            if one is None:
                return Response(status_code=204)
            spread = one.uncertainty(index)
            extra = {
                "weights": {name: round(float(weight.mean()) / 255, 4) for name, weight in one.weights(index).items()},
                "uncertain": spread is not None,
                "notes": one.notes(index),
            }
            return _raw(study.orientation.show(one.change(index)), study, **extra)

        return await run_in_threadpool(restored)

    async def weight(self, request: Request) -> Response:
        """The weight of a class in a slice that is restored, uint8, 255 is 1."""
        study, index = self._study(request), request.path_params["index"]
        one = study.preview or study.one
        if one is None or index not in one.done:
            raise LookupError("the slice is not restored yet")
        found = one.weights(index).get(request.path_params["name"])
        if found is None:
            return Response(status_code=204)
        return _raw(study.orientation.show(found), study)

    async def uncertainty(self, request: Request) -> Response:
        """Standard deviation of samples of a slice that is restored."""
        study, index = self._study(request), request.path_params["index"]
        found = study.one.uncertainty(index) if study.one is not None and index in study.one.done else None
        return Response(status_code=204) if found is None else _raw(study.orientation.show(found), study)

    async def command(self, request: Request) -> Response:
        """The command line that does the same."""
        study, strength = self._study(request), _strength(request.query_params.get("strength"))
        return JSONResponse({"command": study.command(self.output, strength)})

    async def save(self, request: Request) -> Response:
        """Write the result at a strength into the folder of results, when all of it is restored."""
        study, body = self._study(request), await _body(request)
        strength, overwrite = _strength(body.get("strength")), body.get("overwrite") is True
        return JSONResponse({"job": self.jobs.save(study, strength, overwrite=overwrite)})

    async def fill(self, request: Request) -> Response:
        """Fill the painted area of a photo; the request is a byte a pixel as shown, 0 where it is painted over."""
        study = self._study(request)
        shape = await run_in_threadpool(_photo_size, study)
        content = await _content(request, shape[0] * shape[1])
        if len(content) != shape[0] * shape[1]:
            raise ValueError("a mask has one byte for each pixel of the photo")
        known = study.orientation.store(np.frombuffer(content, np.uint8).reshape(shape) > 0)
        self._fillings += 1
        made = Filling(study, known, f"fill-{self._fillings}")
        self.studies.add(made)
        return JSONResponse({"expert": made.choices["expert"]})

    async def enlarge(self, request: Request) -> Response:
        """Enlarge a photo, beginning with the part that is looked at."""
        study, body = self._study(request), await _body(request)
        factor, view = body.get("factor"), body.get("view")
        if factor not in FACTORS:
            raise ValueError(f"factor must be one of {FACTORS}")
        if view is not None and not (
            isinstance(view, list) and len(view) == 4 and all(isinstance(one, (int, float)) for one in view)
        ):
            raise ValueError("a view is four numbers: top, left, bottom and right, in pixels")
        size = await run_in_threadpool(_photo_size, study)
        box = None if view is None else study.orientation.stored_box((view[0], view[1], view[2], view[3]), size)
        made = Enlarging(study, factor, box)
        self.studies.add(made)
        return JSONResponse({"expert": made.choices["expert"]})

    async def qualify(self, request: Request) -> Response:
        """Measure an image as `sasm qualify` does."""
        return JSONResponse({"job": self.jobs.qualify(self._study(request))})

    async def working(self, request: Request) -> Response:
        """What became of the jobs."""
        return JSONResponse(self.jobs.states())

    async def report(self, request: Request) -> Response:
        """The page of a report, for a frame, which can send no token: its name cannot be guessed."""
        found = self.jobs.reports.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        return HTMLResponse(found, headers={"content-security-policy": REPORT_POLICY})

    async def volume(self, request: Request) -> Response:
        """All slices, before or after, as NIfTI; after, when all are restored."""
        study, strength = self._study(request), _strength(request.query_params.get("strength", 0))
        return Response(await run_in_threadpool(as_nifti, study, strength), media_type="application/octet-stream")

    def _image(self, request: Request) -> Image:
        return self.found[request.path_params["id"]]

    def _study(self, request: Request) -> Study:
        image, expert = self._image(request), request.path_params["expert"]
        if image.entry.refusal is not None:
            raise RefusedError(image.entry.refusal)
        return self.studies(image, None if expert == "gate" else expert)

    def _about(self, study: Study) -> dict[str, Any]:
        volume, place = study.volume, study.orientation
        middle = place.show(study.natives[len(study.natives) // 2])
        spread = np.percentile(middle[:, ::4, ::4], [1, 50, 99.5]).tolist()
        profile = volume.modality.profile
        return {
            "name": volume.name,
            "place": study.image.place,
            "modality": volume.modality.value,
            "unit": volume.unit,
            "picture": profile.is_picture,
            "slices": len(study.natives),
            "shape": list(middle.shape),
            "spacing": place.spacing,
            "ends": list(place.ends),
            "reduction": study.reduction,
            "percentiles": spread,
            "flips": list(place.flips),
            "tissue": list(profile.tissue),
            "whites": [one.scale for one in scalings_for(volume)],
            "uniform": uniform_rule(profile),
            "enlarges": profile.is_picture and not isinstance(study, (Enlarging, Filling)),
            "notes": list(volume.notes),
            "target": self._target(study),
        }

    def _target(self, study: Study) -> str:
        """Where a result goes, in words; who only looks may do so where it would lie on its source."""
        try:
            return f"Will be written to {study.target(self.output)}, as sasm restore does."
        except ValueError as error:
            return f"Cannot be saved: {as_commands(reason_of(error))}."


def _slice(study: Study, index: int) -> NDArray[np.float32]:
    study.volume  # noqa: B018  # read now
    if not 0 <= index < len(study.natives):
        raise LookupError("there is no such slice")
    return study.natives[index]


def _raw(array: NDArray[Any], study: Study, **extra: Any) -> Response:
    """An array ``(c, H, W)`` or ``(H, W)`` as bytes; photos in half precision, which holds 8 bits a colour and more."""
    array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array[..., None]  # as textures have it
    if study.volume.modality.profile.is_picture and array.dtype == np.float32:
        array = array.astype(np.float16, order="C")
    about = {"shape": list(array.shape), "type": array.dtype.name, **extra}
    return Response(
        np.ascontiguousarray(array).tobytes(),
        media_type="application/octet-stream",
        headers={"x-sasm": json.dumps(about)},
    )


def _preview(request: Request) -> bool:
    return request.query_params.get("preview") == "1"


def _strength(given: Any) -> float:
    try:
        strength = float(given)
    except (TypeError, ValueError):
        strength = -1.0
    if not 0 <= strength <= 1:
        raise ValueError("strength must be a number between 0 and 1")
    return strength


def _photo_size(study: Study) -> tuple[int, int]:
    """(height, width) as shown."""
    if not study.volume.modality.profile.is_picture:
        raise RefusedError(
            "only photos are filled and enlarged: in CT and MR detail would be drawn that nobody measured"
        )
    height, width = study.orientation.show(study.volume.array).shape[1:]
    return height, width


async def _content(request: Request, most: int) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise RefusedError("the request is too long")
    return bytes(content)


async def _body(request: Request) -> dict[str, Any]:
    found = json.loads(await _content(request, _MAX_BODY) or b"{}")
    if not isinstance(found, dict):
        raise ValueError("the request must be a JSON object")
    return found


def _safely(method: Answer) -> Answer:
    """What goes wrong becomes an answer with a reason that names no patient."""

    async def answered(request: Request) -> Response:
        try:
            return await method(request)
        except LookupError:
            return JSONResponse({"detail": "there is no such image; load the page again"}, 404)
        except RefusedError as error:
            return JSONResponse({"detail": as_commands(reason_of(error))}, 413 if request.method == "PUT" else 422)
        except (ValueError, OSError, MemoryError, ImportError, RuntimeError) as error:
            return JSONResponse({"detail": as_commands(reason_of(error))}, 422)

    return answered
