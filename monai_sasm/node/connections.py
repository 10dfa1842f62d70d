"""Who is connected to a server, since when, and who has to give way: nobody can keep the others out by being silent."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

Address = tuple[str, int]


@dataclass
class _Open:
    request: socket.socket
    host: str
    since: float
    greeted: bool = False


class Connections:
    """Open connections of one server.

    Args:
        most: at once.
        most_per_host: at once from one address.
        patience: seconds within which a connection must have said what it wants.
        clock: gives seconds; replaced in tests.
    """

    def __init__(
        self, most: int, most_per_host: int, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._most_per_host, self._patience, self._clock = most, most_per_host, patience, clock
        self._open: dict[Address, _Open] = {}
        self._lock = Lock()

    def admit(self, request: socket.socket, address: Any) -> bool:
        """Whether a new connection may stay; of too many, the oldest that has said nothing goes instead."""
        with self._lock:
            new = _Open(request, str(address[0]), self._clock())
            counts = Counter(one.host for one in self._open.values())
            if counts[new.host] >= self._most_per_host and not self._make_room(new.host):
                return False
            if len(self._open) >= self._most and not self._make_room(None):
                return False
            self._open[_key(address)] = new
            return True

    def greet(self, address: Any) -> None:
        """A connection has said what it wants, and may stay."""
        with self._lock:
            if one := self._open.get(_key(address)):
                one.greeted = True

    def holds(self, address: Any) -> bool:
        """Whether a connection may go on."""
        with self._lock:
            return _key(address) in self._open

    def replace(self, address: Any, request: socket.socket) -> None:
        """A connection goes on over another socket: TLS has been put over it."""
        with self._lock:
            known = self._open.get(_key(address))
            self._open[_key(address)] = _Open(request, str(address[0]), known.since if known else self._clock())

    def forget(self, address: Any) -> None:
        """A connection is closed."""
        with self._lock:
            self._open.pop(_key(address), None)

    def reap(self) -> None:
        """Close the connections that took too long to say what they want."""
        now = self._clock()
        with self._lock:
            for address, one in list(self._open.items()):
                if one.request.fileno() < 0:
                    del self._open[address]
                elif not one.greeted and now - one.since > self._patience:
                    self._close(address)

    def _make_room(self, host: str | None) -> bool:
        waiting = [
            (one.since, address)
            for address, one in self._open.items()
            if host in (None, one.host) and (not one.greeted or one.request.fileno() < 0)
        ]
        if not waiting:
            return False
        self._close(min(waiting)[1])
        return True

    def _close(self, address: Address) -> None:
        """Whoever reads from it is told by the system, and closes it."""
        one = self._open.pop(address)
        with suppress(OSError):
            one.request.shutdown(socket.SHUT_RDWR)


def _key(address: Any) -> Address:
    return str(address[0]), int(address[1])
