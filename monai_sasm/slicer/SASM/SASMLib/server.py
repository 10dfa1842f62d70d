"""Requests to a MONAI Label server with the monai_sasm app, with the standard library only."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

OURS = "monai_sasm"
FILE_TYPE = ".nii.gz"
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
QUESTION_S = 10.0  # an answer that needs no work comes within


class ServerError(RuntimeError):
    """The server refuses, or is none of ours; the message is for the user."""


class UnreachableError(ServerError):
    """Nobody answers at the address."""


class NoAnswerYetError(UnreachableError):
    """The time is over; perhaps the server works for somebody else and answers later."""


@dataclass(frozen=True)
class Model:
    """One restorer of the server.

    Args:
        name: what it is asked by.
        modality: CT or MR.
        description: one line.
    """

    name: str
    modality: str
    description: str


class Server:
    """A running server.

    Args:
        address: such as ``http://127.0.0.1:8000/?token=...``, as the server prints it at its start.
        timeout: seconds to wait for an upload, a download, and the work that the server does for others before.
        question_timeout: seconds to wait for an answer that needs no work.

    Raises:
        ServerError: that is no address.
    """

    def __init__(self, address: str, timeout: float = 300.0, question_timeout: float = QUESTION_S) -> None:
        address, _, query = address.strip().partition("?")
        address = address.rstrip("/")
        self.address = address if "://" in address else f"http://{address}"
        self._token = parse_qs(query).get("token", [""])[-1]
        if not self.address.startswith(("http://", "https://")):
            raise ServerError(f"an address begins with http:// or https://, got {address}")
        self.timeout, self.question_timeout = timeout, question_timeout
        try:
            host = urlsplit(self.address).hostname
        except ValueError as error:
            raise ServerError(f"{address} is no address: {error}") from error
        # a proxy that the hospital's settings name could neither reach this machine nor be meant to see its images
        handlers = [_NoRedirects(), *([ProxyHandler({})] if host in THIS_MACHINE else [])]
        self._opener = build_opener(*handlers)

    def models(self) -> list[Model]:
        """What restores CT or MR volumes there, the whole pipeline first.

        Raises:
            ServerError: it cannot be reached, or runs another app.
        """
        try:
            info = self._report("/info/", timeout=self.question_timeout)
        except UnreachableError:
            raise
        except ServerError as error:
            raise ServerError(f"there is no MONAI Label server at {self.address}: {error}") from error
        if info.get("name") != OURS:
            raise ServerError(f"this server runs {info.get('name')!r}; start MONAI Label with the monai_sasm app")
        found = [
            (not model["config"].get("expert"), name, model)
            for name, model in info["models"].items()
            if model.get("output_type") == "image" and model.get("modality") in ("CT", "MR")
        ]
        return [Model(name, model["modality"], model["description"]) for _, name, model in sorted(found)]

    def start(self, model: str, volume: bytes, parameters: dict[str, Any]) -> str:
        """Upload a volume (``.nii.gz``) and queue its restoration; the name of the job."""
        fields = {"params": json.dumps({**parameters, "background": True, "result_extension": FILE_TYPE})}
        boundary = secrets.token_hex(16)
        body = _multipart(fields, volume, boundary)
        answer = self._report(_infer(model, output="json"), body, f"multipart/form-data; boundary={boundary}")
        return str(answer.get("job"))

    def state(self, model: str, job: str) -> dict[str, Any]:
        """``state`` (queued, running, done, failed, cancelled), ``progress`` 0 to 1, and ``reason`` of a failure."""
        return self._report(*_about(model, job, "json", {}), timeout=self.question_timeout)

    def cancel(self, model: str, job: str) -> None:
        """Have the job end before its next slice."""
        self._report(*_about(model, job, "json", {"cancel": True}), timeout=self.question_timeout)

    def take(self, model: str, job: str) -> bytes:
        """The restored volume (``.nii.gz``) of a job that is done; can be taken once."""
        return self._ask(*_about(model, job, "image", {"take": True}))

    def _report(
        self, path: str, body: bytes | None = None, content_type: str = "", timeout: float = 0
    ) -> dict[str, Any]:
        """An answer in JSON."""
        try:
            report = json.loads(self._ask(path, body, content_type, timeout))
        except (ValueError, RecursionError) as error:
            raise ServerError("its answer is not JSON") from error
        if not isinstance(report, dict):
            raise ServerError("its answer is no JSON object")
        return report

    def _ask(self, path: str, body: bytes | None = None, content_type: str = "", timeout: float = 0) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            request = Request(self.address + path, body, headers)
            with self._opener.open(request, timeout=timeout or self.timeout) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise ServerError(_reason(error)) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            kind = NoAnswerYetError if isinstance(reason, socket.timeout) else UnreachableError
            raise kind(f"no answer from {self.address}: {reason}; is the server running?") from error
        except HTTPException as error:  # it speaks, but not HTTP
            raise ServerError(f"its answer is not HTTP ({type(error).__name__})") from error


class _NoRedirects(HTTPRedirectHandler):
    """Volume and token are for the server that the user named, and for no other."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


def _infer(model: str, **query: str) -> str:
    return f"/infer/{quote(model)}?{urlencode(query)}"


def _about(model: str, job: str, output: str, more: dict[str, Any]) -> tuple[str, bytes, str]:
    """Path, body and type of a request about a job."""
    body = urlencode({"params": json.dumps({"job": job, **more})}).encode()
    return _infer(model, image=job, output=output), body, "application/x-www-form-urlencoded"


def _multipart(fields: dict[str, str], volume: bytes, boundary: str) -> bytes:
    """A form with text fields and one file; RFC 7578."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="volume{FILE_TYPE}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return b"".join([*parts, head.encode(), volume, f"\r\n--{boundary}--\r\n".encode()])


def _reason(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"its answer is code {error.code} without a reason"
