"""When is a series complete? DICOM does not say; quiet after the last object is the sign there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock


@dataclass
class _Series:
    last: float
    open: set[int] = field(default_factory=set)
    interrupted: bool = False


class Arrivals:
    """Series that are coming in, by key.

    A series is complete when every association that brought some of it has ended and nothing happened for
    ``quiet`` seconds: some scanners open one association per object. Where an association broke off, the sender will
    come again, and ``interrupted`` seconds pass first. Should more come later still, it is restored as well.

    Args:
        quiet: seconds.
        interrupted: seconds.
        clock: gives seconds; replaced in tests.
    """

    def __init__(self, quiet: float, interrupted: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet, self._interrupted, self._clock = quiet, max(quiet, interrupted), clock
        self._series: dict[str, _Series] = {}
        self._lock = Lock()

    def resume(self, key: str) -> None:
        """A series that was coming in when the node last ended."""
        with self._lock:
            self._series[key] = _Series(self._clock(), interrupted=True)

    def arrived(self, key: str, association: int) -> None:
        """An object of a series is on disk."""
        with self._lock:
            series = self._series.setdefault(key, _Series(self._clock()))
            series.last = self._clock()
            series.open.add(association)
            series.interrupted = False

    def closed(self, association: int, *, broken: bool) -> None:
        """An association has ended, or broken off."""
        with self._lock:
            for series in self._series.values():
                if association in series.open:
                    series.open.discard(association)
                    series.last = self._clock()
                    series.interrupted |= broken

    def complete(self) -> list[str]:
        """Keys of the series that are complete now, in the order of their last object."""
        with self._lock:
            now = self._clock()
            found = [
                (series.last, key)
                for key, series in self._series.items()
                if not series.open and now - series.last >= (self._interrupted if series.interrupted else self._quiet)
            ]
        return [key for _, key in sorted(found)]

    @contextmanager
    def taking(self, key: str) -> Iterator[None]:
        """Forget a series; should the block fail, it is complete as before."""
        with self._lock:
            taken = self._series.pop(key, None)
        try:
            yield
        except BaseException:
            with self._lock:
                if taken is not None:
                    self._series.setdefault(key, taken)
            raise
