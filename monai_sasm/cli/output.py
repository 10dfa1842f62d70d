"""How every command speaks: data to stdout, words to stderr, one exit code for what happened."""

from __future__ import annotations

import codecs
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO

import typer

from monai_sasm.errors import as_flags, reason_of

SUCCESS = 0
USAGE = 2
NOTHING_TO_DO = 3
ALL_FAILED = 4
SOME_FAILED = 8
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM

NOTICE = 25
"""Level of messages about results, between those of what is done and warnings."""

_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, ends of lines and paragraphs, and what turns the direction of writing."""

logger = logging.getLogger("monai_sasm")


def exit_code(statuses: Iterable[str]) -> int:
    """Exit code for a list of ``ok``, ``planned``, ``skipped`` and ``failed``.

    What is skipped with a reason is no failure: a folder from a scanner always holds reports and localizers.
    """
    found = set(statuses)
    if found & {"ok", "planned"}:
        return SOME_FAILED if "failed" in found else SUCCESS
    return ALL_FAILED if "failed" in found else NOTHING_TO_DO


def set_up_streams() -> None:
    """Any name can be printed: one that is no text leaves as it is, what an encoding lacks as ``\\u6f22``."""
    codecs.register_error("sasm", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="sasm")


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost, after = error.object[error.start], error.start + 1
    try:
        return lost.encode("ascii", "surrogateescape"), after
    except UnicodeEncodeError:
        return lost.encode("ascii", "backslashreplace"), after


def visible(text: str) -> str:
    """One line that commands no terminal, whatever names of files are in it: ``\\x1b`` stands for an escape."""
    return _HIDDEN.sub(_code, text)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def set_up_logging(verbosity: int) -> None:
    """Messages of this package to stderr: -1 errors only, 0 results and warnings, 1 what is done, 2 everything with
    tracebacks.

    Warnings of other libraries are shown at 2 only, for they may quote header values.
    """
    level = {-1: logging.ERROR, 0: NOTICE, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = _Saying(sys.stderr)
    handler.setFormatter(_Flags("sasm: %(message)s"))
    for name in ("monai_sasm", "py.warnings"):
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.propagate = False
        log.setLevel(level)
    logging.captureWarnings(True)
    if verbosity < 2:
        logging.getLogger("py.warnings").setLevel(logging.CRITICAL)
        logging.getLogger("pydicom").setLevel(logging.CRITICAL)


class _Saying(logging.StreamHandler):  # that tqdm's redirection knows
    """Messages as :func:`say` has them."""

    def emit(self, record: logging.LogRecord) -> None:
        say_lines(self.format(record), self.stream)


class _Flags(logging.Formatter):
    """What the package says on one line, with flags where it names choices as Python has them.

    Tracebacks and warnings of other libraries keep their lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(visible, super().format(record).split("\n")))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (of logging)
        message = as_flags(super().formatMessage(record))
        return message if record.name == "py.warnings" else visible(message)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what goes wrong before or between the images into one line and an exit code."""
    try:
        yield
    except typer.Exit:  # a RuntimeError by descent, but no error
        raise
    except KeyboardInterrupt:
        logger.error("interrupted; what was finished stays, nothing is half-written")
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        logger.debug("traceback", exc_info=True)
        logger.error(reason_of(error))
        raise typer.Exit(USAGE) from None


def print_row(row: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, at once."""
    say(json.dumps(row, default=str).replace("\x7f", "\\u007f"))


def say(text: object, stream: TextIO | None = None) -> None:
    """A line of stdout or of another stream, at once, as :func:`visible` has it.

    Results are files: where nobody reads the stream any more (``sasm restore ... | head -1``), the work goes on, and
    what follows is printed nowhere.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(visible(str(text)), file=stream, flush=True)
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # also for what the interpreter flushes at its end
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            logger.warning("%s cannot be written (%s); the work goes on", stream.name, error.strerror)


def say_lines(text: str, stream: TextIO | None = None) -> None:
    """A text of several lines, each as by :func:`say`."""
    for line in text.split("\n"):
        say(line, stream)


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns aligned with spaces, the last one as long as it is."""
    lines = [tuple(map(visible, line)) for line in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


class Bar:
    """A bar that names the image under way and counts its slices.

    Args:
        bar: of tqdm, over all images.
    """

    def __init__(self, bar: Any) -> None:
        self._bar, self._slices, self._done = bar, 1, 0.0

    def begin(self, name: str, slices: int) -> None:
        """Work on the pixels of an image begins."""
        self._slices, self._done = slices, 0.0
        self._bar.set_description_str(visible(name)[:40])
        self._count()

    def update(self, part: float) -> None:
        """A part of it is done; all parts add up to 1."""
        self._done += part
        self._count()
        self._bar.update(part)

    def _count(self) -> None:
        if self._slices > 1:
            done = min(self._slices, round(self._done * self._slices))
            self._bar.set_postfix_str(f", slice {done}/{self._slices}", refresh=False)
        else:
            self._bar.set_postfix_str("", refresh=False)


@contextmanager
def progress_bar(total: int, quiet: bool) -> Iterator[Bar | None]:
    """A bar on stderr that counts images, in parts, with the time left; messages still pass through.

    ``None`` where it makes no sense: stderr is no terminal, or somebody asked for silence.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if quiet or not sys.stderr.isatty():
        yield None
        return
    layout = "{l_bar}{bar}| {n:.1f}/{total} images{postfix} [{elapsed}<{remaining}]"
    with tqdm(total=total, file=sys.stderr, leave=False, bar_format=layout) as bar, logging_redirect_tqdm([logger]):
        yield Bar(bar)
