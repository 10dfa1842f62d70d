"""``/healthz`` for whoever watches the node, ``/metrics`` for Prometheus; no patient data in either."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from monai_sasm.node.connections import Connections
from monai_sasm.node.counters import NAMES

_MOST, _SECONDS = 32, 5.0
"""So many connections at once, and so long each."""


class HealthServer:
    """A small HTTP server in a thread of its own; starts on construction.

    ``/healthz`` answers 200, or 503 when the node cannot do its work or got no further with it for long, with what it
    knows as JSON. A destination that does not answer is told and becomes a failure only then: series wait for it in
    the spool.

    Args:
        address: host and port; port 0 picks a free one.
        state: see :meth:`monai_sasm.node.service.Node.state`.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, address: tuple[str, int], state: Callable[[], dict[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _SECONDS

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    known = state()
                    self._answer(503 if known["problems"] else 200, "application/json", json.dumps(known))
                elif self.path == "/metrics":
                    self._answer(200, "text/plain; version=0.0.4", metrics(state()))
                else:
                    self._answer(404, "text/plain", "there are /healthz and /metrics\n")

            def _answer(self, status: int, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Say nothing: a line per probe would drown the log."""

        try:
            self._server = _Server(address, Handler)
        except OSError as error:
            raise OSError(f"port {address[1]} of {address[0]} cannot be listened on: {error.strerror}") from error
        Thread(target=self._server.serve_forever, name="sasm-health", daemon=True).start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Of which nobody can hold many threads, or one for long."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in arguments[0][0] else socket.AF_INET
        self._connections = Connections(_MOST, _MOST, _SECONDS)
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._connections.admit(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        super().process_request_thread(request, client_address)
        self._connections.forget(client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever hangs up early is no fault of the node."""

    def service_actions(self) -> None:
        super().service_actions()
        self._connections.reap()


def metrics(state: dict[str, Any]) -> str:
    """A node's state in the text format of Prometheus."""
    lines = []
    for name, count in state["counters"].items():
        lines += [f"# HELP sasm_node_{name}_total {NAMES[name]}", f"# TYPE sasm_node_{name}_total counter"]
        lines.append(f"sasm_node_{name}_total {count}")
    lines.append("# TYPE sasm_node_series gauge")
    lines += [f'sasm_node_series{{state="{name}"}} {count}' for name, count in state["waiting"].items()]
    lines += ["# TYPE sasm_node_unreachable gauge", f"sasm_node_unreachable {len(state['unreachable'])}"]
    lines += ["# TYPE sasm_node_free_bytes gauge", f"sasm_node_free_bytes {state['free_mb'] << 20}"]
    return "\n".join(lines) + "\n"
