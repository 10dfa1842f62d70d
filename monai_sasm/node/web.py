"""HTTP to a DICOMweb server that is not trusted: no redirects, every answer bounded in bytes and in time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from monai_sasm.node.config import INSTALL, WebPeer
from monai_sasm.optional import require

TIMEOUT = (10, 120)
"""Seconds to connect, and between two pieces of an answer."""
DEADLINE = 600.0
"""Seconds for a whole answer other than a series; a server that drips byte by byte is given up."""
MAX_ANSWER = 64 << 20
"""Bytes of an answer in JSON."""
JSON = "application/dicom+json"
_PIECE = 1 << 16
_RETRIED = (502, 503, 504)


class HttpError(OSError):
    """The server answers with an error, or with something that cannot be used; ``code`` is the HTTP status."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Answer:
    """A whole answer of a server."""

    code: int
    body: bytes

    def json(self) -> Any:
        """Its body as JSON; ``None`` where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Web:
    """One DICOMweb server, with its credentials.

    Args:
        peer: address and names of the environment variables with credentials.

    Raises:
        MissingExtraError: requests is not installed.
        ValueError: an environment variable with credentials is not set.
    """

    def __init__(self, peer: WebPeer) -> None:
        self._requests = require("requests", "DICOMweb", INSTALL)
        self._root = peer.url.rstrip("/")
        self._session = session = self._requests.Session()
        session.headers["Accept-Encoding"] = "identity"
        if peer.token_env:
            header = f"Bearer {peer.secret(peer.token_env)}"
            session.auth = lambda request: _with_header(request, header)  # a header alone gives way to ~/.netrc
        elif peer.user_env and peer.password_env:
            session.auth = (peer.secret(peer.user_env), peer.secret(peer.password_env))
        else:
            session.auth = lambda request: request  # or requests would send those of ~/.netrc, also over http
        self._verify = peer.ca_bundle or None  # given with each request: the environment comes before the session's

    def get_json(self, path: str, query: Mapping[str, Any]) -> Any:
        """The JSON of an answer; ``None`` where it has no content.

        Raises:
            OSError: the server does not answer, or with an error, or not with JSON.
        """
        with self.get(f"{path}?{urlencode(query, doseq=True)}", JSON) as answer:
            body = b"".join(pieces(answer, MAX_ANSWER, DEADLINE))
            found = Answer(answer.status_code, body).json()
        if found is None and body:
            raise HttpError(answer.status_code, "the server answers with something else than JSON; check the address")
        return found

    @contextmanager
    def get(self, path: str, accept: str) -> Iterator[Any]:
        """A ``requests.Response`` whose body is still to be read; an overloaded server is asked three times.

        Raises:
            OSError: the server does not answer, or with an error or a redirect.
        """
        with self._in_words():
            for attempt in range(3):
                answer = self._ask("GET", path, {"Accept": accept}, None)
                if answer.status_code not in _RETRIED or attempt == 2:
                    break
                answer.close()
                time.sleep(0.5 * 2**attempt)
            with answer:
                if answer.status_code >= 400:
                    raise HttpError(answer.status_code, f"the server answers HTTP {answer.status_code}")
                yield answer

    def post(self, path: str, kind: str, body: bytes) -> Answer:
        """Send ``body`` of a content type, once; the answer, whatever its status.

        Raises:
            OSError: the server does not answer, or with a redirect: what was sent is patient data, for this server.
        """
        with self._in_words(), self._ask("POST", path, {"Accept": JSON, "Content-Type": kind}, body) as answer:
            return Answer(answer.status_code, b"".join(pieces(answer, MAX_ANSWER, DEADLINE)))

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        answer = self._session.request(
            method, self._root + path, headers=headers, data=body, timeout=TIMEOUT, stream=True, allow_redirects=False,
            verify=self._verify,
        )  # fmt: skip
        if 300 <= answer.status_code < 400:
            answer.close()
            raise HttpError(
                answer.status_code,
                f"the server answers HTTP {answer.status_code}, a redirect, which is not followed: a login page, or "
                "another address; give the address that answers by itself",
            )
        return answer

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except self._requests.RequestException as error:
            raise OSError(f"the server does not answer ({type(error).__name__}); check the address") from error


def pieces(answer: Any, most: int, seconds: float) -> Iterator[bytes]:
    """The body of an answer, piece by piece.

    Raises:
        HttpError: it is longer than ``most`` bytes, or takes longer than ``seconds``.
    """
    until = time.monotonic() + seconds
    size = 0
    for piece in answer.iter_content(_PIECE):
        size += len(piece)
        if size > most:
            raise HttpError(answer.status_code, f"the server's answer is longer than {most >> 20} MiB")
        if time.monotonic() > until:
            raise HttpError(answer.status_code, f"the server's answer has not ended after {seconds:.0f} s")
        yield piece


def _with_header(request: Any, header: str) -> Any:
    request.headers["Authorization"] = header
    return request
