"""Does the node get on with its work? A node that is stuck looks like one that has nothing to do, unless asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock


class Progress:
    """When each activity last got further, or had nothing to do.

    Args:
        clock: gives seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._last: dict[str, float] = {}

    def made(self, activity: str) -> None:
        """An activity got further."""
        with self._lock:
            self._last[activity] = self._clock()

    idle = made
    """An activity has nothing to do."""

    def stalled(self, seconds: float) -> list[str]:
        """Activities that have work and got no further for so long, each as a phrase."""
        now = self._clock()
        with self._lock:
            late = {activity: now - last for activity, last in self._last.items() if now - last > seconds}
        return [f"{activity}: no progress for {past / 60:.0f} minutes" for activity, past in sorted(late.items())]
