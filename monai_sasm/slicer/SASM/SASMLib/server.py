"""Requests to a MONAI Label server with the monai_sasm app, with the standard library only."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

OURS = "monai_sasm"
FILE_TYPE = ".nii.gz"


class ServerError(RuntimeError):
    """The server cannot be reached, or refuses; the message is for the user."""


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
        address: such as ``http://127.0.0.1:8000``.
        timeout: seconds to wait for an answer. Restoring is not waited for, uploading and another client's work are.
    """

    def __init__(self, address: str, timeout: float = 300.0) -> None:
        address = address.strip().rstrip("/")
        self.address = address if "://" in address else f"http://{address}"
        if not self.address.startswith(("http://", "https://")):
            raise ServerError(f"an address begins with http:// or https://, got {address}")
        self.timeout = timeout

    def models(self) -> list[Model]:
        """What restores CT or MR volumes there, the whole pipeline first.

        Raises:
            ServerError: it cannot be reached, or runs another app.
        """
        info = json.loads(self._ask("/info/"))
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
        answer = self._ask(_infer(model, output="json"), body, f"multipart/form-data; boundary={boundary}")
        return str(json.loads(answer)["job"])

    def state(self, model: str, job: str) -> dict[str, Any]:
        """``state`` (queued, running, done, failed, cancelled), ``progress`` 0 to 1, and ``reason`` of a failure."""
        return dict(json.loads(self._about(model, job, "json", {})))

    def cancel(self, model: str, job: str) -> None:
        """Have the job end before its next slice."""
        self._about(model, job, "json", {"cancel": True})

    def take(self, model: str, job: str) -> bytes:
        """The restored volume (``.nii.gz``) of a job that is done; can be taken once."""
        return self._about(model, job, "image", {"take": True})

    def _about(self, model: str, job: str, output: str, more: dict[str, Any]) -> bytes:
        body = urlencode({"params": json.dumps({"job": job, **more})}).encode()
        return self._ask(_infer(model, image=job, output=output), body, "application/x-www-form-urlencoded")

    def _ask(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        try:
            with urlopen(Request(self.address + path, body, headers), timeout=self.timeout) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise ServerError(_reason(error)) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"no answer from {self.address}: {reason}; is the server running?") from error


def _infer(model: str, **query: str) -> str:
    return f"/infer/{quote(model)}?{urlencode(query)}"


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
    except (ValueError, KeyError, TypeError):
        return f"the server failed with code {error.code}; its log says why"
