"""What the node has done since it started, as numbers; no patient data."""

from __future__ import annotations

from collections import Counter
from threading import Lock

NAMES = {
    "received": "objects acknowledged and on disk",
    "ignored_own": "objects of this software's making, acknowledged and dropped",
    "ignored_other": "objects that are no CT or MR images, acknowledged and dropped",
    "not_authorised": "requests of senders that are not allowed",
    "too_large": "objects refused because they are longer than max_object_mb",
    "out_of_resources": "objects refused because the disk is full or cannot be written",
    "repeated": "objects dropped because they were restored and sent before",
    "passed_over": "objects dropped because there is nothing to restore in them, such as localizers",
    "series": "series found complete",
    "restored": "derived objects written",
    "sent": "derived objects taken by a destination",
    "committed": "derived objects a destination has committed to keep",
    "send_failures": "attempts to send that a destination did not answer well",
    "quarantined": "series, or parts of one, set aside with a reason",
    "errors": "faults of the node itself",
}


class Counters:
    """Counts by name, from several threads."""

    def __init__(self) -> None:
        self._counts = Counter(dict.fromkeys(NAMES, 0))
        self._lock = Lock()

    def add(self, name: str, by: int = 1) -> None:
        """Count ``by`` more of one of :data:`NAMES`."""
        if name not in NAMES:
            raise KeyError(f"no counter named {name!r}; there are {', '.join(NAMES)}")
        with self._lock:
            self._counts[name] += by

    def snapshot(self) -> dict[str, int]:
        """All counts."""
        with self._lock:
            return dict(self._counts)
