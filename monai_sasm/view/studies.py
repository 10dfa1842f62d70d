"""Images that are being looked at, and the one thread that restores them: what is on the screen first."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, reason_of
from monai_sasm.io.orientation import Orientation, orientation_of
from monai_sasm.io.volume import Volume
from monai_sasm.view.found import Image

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

NICER = 5  # than the server and, mostly, the browser
KEPT = 4  # studies in memory at once, and fewer of large ones
ASKED = 4  # slices that may be waited for; who scrolls past others does not want them any more
KEPT_BYTES = 3 << 30
KEPT_MADE = 2  # of KEPT, the last ones that were made by hand are closed for nothing but such
MADE = ("fill-", "enlarge-")  # begin of their names, which are no experts
LARGE = 1_000_000  # pixels of a photo that gets a preview
PREVIEW = 512  # pixels, longest side of the preview of a photo
log = logging.getLogger(__name__)


class Slices(Protocol):
    """What restores the slices of an image; see :class:`monai_sasm.restoration.on_demand.OnDemand`."""

    @property
    def done(self) -> list[int]: ...
    @property
    def units(self) -> int: ...
    def restore(self, index: int, progress: Callable[[int], None] | None = None) -> None: ...
    def change(self, index: int, strength: float = 1.0) -> NDArray[np.float32]: ...
    def weights(self, index: int) -> dict[str, NDArray[np.uint8]]: ...
    def uncertainty(self, index: int) -> NDArray[np.float32] | None: ...
    def notes(self, *indices: int) -> list[str]: ...
    def save(self, target: Path, strength: float, *, overwrite: bool = False) -> object: ...


class Study:
    """One image with one choice of experts.

    Args:
        image: of the inventory, not refused.
        choices: fields of :class:`Options`.
        words: what a command line needs beside them to write the same: ``--trust`` and its folders, and the like.
    """

    def __init__(self, image: Image, choices: dict[str, Any], words: Sequence[str] = ()) -> None:
        self.image, self.choices, self.words = image, choices, tuple(words)
        self.failure: str | None = None
        self.part = 0.0  # of the slice under way
        self.focus = 0
        self.wanted = 0  # saves that wait for the last slice
        self.one: Slices | None = None
        self.preview: Slices | None = None
        self._volume: Volume | None = None
        self._lock = threading.Lock()

    @property
    def volume(self) -> Volume:
        """Read on first use.

        Raises:
            RefusedError: it cannot be read rightly.
        """
        with self._lock:
            if self._volume is None:
                volume = self.read()
                self.orientation: Orientation = orientation_of(volume)
                self.natives = list(volume.each_slice())
                self.focus = len(self.natives) // 2
                self._volume = volume  # last: another thread takes it for a sign that the rest is there
            return self._volume

    def read(self) -> Volume:
        """The image from its files."""
        return self.image.entry.load()

    def target(self, output: Path) -> Path:
        """Where its result goes."""
        return self.image.target(output)

    def command(self, output: Path, strength: float) -> str:
        """The command line that writes the same."""
        gate = self.choices.get("gate")
        words = (*(("--gate", gate) if gate else ()), *self.words)
        return self.image.command(output, expert=self.choices["expert"], strength=strength, words=words)

    @property
    def reduction(self) -> int:
        """How many times smaller than the photo its preview is; 1 for small photos, and for CT and MR."""
        if not self.volume.modality.profile.is_picture or self.volume.array[0].size < LARGE:
            return 1
        return -(-max(self.volume.array.shape[1:]) // PREVIEW)

    def first_look(self) -> Volume:
        """What the preview is made of."""
        return reduced(self.volume, self.reduction)

    def prepare(self, restorer: Restorer) -> None:
        """Load the networks it needs."""
        from monai_sasm.restoration.on_demand import OnDemand
        from monai_sasm.restoration.options import Options

        if self.one is None:
            plan = restorer.plan(self.volume.modality, Options(**self.choices, keep_maps=True))
            if self.reduction > 1:  # the maps of a large photo would need more memory than the photo
                self.preview = OnDemand(self.first_look(), plan)
                plan = restorer.plan(self.volume.modality, Options(**self.choices))
            self.one = OnDemand(self.volume, plan)

    def missing(self) -> int | None:
        """The slice to restore next, nearest to what is looked at; ``None`` when all is done."""
        if self.failure is not None:
            return None
        done = set() if self.one is None else set(self.one.done)
        left = [index for index in range(len(self.natives)) if index not in done]
        return min(left, key=lambda index: abs(index - self.focus), default=None)

    def progress(self) -> dict[str, Any]:
        """How far it is: ``done`` holds a 0 or 1 for each slice."""
        marks = np.zeros(len(self.natives), int)
        marks[[] if self.one is None else self.one.done] = 1
        return {"done": "".join(map(str, marks)), "part": round(self.part, 3), "failure": self.failure}


class Studies:
    """Studies by image and expert, and the thread that restores them.

    Args:
        make: loads what restores; called once, in the thread.
        choices: fields of :class:`Options`, the same for all; a gate is left out where an expert is named.
        words: see :class:`Study`.
    """

    def __init__(
        self, make: Callable[[], Restorer], choices: dict[str, Any] | None = None, words: Sequence[str] = ()
    ) -> None:
        self.ready, self.failure = False, ""
        self.restorer: Restorer | None = None
        self._make, self._choices, self._words = make, choices or {}, tuple(words)
        self._studies: OrderedDict[tuple[str, str | None], Study] = OrderedDict()
        self._asked: list[tuple[Study, int, bool]] = []
        self._waited: list[Study] = []  # for all of them; one may have been closed, or made anew, since
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="restoring")
        self._thread.start()

    def __call__(self, image: Image, expert: str | None = None) -> Study:
        """The study of an image; the ones that were looked at least recently are closed for it.

        Raises:
            RefusedError: it was made by hand, see :meth:`add`, and is closed.
        """
        with self._changed:
            key = (image.id, expert)
            if expert is not None and expert.startswith(MADE) and key not in self._studies:
                raise RefusedError("this has been closed for others that were looked at since; make it again")
            study = self._studies.get(key) or Study(image, self._chosen(expert), self._words)
            self._studies[key] = study
            self._studies.move_to_end(key)
            self._close_others(key)
            self._changed.notify_all()
        return study

    def _close_others(self, key: tuple[str, str | None]) -> None:
        made = [old for old in self._studies if (old[1] or "").startswith(MADE)]
        for old in list(self._studies):
            if len(self._studies) <= KEPT and self._bytes() <= KEPT_BYTES:
                break
            if old != key and old not in made[-KEPT_MADE:] and not self._studies[old].wanted:
                del self._studies[old]

    def _chosen(self, expert: str | None) -> dict[str, Any]:
        return {**self._choices, "expert": expert} | ({"gate": None} if expert else {})

    def add(self, study: Study) -> None:
        """Keep a study that was made by hand, in the place of one of the same name."""
        with self._changed:
            key = (study.image.id, study.choices["expert"])
            self._studies[key] = study
            self._studies.move_to_end(key)
            self._changed.notify_all()

    def forget(self, image: Image) -> None:
        """Close what is open of an image."""
        with self._changed:
            for key in [key for key in self._studies if key[0] == image.id]:
                del self._studies[key]

    def ask(self, study: Study, index: int, *, preview: bool = False, seconds: float = 20.0) -> Slices | None:
        """Restore a slice before anything else, and wait; ``None`` when that takes longer than ``seconds``.

        Raises:
            ValueError: it cannot be restored; the message is the reason.
        """
        large = study.reduction > 1 and not preview  # others need not wait for a large photo
        with self._changed:
            study.focus = index
            if not large:
                self._asked = [*self._asked[1 - ASKED :], (study, index, preview)]
            self._changed.notify_all()

            def done() -> bool:
                one = study.preview if preview else study.one
                return bool(self._closed or self.failure or study.failure or (one is not None and index in one.done))

            self._changed.wait_for(done, timeout=seconds)
        if self.failure or study.failure:
            raise ValueError(self.failure or study.failure)
        one = study.preview if preview else study.one
        return one if one is not None and index in one.done else None

    def wait(self, study: Study) -> Slices:
        """Wait until the whole of a study is restored.

        Raises:
            ValueError: it cannot be.
        """
        study.volume  # noqa: B018  # read now, so that what is missing is known
        with self._changed:
            study.wanted += 1
            self._waited.append(study)
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: bool(self.failure or self._closed) or study.missing() is None)
            finally:
                study.wanted -= 1
                self._waited.remove(study)
        if self.failure or study.failure or study.one is None:
            raise ValueError(self.failure or study.failure or "the server is stopping")
        return study.one

    def loaded(self) -> Restorer:
        """What restores, when it is loaded.

        Raises:
            ValueError: it cannot be.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self.restorer or self.failure or self._closed))
        if self.restorer is None:
            raise ValueError(self.failure or "the server is stopping")
        return self.restorer

    def stop(self) -> None:
        """Restore nothing more, and let nobody wait; returns at once."""
        self._closed = True
        threading.Thread(target=self._wake, daemon=True).start()  # the lock may be held by who is interrupted

    def close(self) -> None:
        """Stop, and wait for the end of the tile under way: torch must not be at work when the process ends."""
        self.stop()
        self._thread.join(timeout=20)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _bytes(self) -> int:
        return sum(2 * one._volume.array.nbytes for one in self._studies.values() if one._volume is not None)

    def _run(self) -> None:
        try:
            self.restorer = self._make()
            self.ready = True
        except Exception as error:
            log.debug("traceback", exc_info=True)
            self.failure = reason_of(error)
        _yield_to_others()
        while True:
            with self._changed:
                self._changed.notify_all()
                work = self._next()
                while work is None and not self._closed:
                    self._changed.wait()
                    work = self._next()
                if self._closed:
                    return
            assert work is not None
            work()

    def _next(self) -> Callable[[], None] | None:
        if self.restorer is None:
            return None
        while self._asked:
            study, index, preview = self._asked.pop()  # the last one asked for is on the screen
            if study.failure is None:
                return lambda: self._restore(study, index, preview=preview)
        recent = [*self._waited, *reversed(self._studies.values())]
        for study in sorted(recent, key=lambda one: -one.wanted):
            if study._volume is not None and (missing := study.missing()) is not None:
                found, place = study, missing
                first = study.reduction > 1 and not (study.preview is not None and study.preview.done)
                return lambda: self._restore(found, place, preview=first)  # a large photo is begun by its preview
        return None

    def _restore(self, study: Study, index: int, *, preview: bool) -> None:
        assert self.restorer is not None
        try:
            study.prepare(self.restorer)
            one = study.preview if preview else study.one
            assert one is not None
            count = 0

            def progress(units: int) -> None:
                nonlocal count
                count += units
                if not preview:
                    study.part = min(1.0, count / one.units)
                if self._closed or (study.reduction > 1 and not preview and self._asked):
                    raise _GiveWayError

            one.restore(index, progress)
        except _GiveWayError:
            pass
        except Exception as error:
            log.debug("traceback", exc_info=True)
            study.failure = reason_of(error)
        study.part = 0.0


class _GiveWayError(Exception):
    """Something else is asked for; a large photo begins anew afterwards."""


def reduced(photo: Volume, times: int) -> Volume:
    """Every ``times``-th pixel of a photo: small, and as noisy, which a mean would not be."""
    return replace(photo, array=np.ascontiguousarray(photo.array[:, ::times, ::times]), affine=None)


def _yield_to_others() -> None:
    """Let this thread, and those that networks start from it, wait for whoever draws the page: it should move evenly.

    Threads have priorities of their own on Linux only, see setpriority(2).
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICER)
