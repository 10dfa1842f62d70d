"""pynetdicom's server, for callers that are not trusted: bounded in connections, in time, and in bytes."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from monai_sasm.node.connections import Connections

MAX_CONNECTIONS, MAX_PER_HOST = 128, 16
GREETING_SECONDS = 10.0
"""Within so long a caller must have asked for an association."""
IDLE_SECONDS = 60.0
"""So long an association may be silent."""
MAX_PDU_BYTES = 1 << 17
"""Of one PDU, which pynetdicom reads whole; we offer 16 KiB for data, and requests for associations are short."""
MAX_COMMAND_BYTES = 1 << 16
"""Of one command, PS3.7 section 6.3: a few UIDs and numbers, well below 1 kB."""
MAX_TOGETHER = 4
"""All objects that are coming in may take so many times the largest one."""

_ASSOCIATE_RQ, _HEADER = 1, 6  # type of PDU; bytes of type and length
_POLL = 0.02  # seconds between two looks at a request that is not whole


class Limits:
    """Bytes of the objects that are coming in.

    Args:
        most: of one object.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, dict[int, int](), Lock()

    def add(self, association: int, count: int, *, last: bool) -> bool:
        """Count a piece of an object; whether it and all others are still short enough."""
        with self._lock:
            size = self._held.get(association, 0) + count
            self._held[association] = size
            fits = size <= self._most and sum(self._held.values()) <= MAX_TOGETHER * self._most
            if last:
                del self._held[association]
            return fits

    def forget(self, association: int) -> None:
        """An association has ended."""
        with self._lock:
            self._held.pop(association, None)


class _Socket:
    """Reads no more at a time than :data:`MAX_PDU_BYTES`, whatever a PDU says of its length."""

    def __init__(self, read: Callable[[int], bytearray]) -> None:
        self._read = read

    def __call__(self, count: int) -> bytearray:
        if count > MAX_PDU_BYTES:
            raise OSError(f"a PDU of {count} bytes is refused")
        return self._read(count)


class _Handler(RequestHandler):
    def _create_association(self) -> Any:
        association = super()._create_association()
        transport: Any = association.dul.socket
        transport.recv = _Socket(transport.recv)
        return association


class _Server(ThreadedAssociationServer):
    """With :class:`Connections` before anything is read."""

    daemon_threads = True
    request_queue_size = 128
    connections: Connections
    tls: ssl.SSLContext | None = None
    admits: Callable[[str], bool]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.connections = Connections(MAX_CONNECTIONS, MAX_PER_HOST, GREETING_SECONDS)
        super().__init__(*arguments, **(keywords | {"request_handler": _Handler}))

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is listened to at all."""
        return self.admits(str(client_address[0])) and self.connections.admit(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In a thread of its own; pynetdicom is troubled only when a whole request for an association is there."""
        wanted = self._secured(request) if self.tls else request
        if wanted is None or (
            not self.tls and not _has_request(request, GREETING_SECONDS, lambda: self.connections.holds(client_address))
        ):
            self.shutdown_request(request)
            return
        if wanted is not request:
            self.connections.replace(client_address, wanted)
        request = wanted
        request.settimeout(IDLE_SECONDS)
        super().process_request_thread(request, client_address)

    def _secured(self, request: Any) -> Any:
        """A connection after its handshake; ``None`` where that fails."""
        request.settimeout(GREETING_SECONDS)
        try:
            return self.tls.wrap_socket(request, server_side=True) if self.tls else None
        except OSError:
            return None

    def shutdown_request(self, request: Any) -> None:
        """The end of a connection, whoever ended it."""
        super().shutdown_request(request)
        self.connections.reap()

    def service_actions(self) -> None:
        """Now and then."""
        super().service_actions()
        self.connections.reap()


def listen(
    entity: AE,
    address: tuple[str, int],
    handlers: list[Any],
    *,
    admits: Callable[[str], bool],
    max_object_bytes: int,
    too_long: Callable[[], None],
    tls: ssl.SSLContext | None = None,
) -> Any:
    """Start a server in a thread.

    Args:
        entity: what it offers.
        address: host and port; port 0 picks a free one.
        handlers: as for ``pynetdicom.AE.start_server``.
        admits: whether anything from an IP address is listened to.
        max_object_bytes: a longer object ends its association before it is held in memory, as does a long command.
        too_long: called when that happens.
        tls: speak TLS, and nothing else.

    Raises:
        OSError: the port is taken.
    """
    limits = Limits(max_object_bytes)
    entity.maximum_associations = MAX_CONNECTIONS
    entity.acse_timeout = GREETING_SECONDS
    entity.dimse_timeout = entity.network_timeout = IDLE_SECONDS

    def received(event: Any) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        begun = event.assoc.dimse.message  # "last" alone ends no command: more of it could follow until its object ends
        commands = len(begun.encoded_command_set.getbuffer()) if begun is not None else 0
        for item in event.pdu.presentation_data_value_items:
            data = item.presentation_data_value or b"\x01"
            command, last = data[0] & 1, data[0] & 2  # PS3.8 annex E.2
            commands += len(data) if command else 0
            if commands > MAX_COMMAND_BYTES or not (command or limits.add(id(event.assoc), len(data), last=bool(last))):
                limits.forget(id(event.assoc))
                too_long()
                _hang_up(event.assoc)

    def established(event: Any) -> None:
        server.connections.greet((event.assoc.requestor.address, event.assoc.requestor.port))

    def closed(event: Any) -> None:
        limits.forget(id(event.assoc))
        server.connections.forget((event.assoc.requestor.address, event.assoc.requestor.port))

    own = [(evt.EVT_PDU_RECV, received), (evt.EVT_ESTABLISHED, established), (evt.EVT_CONN_CLOSE, closed)]
    server: Any = entity.make_server(address, evt_handlers=[*handlers, *own], server_class=_Server)
    server.admits, server.tls = admits, tls
    entity._servers.append(server)
    Thread(target=server.serve_forever, name="sasm-acceptor", daemon=True).start()
    return server


def _has_request(request: socket.socket, seconds: float, wanted: Callable[[], bool]) -> bool:
    """Whether a whole A-ASSOCIATE-RQ, PS3.8 table 9-11, has come within a time; nothing of it is taken."""
    end = time.monotonic() + seconds
    length = _HEADER
    try:
        while wanted() and (left := end - time.monotonic()) > 0:
            request.settimeout(left)
            seen = request.recv(length, socket.MSG_PEEK)
            if not seen or seen[0] != _ASSOCIATE_RQ:
                return False
            if len(seen) >= _HEADER:
                length = _HEADER + int.from_bytes(seen[2:_HEADER], "big")
                if length > MAX_PDU_BYTES:
                    return False
                if len(seen) >= length:
                    return True
            time.sleep(_POLL)
    except OSError:
        pass
    return False


def reject(association: Any) -> None:
    """Answer a request for an association with "calling AE title not recognised", PS3.8 table 9-21."""
    association.acse.send_reject(0x01, 0x01, 0x03)
    association.is_rejected = True
    association.kill()


def _hang_up(association: Any) -> None:
    """Close at once, in the thread that reads: the sender must not go on, nor wait for an answer."""
    if association.dul.socket is not None:
        association.dul.socket.close()
