"""What takes longer than a request: results written as `sasm restore` writes them, reports of `sasm qualify`."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_sasm.errors import as_commands, reason_of
from monai_sasm.view.studies import Studies, Study

log = logging.getLogger(__name__)
State = dict[str, Any]


class Jobs:
    """Jobs under way and done, by number.

    Args:
        studies: restore what is missing.
        output: folder of results.
    """

    def __init__(self, studies: Studies, output: Path) -> None:
        self._studies, self._output = studies, output
        self._states: dict[str, State] = {}
        self.reports: dict[str, str] = {}
        """Pages of reports, by names that cannot be guessed."""

    def states(self) -> dict[str, State]:
        """``state`` of each (waiting, working, done, exists, failed), ``reason``, and ``path`` or ``report``."""
        return dict(self._states)

    def save(self, study: Study, strength: float, *, overwrite: bool = False) -> str:
        """Write the result of a study as soon as it is restored; the number of the job.

        Raises:
            ValueError: the result would lie on its source.
        """
        target = study.target(self._output)

        def work(state: State) -> None:
            one = self._studies.wait(study)
            state["state"] = "working"
            one.save(target, strength, overwrite=overwrite)

        return self._start(work, path=str(target))

    def qualify(self, study: Study) -> str:
        """Measure what restoring does to an image, as `sasm qualify` does; the number of the job."""

        def work(state: State) -> None:
            restorer = self._studies.loaded()
            state["state"] = "working"
            from monai_sasm.evaluation.qualify import Wish, qualify
            from monai_sasm.evaluation.qualify_page import photo_page, series_page
            from monai_sasm.evaluation.qualify_photos import qualify_photos

            wish = Wish(slices=1, expert=study.choices["expert"], gate=study.choices.get("gate"))
            if study.volume.modality.profile.is_picture:
                page = photo_page(*qualify_photos([study.image.entry], restorer, wish))
            else:
                page = series_page(*qualify(study.volume, restorer, replace(wish, slices=Wish.slices)))
            name = secrets.token_urlsafe(16)
            self.reports[name] = page
            state["report"] = name

        return self._start(work)

    def _start(self, work: Callable[[State], None], **known: Any) -> str:
        number = str(len(self._states) + 1)
        state = self._states[number] = {"state": "waiting", "reason": "", **known}

        def run() -> None:
            try:
                work(state)
                state["state"] = "done"
            except FileExistsError as error:
                state.update(state="exists", reason=as_commands(reason_of(error)))
            except Exception as error:
                log.debug("traceback", exc_info=True)
                state.update(state="failed", reason=as_commands(reason_of(error)))

        threading.Thread(target=run, daemon=True, name="job").start()
        return number
