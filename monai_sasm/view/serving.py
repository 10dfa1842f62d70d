"""From a path to a page: the socket, what is looked through and loaded behind it, and the way out."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from monai_sasm.io.owned_folder import OwnedFolder, remove_abandoned, temporary
from monai_sasm.types import Modality
from monai_sasm.view.found import TEMPORARY, Found
from monai_sasm.view.guard import new_token
from monai_sasm.view.server import Viewer
from monai_sasm.view.studies import Studies

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

HOST = "127.0.0.1"


def serve(
    source: Path | None,
    *,
    output: Path,
    announce: Callable[[str], None],
    modality: Modality | None = None,
    port: int = 0,
    open_page: bool = True,
    framed: bool = False,
    device: str = "auto",
    precision: str = "auto",
    gate: str | None = None,
    trust: Sequence[Path] = (),
) -> None:
    """Serve the page until it is interrupted; uploads are deleted on the way out.

    The page answers at once; files are looked through and networks loaded behind it.

    Args:
        source: what to look at.
        output: folder of what is saved, made when something is.
        announce: is told the address, with its token.
        modality: what NIfTI files are.
        port: 0 takes a free one.
        open_page: in the user's browser.
        framed: a notebook on this machine may show the page in a frame; where standard input is a pipe, the end of
            whoever holds its other end is the end of the server, too.
        device, precision, trust: see :class:`Restorer`.
        gate: another one than the default.

    Raises:
        ValueError: the port is taken.
    """
    token, found = new_token(), Found(modality)
    listening = _listen(port)
    words = [word for folder in trust for word in ("--trust", str(folder))]
    words += [] if precision == "auto" else ["--precision", precision]
    studies = Studies(lambda: _restorer(device, precision, trust, gate), {} if gate is None else {"gate": gate}, words)
    app = Viewer(found, studies, output).app(token, framed=framed)
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=5, ws="none")
    remove_abandoned(temporary(), TEMPORARY)
    address = f"http://{HOST}:{listening.getsockname()[1]}/#{token}"
    if source is not None:
        found.looking = True
        threading.Thread(target=found.look, args=(source,), daemon=True, name="looking").start()
    announce(address)
    if framed:
        threading.Thread(target=_end_with_starter, daemon=True).start()
    leading = OwnedFolder(temporary(), TEMPORARY) if open_page else None
    try:
        if leading is not None:
            page = _leading_to(address, leading.path)
            threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        _Server(config, studies).run([listening])
    finally:
        studies.close()
        found.close()
        listening.close()
        if leading is not None:
            leading.close()


class _Server(uvicorn.Server):
    """Lets go of requests that wait for a slice when it is told to end."""

    def __init__(self, config: uvicorn.Config, studies: Studies) -> None:
        super().__init__(config)
        self._studies = studies

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called on Ctrl-C and SIGTERM."""
        self._studies.stop()
        super().handle_exit(sig, frame)


def _end_with_starter() -> None:
    """A kernel that is killed can end nobody, but the system closes its end of the pipe."""
    try:
        source = sys.stdin.fileno()
        if not stat.S_ISFIFO(os.fstat(source).st_mode):
            return
        while os.read(source, 1 << 10):
            pass
    except (AttributeError, OSError, ValueError):  # there is no standard input
        return
    signal.raise_signal(signal.SIGTERM)


def _listen(port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((HOST, port))
    except OSError as error:
        one.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise ValueError(f"port {port} is taken or not allowed; give no port for a free one") from error
        raise
    one.listen(64)
    return one


def _leading_to(address: str, folder: Path) -> Path:
    """A page that leads on to an address, in a folder for its owner only.

    All users of the machine can read the command line that a browser is started with, and the address has the token.
    """
    page = folder / "open.html"
    with open(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(
            f'<!doctype html><title>sasm view</title><meta http-equiv="refresh" content="0;url={address}">'
            f'<a href="{address}">sasm view</a>\n'
        )
    return page


def _restorer(device: str, precision: str, trust: Sequence[Path], gate: str | None) -> Restorer:
    from monai_sasm.restoration.options import Options
    from monai_sasm.restoration.restorer import Restorer

    restorer = Restorer(device, precision=precision, trust=trust)
    for modality in Modality.known():
        restorer.plan(modality, Options(gate=gate))  # loads gate and experts
    return restorer
