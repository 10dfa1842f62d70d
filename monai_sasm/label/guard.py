"""Who may ask a server for what: checked before it sees a request.

A page that is open in a browser on this machine can send requests to any server on it, under a name of its own (DNS
rebinding). So a request must be addressed to a known name, come from no foreign page and carry the token. MONAI Label
answers everybody, and its requests can write anywhere it may write: there a request must also be one of those our app
needs.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from monai_sasm.errors import RefusedError
from monai_sasm.io.nofollow import open_regular, read_regular

TOKEN_FILE = "token"
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_NAME = r"[\w^-][\w^.-]{0,200}"
_PATHS = {
    "GET": r"/info/|/datastore/((image|label)(/info)?)?|/session/[\w-]{1,64}|/batch/infer|/auth/token/valid",
    "HEAD": r"/datastore/(image|label)",
    "POST": rf"/infer/{_NAME}|/batch/infer/{_NAME}|/activelearning/(first|random)",
    "PUT": r"/session/|/datastore/label",
    "DELETE": r"/session/[\w-]{1,64}|/batch/infer",
}
_ALLOWED = {method: re.compile(pattern) for method, pattern in _PATHS.items()}
_FILE = re.compile(r"(?!\.)[^/\\\x00-\x1f]{1,255}")  # no way to another folder
_VALUES = {
    "image": _FILE, "label": _FILE, "tag": re.compile(r"[\w-]{1,64}"), "session_id": re.compile(r"[\w-]{0,64}"),
    "uncompress": re.compile(r"false|0|off|no", re.IGNORECASE),
}  # fmt: skip
_MAX_FORM = 1 << 14
_AT_START = "in the terminal where `sasm label-server` was started"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware around the server.

    Args:
        app: what answers the requests that pass.
        token: whoever sends it as ``Authorization: Bearer TOKEN`` may ask. MONAI Label's own clients get it by logging
            in with any user name and the token as password.
        hosts: names by which the server may be addressed, besides this machine's own and the address of the connection.
        origins: such as ``https://viewer.example``, whose pages may ask, with the token.
    """

    other_name = (
        f"open the address that was printed {_AT_START}, or have it started with `sasm label-server --allow-host NAME`"
    )
    """What to do about a 403, for whoever reads it in a browser, and then for whoever runs the server."""
    other_page = (
        f"open the address that was printed {_AT_START} in a tab of its own, or have it started with "
        "`sasm label-server --allow-origin URL` for the server of this page"
    )
    """The same where another page asked."""

    def __init__(self, app: App, token: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._app, self._token = app, token
        self._hosts = {host.lower() for host in (*THIS_MACHINE, *hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            raise RefusedError("only HTTP is answered")
        elif refusal := self.refusal(scope):
            await answer(send, *refusal)
        elif (scope["method"], scope["path"]) == ("GET", "/auth/"):
            await answer(send, 200, {"enabled": True, "client_id": "", "realm": ""})
        elif (scope["method"], scope["path"]) == ("POST", "/auth/token"):
            await self._log_in(receive, send)
        elif scope["method"] == "OPTIONS" and _header(scope, b"origin"):  # of an allowed page; it carries no token
            await self._app(scope, receive, send)
        elif not self.has_token(scope):
            await answer(
                send,
                401,
                "the token is missing or wrong: log in with any user name and the token as password, or open the "
                f"address that was printed {_AT_START}; the token is its end",
            )
        elif refusal := _not_needed(scope):
            await answer(send, *refusal)
        elif scope["path"] == "/auth/token/valid":
            await answer(send, 200, {"username": "sasm"})
        else:
            await self._app(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason, where the server is addressed by somebody or under a name that it does not answer."""
        host = _header(scope, b"host")
        name = _host_name(host)
        if name not in self._hosts and name != str((scope.get("server") or [None])[0]):
            return 403, f"the server does not answer to this name: {self.other_name}"
        origin = _header(scope, b"origin")
        if origin is not None and not (origin.lower() in self._origins or _is_own(origin.lower(), str(host).lower())):
            return 403, f"pages of this origin may not ask: {self.other_page}"
        site = _header(scope, b"sec-fetch-site")
        if origin is None and site not in (None, "none", "same-origin"):
            return 403, f"pages of another origin may not ask: {self.other_page}"
        return None

    def has_token(self, scope: Scope) -> bool:
        """Whether a request carries the token."""
        kind, _, given = (_header(scope, b"authorization") or "").partition(" ")
        return kind.lower() == "bearer" and self._is_token(given.strip())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    async def _log_in(self, receive: Receive, send: Send) -> None:
        body = b""
        while len(body) <= _MAX_FORM:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        given = parse_qs(body.decode("latin-1")).get("password", [""])[-1] if len(body) <= _MAX_FORM else ""
        if self._is_token(given):
            await answer(send, 200, {"access_token": self._token, "token_type": "bearer"})
        else:
            await answer(send, 401, f"the password is the token, the end of the address that was printed {_AT_START}")


def token_in(folder: Path) -> str:
    """The token of an app's folder, made where it is missing; the file can be read by its owner only.

    Raises:
        RefusedError: the file is a link, can be read by others, or holds no token.
    """
    path = folder / TOKEN_FILE
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if os.name != "nt" and path.lstat().st_mode & 0o077:
            raise RefusedError(f"others can read {path}; remove it, and a new one is made") from None
        token = read_regular(path, most=1000).decode(errors="replace").strip()
        if len(token) < 32 or not token.isascii():
            raise RefusedError(f"{path} holds no token; remove it, and a new one is made") from None
        return token
    with os.fdopen(descriptor, "w") as file:
        token = secrets.token_urlsafe(32)
        file.write(token)
    return token


def _not_needed(scope: Scope) -> tuple[int, str] | None:
    """Requests that our app does not need are not answered: some of MONAI Label's write where the request says."""
    method, path = scope["method"], scope["path"]
    pattern = _ALLOWED.get(method)
    if pattern is None or not pattern.fullmatch(path):
        return 403, f"{method} of this path is switched off"
    for name, values in parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).items():
        if name == "image" and path.startswith("/infer/"):
            continue  # may be a path: looked at by the app
        wanted = _VALUES.get(name)
        if wanted and not all(wanted.fullmatch(value) for value in values):
            return 422, f"the value of {name} is not allowed; it must be a plain name"
    return None


def _header(scope: Scope, name: bytes) -> str | None:
    """A header that may be there once; what is said twice is nobody's name."""
    found = [value for key, value in scope["headers"] if key.lower() == name]
    return None if not found else found[0].decode("latin-1").strip() if len(found) == 1 else ""


def _host_name(host: str | None) -> str | None:
    """``name`` of ``name:port``, ``::1`` of ``[::1]:port``."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.%]+)\]|([^\[\]:/@\s]+))(?::[0-9]{1,5})?", (host or "").lower())
    return (match[1] or match[2]) if match else None


def _is_own(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


async def answer(send: Send, status: int, content: str | dict[str, Any]) -> None:
    """Answer a request in JSON; words become its ``detail``."""
    body = json.dumps({"detail": content} if isinstance(content, str) else content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
