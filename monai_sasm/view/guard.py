"""Who may ask the viewer for what, and what its page may load: nothing from elsewhere."""

from __future__ import annotations

import secrets
from typing import Any

from monai_sasm.errors import RefusedError
from monai_sasm.label.guard import App, Guard, Receive, Scope, Send, answer

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self' data:; worker-src 'self' blob:; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
_NOTEBOOKS = "http://127.0.0.1:* http://localhost:*"
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class ViewGuard(Guard):
    """Lets through to ``/api/`` who has the token; to the page anybody who addresses it rightly; adds headers.

    Args:
        app: what answers.
        token: see :func:`new_token`.
        framed: a notebook on this machine may show the page in a frame.
    """

    other_name = "open the address that `sasm view` printed; the page is for this machine only"
    other_page = "open the address that `sasm view` printed in a tab of its own; other pages are never answered"

    def __init__(self, app: App, token: str, framed: bool = False) -> None:
        super().__init__(app, token)
        self._answering, self._framed = app, framed
        self._headers = {"content-security-policy": _POLICY + (_NOTEBOOKS if framed else "'none'"), **_HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                named = {name.decode().lower() for name, _ in given}
                own = [(name.encode(), value.encode()) for name, value in self._headers.items() if name not in named]
                message["headers"] = [*given, *own]
            await send(message)

        if scope["type"] == "lifespan":
            await self._answering(scope, receive, send)
        elif scope["type"] != "http":
            raise RefusedError("only HTTP is answered")
        elif refusal := self.refusal(self._led_here(scope)):
            await answer(guarded, *refusal)
        elif scope["path"].startswith("/api/") and not self.has_token(scope):
            await answer(
                guarded,
                401,
                "the token is missing or wrong; open the address that sasm view printed",
            )
        else:
            await self._answering(scope, receive, guarded)

    def _led_here(self, scope: Scope) -> Scope:
        """The page, which holds no data, may be led to, as by the file that `sasm view` opens in the browser, and a
        notebook's page may ask for it: without the header that tells on them."""
        headers = scope["headers"]
        led = {(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document")} <= {*map(tuple, headers)}
        if scope["path"] != "/" or not (self._framed or (led and scope["method"] == "GET")):
            return scope
        return {**scope, "headers": [one for one in headers if one[0] != b"sec-fetch-site"]}


def new_token() -> str:
    """What the address of the page ends in; whoever has it may ask."""
    return secrets.token_urlsafe(32)
