"""Results written as `sasm restore` writes them, when all of an image is restored."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from monai_sasm.errors import reason_of
from monai_sasm.view.studies import Studies, Study

log = logging.getLogger(__name__)


class Saves:
    """Saves under way and done, by number.

    Args:
        studies: restore what is missing.
        output: folder of results.
    """

    def __init__(self, studies: Studies, output: Path) -> None:
        self._studies, self._output = studies, output
        self._states: dict[str, dict[str, Any]] = {}

    def start(self, study: Study, strength: float, *, overwrite: bool = False) -> str:
        """Write the result of a study in the background; the number of the save.

        Raises:
            ValueError: the result would lie on its source.
        """
        target, number = study.image.target(self._output), str(len(self._states) + 1)
        state = {"state": "restoring", "path": str(target), "reason": ""}
        self._states[number] = state

        def run() -> None:
            try:
                one = self._studies.wait(study)
                state["state"] = "writing"
                target.parent.mkdir(parents=True, exist_ok=True)
                one.restored(strength).save_as(target, overwrite=overwrite)
                state["state"] = "done"
            except FileExistsError as error:
                state.update(state="exists", reason=reason_of(error))
            except Exception as error:
                log.debug("traceback", exc_info=True)
                state.update(state="failed", reason=reason_of(error))

        threading.Thread(target=run, daemon=True, name="saving").start()
        return number

    def states(self) -> dict[str, dict[str, Any]]:
        """``state`` (restoring, writing, done, exists, failed), ``path`` and ``reason`` of each."""
        return dict(self._states)
