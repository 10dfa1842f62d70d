"""Decode in a process of its own: a decoder that crashes, hangs or takes all memory costs one image and not the run.

Decoders are programs in C that read what strangers wrote. Within :func:`decoding_apart` the few functions that call
them (:func:`decode`) run in one other process, which starts with the first of them and stays. It is bounded in memory
and time, and started again where it had to be ended. It is no sandbox: it runs as the same user. Its answers are read
as arrays and as the data classes of this package, and as nothing else.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from threading import RLock, Timer
from typing import IO, Any, TypeVar

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io import memory

SECONDS, SECONDS_PER_MIB = 120.0, 5.0
"""So long one call may take, and so much longer for each MiB of compressed data; ten times what slow machines need."""
MEMORY_SHARE, LEAST_MEMORY = 0.9, 1 << 30
"""Part of the free memory that one call may take; so many bytes always, for the libraries of decoders take some."""

_START = "import sys; sys.path[:] = sys.argv[1:]; from monai_sasm.io.apart import serve; serve()"
"""``-c`` looks into the folder the user stands in, which may hold anything: nothing is imported before that ends."""
_PIPE_BYTES = 1 << 20
_DONE, _REFUSED, _UNREADABLE, _MEMORY, _FAILED = range(5)
_NUMPY = {"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"}  # what arrays are pickled with

T = TypeVar("T")


@contextmanager
def decoding_apart(wanted: bool = True) -> Iterator[None]:
    """Within the block, in whatever thread, :func:`decode` uses the other process, if that is ``wanted``."""
    with _state.lock:
        _state.depth += wanted
    try:
        yield
    finally:
        with _state.lock:
            _state.depth -= wanted


def is_apart() -> bool:
    """Whether :func:`decode` uses the other process."""
    return _state.depth > 0


def decode(function: Callable[..., T], *arguments: str | bytes, stored: int) -> T:
    """Call a function of this package, within :func:`decoding_apart` in the other process.

    Args:
        function: of a module; raises :class:`RefusedError` where it cannot decode.
        arguments: for it.
        stored: bytes of compressed data, from which follows how long it may take.

    Raises:
        RefusedError: the function's.
        UnreadableError: the function's; or its process crashed, or took too long.
        MemoryError: it took too much memory.
        RuntimeError: another error of the function, named by its type.
    """
    if not is_apart():
        return function(*arguments)
    with _state.lock:
        if _state.process is None:
            _state.process = _Process()
        try:
            kind, answer = _state.process.call(function, arguments, SECONDS + SECONDS_PER_MIB * stored / 2**20)
        except BaseException:  # the other end is gone, or in the middle of something
            _state.end()
            raise
    if kind == _DONE:
        result: T = answer
        return result
    kinds = {_REFUSED: RefusedError, _UNREADABLE: UnreadableError, _MEMORY: MemoryError}
    raise kinds.get(kind, RuntimeError)(answer)


class _Process:
    """The other process, seen from this one."""

    def __init__(self) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # each takes address space
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads},
        )
        self._late = False
        self._told: int | None = None
        self._asked = -1.0

    def call(self, function: Callable[..., Any], arguments: tuple[str | bytes, ...], seconds: float) -> tuple[int, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = Timer(seconds, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            with suppress(BrokenPipeError):  # the reason is told below
                parts = [one.encode("utf-8", "surrogateescape") if isinstance(one, str) else one for one in arguments]
                what = {
                    "module": function.__module__,
                    "function": function.__name__,
                    "text": [isinstance(one, str) for one in arguments],
                    "free": self._free(),
                }
                _write(self._process.stdin, [json.dumps(what).encode(), *parts])
            answer = _read(self._process.stdout)
        finally:
            watch.cancel()
        if answer is None:
            code = self._process.wait()
            if self._late:
                raise UnreadableError(f"the decoder took longer than {seconds:.0f} s: the file is damaged or hostile")
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise UnreadableError(f"the decoder crashed ({how}): the file is damaged or hostile; get an intact copy")
        return answer[0][0], _Answer(io.BytesIO(answer[1]), buffers=answer[2:]).load()

    def _free(self) -> int | None:
        """Free memory, a second old at most: it changes slowly, and costs half a millisecond to ask."""
        if time.monotonic() > self._asked + 1:
            self._told, self._asked = memory.free_memory(), time.monotonic()
        return self._told

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def end(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._process.kill()
        self._process.wait()


class _State:
    """Of this process; a fork of it has its own."""

    def __init__(self) -> None:
        self.lock, self.depth = RLock(), 0
        self.process: _Process | None = None

    def end(self) -> None:
        """End the other process; the next call starts another."""
        if self.process is not None:
            self.process.end()
        self.process = None

    def forked(self) -> None:
        """The lock may be held by a thread that is not here; the other process belongs to the parent."""
        self.lock, self.process = RLock(), None


class _Answer(pickle.Unpickler):
    """Arrays, data classes below :mod:`monai_sasm.io`, and what Python writes as literals."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return super().find_class(module, name)
        if module.startswith("monai_sasm.io.") and is_dataclass(found := super().find_class(module, name)):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an answer")


_state = _State()
atexit.register(_state.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forked)


def serve() -> None:
    """The other process: answer until there are no more requests."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, which is for the parent
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # what libraries print must not get between answers
        os.dup2(nothing, number)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory is short, this process goes
    _widen(requests, answers)
    while (request := _read(requests)) is not None:
        what = json.loads(bytes(request[0]))
        arguments = [
            bytes(part).decode("utf-8", "surrogateescape") if is_text else bytes(part)
            for part, is_text in zip(request[1:], what["text"], strict=True)
        ]
        if what["free"] is not None:
            memory.assume(what["free"])
            _limit_memory(what["free"])
        answer: Any
        try:
            kind, answer = _DONE, getattr(import_module(what["module"]), what["function"])(*arguments)
        except RefusedError as error:
            kind, answer = _UNREADABLE if isinstance(error, UnreadableError) else _REFUSED, str(error)
        except MemoryError:
            kind, answer = _MEMORY, "the decoder takes more memory than is free"
        except BaseException as error:  # a panic of Rust is no Exception
            kind, answer = _FAILED, f"unforeseen {type(error).__name__} in a decoder"
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
        _write(answers, [bytes([kind]), content, *(one.raw() for one in buffers)])


def _widen(*pipes: IO[bytes]) -> None:
    """A slice goes through in one piece, where the system lets it: without, the processes take turns eight times."""
    with suppress(ImportError, AttributeError, OSError):  # no Linux, or a limit of the user's
        from fcntl import F_SETPIPE_SZ, fcntl

        for pipe in pipes:
            fcntl(pipe, F_SETPIPE_SZ, _PIPE_BYTES)


def _limit_memory(free: int) -> None:
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # no Linux
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = used + max(LEAST_MEMORY, int(MEMORY_SHARE * free))
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _write(file: IO[bytes], parts: list[Any]) -> None:
    file.write(struct.pack(f"<I{len(parts)}Q", len(parts), *(memoryview(part).nbytes for part in parts)))
    for part in parts:
        file.write(part)
    file.flush()


def _read(file: IO[bytes]) -> list[bytearray] | None:
    """The parts of one message; ``None`` at the end, also in the middle of a message."""
    try:
        (count,) = struct.unpack("<I", file.read(4))
        lengths = struct.unpack(f"<{count}Q", file.read(8 * count))
    except struct.error:
        return None
    parts = [bytearray(length) for length in lengths]
    return parts if all(file.readinto(part) == len(part) for part in parts) else None  # type: ignore[attr-defined]
