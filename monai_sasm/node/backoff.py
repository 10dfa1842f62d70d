"""When to try again what failed: later and later, each thing for itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

MAX_PAUSE = 600.0
"""Seconds between two attempts of a job."""


class Backoff:
    """Pauses by name, doubled with each failure in a row. One thread at a time.

    Args:
        first: seconds after the first failure.
        most: seconds; pauses get no longer.
        clock: gives seconds; replaced in tests.
    """

    def __init__(self, first: float, most: float = MAX_PAUSE, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._first, self._most, self._clock = first, most, clock
        self._due: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._first_time: dict[str, float] = {}

    def due(self, name: str) -> bool:
        """Whether something may be tried: it has not failed, or its pause is over."""
        return self._clock() >= self._due.get(name, 0.0)

    def failed(self, name: str) -> float:
        """Note a failure; returns the pause in seconds."""
        pause = min(self._first * 2.0 ** min(self._failures[name], 60), self._most)
        self._failures[name] += 1
        self._due[name] = self._clock() + pause
        self._first_time.setdefault(name, self._clock())
        return pause

    def failures(self, name: str) -> int:
        """Failures in a row."""
        return self._failures[name]

    def lasted(self, name: str) -> float:
        """Seconds since the first of the failures in a row."""
        now = self._clock()
        return now - self._first_time.get(name, now)

    def forget(self, name: str) -> None:
        """It has succeeded, or is gone."""
        self._due.pop(name, None)
        self._failures.pop(name, None)
        self._first_time.pop(name, None)
