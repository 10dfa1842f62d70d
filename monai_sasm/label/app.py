"""The app that ``monailabel start_server --app FOLDER`` loads; ``sasm label-app FOLDER`` makes the folder.

Beside MONAI Label's own requests it knows jobs, for clients that want to see progress:

- ``POST /infer/MODEL`` with ``params={"background": true}`` and ``output=json`` answers ``{"job": NAME, ...}`` at once;
- ``POST /infer/MODEL?image=NAME&output=json`` with ``params={"job": NAME}`` answers ``state`` and ``progress``;
- with ``params={"job": NAME, "take": true}`` and ``output=all`` or ``image`` it answers the result, once;
- with ``params={"job": NAME, "cancel": true}`` the job ends before its next slice.

With ``"save_label": true`` a result is kept below ``labels/`` in the studies folder: labels in ``original/`` or where
``label_tag`` says, images in ``restored/`` or another folder that is not one of MONAI Label's for labels.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import HTTPException
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from monai_sasm import __version__
from monai_sasm.errors import as_commands, reason_of
from monai_sasm.io.silence import mute
from monai_sasm.label.guard import Guard, token_in
from monai_sasm.label.jobs import BusyError, Jobs
from monai_sasm.label.models import models
from monai_sasm.label.service import InferenceService
from monai_sasm.label.tasks import ModelTask
from monai_sasm.label.uploads import Uploads

REFUSED, NOT_FOUND, FAILED, BUSY = 422, 404, 500, 503
RESTORED = "restored"
"""Tag under which an image is kept, beside MONAI Label's own for labels."""
_NO = (None, False, 0, "", "false", "False", "0")  # of a flag; forms and MONAI Label's manual have them as text
log = logging.getLogger(__name__)


class SasmApp(MONAILabelApp):
    """Restoration and segmentation with the bundles of this package.

    Args:
        app_dir: folder of the app; MONAI Label puts its logs there.
        studies: folder of images, or the address of a DICOMweb server.
        conf: ``device`` (auto), ``precision`` (float32), ``gate`` (the default one), ``trust`` (folders of further
            bundles, which can run code, separated like the entries of ``PATH``), ``models`` (names separated by commas;
            all), ``hosts`` (names by which the server may be addressed) and ``origins`` (whose pages in a browser may
            ask), separated by commas;
            see :class:`monai_sasm.label.guard.Guard`.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.jobs, self.uploads = Jobs(), Uploads()
        _end_as_by_ctrl_c(self.jobs)
        _put_up_guard(Path(app_dir), _names(conf.get("hosts")), _names(conf.get("origins")))
        logging.getLogger("monailabel").setLevel(logging.ERROR)  # below, it logs names of files and whole requests
        mute("pydicom")  # MONAI Label reads headers, too, in threads of its own
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="monai_sasm",
            description="Restores CT, MR and photos; segments, with or without restoring first. Not a medical device.",
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """One task for each model."""
        trust = [Path(folder) for folder in self.conf.get("trust", "").split(os.pathsep) if folder]
        device, precision, gate = (self.conf.get(key) for key in ("device", "precision", "gate"))
        service = InferenceService(device or "auto", precision or "auto", trust, gate=gate)
        found = {model.name: model for model in models(trust, gate)}
        wanted = [name for name in self.conf.get("models", "all").split(",") if name]
        names = list(found) if wanted == ["all"] else wanted
        unknown = sorted(set(names) - set(found))
        if unknown:
            raise ValueError(f"no model named {', '.join(unknown)}; available: {', '.join(found)}")
        return {name: ModelTask(found[name], service, self.jobs) for name in names}

    def init_strategies(self) -> dict[str, Strategy]:
        """Which image a viewer is offered next."""
        return {"first": First(), "random": Random()}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer a request for a result, or about a job; refusals are answers with a reason, not faults of the server.

        Raises:
            HTTPException: 404 no such image or job, 422 refused, 500 failed, 503 too many jobs wait.
        """
        try:
            if request.get("job"):
                return self._about_job(str(request["job"]), request)
            return self._answer(request, datastore or self.datastore())
        except HTTPException:
            raise
        except BusyError as error:
            raise HTTPException(BUSY, str(error)) from error
        except (ValueError, FileNotFoundError) as error:
            raise HTTPException(REFUSED, as_commands(reason_of(error), "sasm label-server")) from error
        except MONAILabelException as error:
            raise HTTPException(NOT_FOUND, error.msg) from error
        except Exception as error:  # uncaught, MONAI Label would write its text, which may quote headers, into the log
            log.debug("a request failed", exc_info=True)
            raise HTTPException(FAILED, as_commands(reason_of(error), "sasm label-server")) from error

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Every image of the studies folder, one at a time; one that fails does not keep the others from their turn.

        MONAI Label divides by the number of GPUs, which may be none, and goes on after a failure only where it thinks
        that it works on several images at once.
        """
        given = request.get("label_tag")
        if self._gives_image(request) and given == DefaultLabelTag.ORIGINAL:  # MONAI Label's own, where none was named
            given = None
        own = {"label_tag": self._tag({**request, "label_tag": given}), "multi_gpu": False}
        return super().batch_infer({**request, **own, "device": "cpu", "max_workers": 2}, datastore)

    def _answer(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        image, tag, keeps = request.get("image"), self._tag(request), request.get("save_label") not in _NO
        path = self._path_of(image, datastore)
        if keeps and (request.get("background") or not datastore.get_image_uri(image)):
            raise ValueError(
                "save_label keeps the result of a plain request for an image that is named as MONAI Label lists it; "
                "save others by PUT /datastore/label"
            )
        if keeps and self._gives_image(request) and tag in {one.value for one in DefaultLabelTag}:
            raise ValueError(f"label_tag {tag} is for labels, one of which the image would replace; leave it out")
        answer: dict[str, Any] = super().infer({**request, "image": str(path)}, datastore)
        if keeps and answer["file"]:
            about = {"model": request["model"], "params": answer["params"]}
            answer["label"] = datastore.save_label(image, answer["file"], tag, about)
        return answer

    def _tag(self, request: dict[str, Any]) -> str:
        """Folder below ``labels/`` for the result of a request.

        Raises:
            ValueError: it is no plain name.
        """
        given = request.get("label_tag") or (RESTORED if self._gives_image(request) else DefaultLabelTag.ORIGINAL)
        tag = str(given.value if isinstance(given, DefaultLabelTag) else given)
        if not re.fullmatch(r"[\w-]+", tag):
            raise ValueError("label_tag must be made of letters, digits, - and _; it becomes the name of a folder")
        return tag

    def _gives_image(self, request: dict[str, Any]) -> bool:
        task = self._infers.get(request.get("model"))
        return isinstance(task, ModelTask) and task.model.segmenter is None

    def _path_of(self, image: Any, datastore: Any) -> Path:
        """The image that a request names: one of the studies, a file or folder among them, or an upload.

        Nothing else on this machine can be named: those who ask need not be those who may read its files. And an
        identifier nobody knows must not become a path of the working folder.
        """
        if isinstance(image, str) and image:
            known = datastore.get_image_uri(image)
            if known:
                return Path(known)
            sessions = self.sessions()
            folders = [Path(self.studies), *([Path(sessions.store_path)] if sessions is not None else [])]
            path = _existing(Path(self.studies) / image)
            if path is not None and (path in self.uploads or any(one.resolve() in path.parents for one in folders)):
                return path
        raise HTTPException(NOT_FOUND, "no such image in the studies folder; a path must lead to a place inside of it")

    def _about_job(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request.get("cancel"):
                self.jobs.cancel(name)
            if not request.get("take"):
                return {"label": None, "file": None, "params": {"job": name} | self.jobs.state(name)}
            path, report = self.jobs.take(name)
        except KeyError as error:
            raise HTTPException(NOT_FOUND, f"no job named {name}; it was collected, or forgotten") from error
        return {"label": str(path), "file": str(path), "params": report}


def _end_as_by_ctrl_c(jobs: Jobs) -> None:
    """On SIGTERM, and when the terminal is closed, too, so that uploads and results are deleted.

    The server ends its work on SIGTERM, but then has the system end the process at once; Ctrl-C it hands to Python.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def end(number: int, frame: FrameType | None) -> None:
        jobs.close()  # Python waits for their thread
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which is what nohup wants
        signal.signal(signal.SIGHUP, end)


def _put_up_guard(app_dir: Path, hosts: list[str], origins: list[str]) -> None:
    """Before the server's first answer, and instead of MONAI Label's own setting for origins, which allows all."""
    server = sys.modules.get("monailabel.app")
    if server is None:
        return
    guard = Middleware(Guard, token=token_in(app_dir), hosts=hosts, origins=origins)
    pages = Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["Authorization", "Content-Type"]
    )
    server.app.user_middleware = [guard, *([pages] if origins else [])]
    server.app.middleware_stack = server.app.build_middleware_stack()


def _names(listed: str | None) -> list[str]:
    return [name for name in (listed or "").split(",") if name]


def _existing(path: Path) -> Path | None:
    """A path with all links followed, where something is there."""
    try:
        found = path.resolve()
        return found if found.exists() else None
    except (OSError, ValueError):  # too long, or not to be written as a path at all
        return None
