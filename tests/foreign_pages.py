"""A page of a stranger, open in a browser on the machine of a server that listens on loopback; and what it tries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

BLOCKED = 0
"""Instead of a status: Chromium has sent the request, and tells the page nothing of the answer."""
_PAGE = b"<!doctype html><title>stranger</title><p>Nothing to see."
_ASK = """async ([url, method, token]) => {
    const options = {method, headers: token ? {Authorization: `Bearer ${token}`} : {}};
    if (method === 'POST' || method === 'PUT') options.body = 'stolen=1';
    const tell = async options => {
        try { const answer = await fetch(url, options); return [answer.type, answer.status, await answer.text()]; }
        catch (error) { return ['error', 0, '']; }
    };
    return [await tell(options), await tell({...options, mode: 'no-cors', headers: {}})];
}"""
_FORM = """([url, kind]) => {
    const form = document.createElement('form'), field = document.createElement('input');
    Object.assign(form, {action: url, method: 'POST', enctype: kind, target: 'inside'});
    Object.assign(field, {name: 'params', value: '{}'});
    const frame = document.createElement('iframe');
    frame.name = 'inside';
    form.append(field);
    document.body.append(frame, form);
    form.submit();
}"""
_EMBED = """url => new Promise(done => {
    const parts = ['img', 'script', 'iframe'].map(name => Object.assign(document.createElement(name), {src: url}));
    for (const part of parts) part.onload = part.onerror = () => setTimeout(done, 300);
    document.body.append(...parts);
})"""


@contextmanager
def stranger() -> Iterator[str]:
    """A web server with a page of nobody's; its address, with the stranger's name in it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(_PAGE)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://evil.example:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def check_refused(browser: Any, base: str, token: str, asked: list[tuple[str, str]], secret: str) -> None:
    """Try all a page can; the server answers 401 or 403 only, the page reads nothing, and with the token one may ask.

    Args:
        browser: Chromium with :data:`tests.browser.RESOLVE`.
        base: address of the server, ``http://127.0.0.1:PORT``.
        token: of the server; the stranger has it, too, in part of the attempts.
        asked: method and path of requests that pass with the token; the first is GET and has ``secret`` in its answer.
        secret: a word that no page of a stranger may read.
    """
    port = base.rpartition(":")[2]
    rebound = f"http://evil.example:{port}"
    answers: list[tuple[str, int]] = []
    context = browser.new_context()
    page = context.new_page()
    ours = (f"{base}/", f"{rebound}/")

    def note(url: str, status: int) -> None:
        if url.startswith(ours):
            answers.append((url, status))

    context.on("response", lambda one: note(one.url, one.status))
    context.on("requestfailed", lambda one: note(one.url, BLOCKED))
    with stranger() as address:
        page.goto(address)
        for method, path in asked:
            for given in ("", token):
                for kind, status, text in page.evaluate(_ASK, [base + path, method, given]):
                    assert (kind, status, text) in (("error", 0, ""), ("opaque", 0, "")), (method, path, text)
            page.evaluate(_EMBED, base + path)
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
            for method, path in asked:
                if method == "POST":
                    page.evaluate(_FORM, [base + path, kind])
                    page.wait_for_timeout(500)
    from_elsewhere = len(answers)
    for method, path in asked:
        page.goto(rebound + path)
        assert secret not in page.content()
        for kind, status, text in page.evaluate(_ASK, [path, method, token])[:1]:
            assert (kind, status) == ("basic", 403), (method, path)
            assert secret not in text
    page.goto(base + asked[0][1])  # without the token
    assert answers[-1][1] == 401
    assert secret not in page.content()
    assert from_elsewhere >= 2 * len(asked)
    assert len(answers) >= from_elsewhere + 2 * len(asked)
    assert {status for _, status in answers} <= {401, 403, BLOCKED}, answers
    context.close()
    known = browser.new_context(extra_http_headers={"Authorization": f"Bearer {token}"})
    page = known.new_page()
    assert page.goto(base + asked[0][1]).status == 200
    assert secret in page.content()
    assert json.dumps(page.evaluate(_ASK, [base + asked[0][1], "GET", token])[0]).count(secret)
    known.close()
