"""The command line: ``sasm restore | batch | degrade | ...``; each command lives in its own file."""

from __future__ import annotations

import inspect
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from monai_sasm import __version__
from monai_sasm.cli.batch import batch
from monai_sasm.cli.bids import bids
from monai_sasm.cli.bundles import bundles
from monai_sasm.cli.degrade import degrade
from monai_sasm.cli.evaluate import evaluate
from monai_sasm.cli.label import label_app, label_environment, label_server, slicer_module
from monai_sasm.cli.node import node, pull, push
from monai_sasm.cli.output import TERMINATED, set_up_streams
from monai_sasm.cli.pictures import enlarge, inpaint
from monai_sasm.cli.qualify import qualify
from monai_sasm.cli.restore import restore
from monai_sasm.cli.thin import thin
from monai_sasm.cli.view import view

app = typer.Typer(name="sasm", no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(restore)
app.command()(view)
app.command(context_settings={"auto_envvar_prefix": "SASM_BATCH"})(batch)
app.command()(bids)
app.command()(thin)
app.command()(enlarge)
app.command()(inpaint)
app.command()(degrade)
app.command()(evaluate)
app.command()(qualify)
app.command()(node)
app.command()(pull)
app.command()(push)
app.command()(label_server)
app.command()(label_app)
app.command()(label_environment)
app.command()(slicer_module)
app.add_typer(bundles, name="bundles")

for command in (*app.registered_commands, *bundles.registered_commands):
    # in paragraphs, which a terminal wraps to its own width; the ends of lines of docstrings would stay, too
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command.callback) or "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``sasm``; ends the process with one of the exit codes of :mod:`monai_sasm.cli.output`."""
    signal.signal(signal.SIGTERM, _terminate)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which is what nohup wants
        signal.signal(signal.SIGHUP, _hang_up)
    set_up_streams()
    app(args=None if arguments is None else list(arguments), prog_name="sasm")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spatially aware soft mixing: restore CT, MR and photos with experts that act where they are needed.

    Not a medical device.
    """


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)  # as an exception, so that half-written files are removed on the way out


def _hang_up(number: int, frame: FrameType | None) -> None:
    """The terminal was closed: whatever SIGTERM does at the moment, a server's own way out included."""
    signal.signal(number, signal.SIG_IGN)  # shell and system both send it, and cleaning up must come to its end
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
