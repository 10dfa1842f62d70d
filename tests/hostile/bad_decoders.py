"""Decoders with faults, for the process they run in; what cannot be provoked in a sound library at will."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.errors import RefusedError
from monai_sasm.io.apart import decode, decoding_apart
from monai_sasm.io.dicom import pixels
from monai_sasm.io.photo import photo
from monai_sasm.io.photo.pixels import Pixels

CRASH, HANG, BOMB = b"decoder: crash", b"decoder: hang", b"decoder: bomb"


def misbehave(data: bytes) -> None:
    """Do what the content asks for."""
    if CRASH in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    while HANG in data:
        time.sleep(1)
    if BOMB in data:
        np.ones(1 << 50, np.uint8)


def photo_decoded(kind: str, data: bytes) -> Pixels:
    """Instead of :func:`monai_sasm.io.photo.photo.decoded`."""
    misbehave(data)
    return photo.decoded(kind, data)


def dicom_decoded(path: str) -> Any:
    """Instead of :func:`monai_sasm.io.dicom.pixels.decoded`."""
    misbehave(Path(path).read_bytes())
    return pixels.decoded(path)


def take(count: str) -> int:
    """One that takes so many bytes."""
    return len(np.ones(int(count), np.uint8))


def double(data: bytes) -> Any:
    """A decoder that works."""
    return np.frombuffer(data, np.uint8) * 2


def refuse(reason: str) -> None:
    """One that refuses."""
    raise RefusedError(reason)


def fail(data: bytes) -> None:
    """One with an error that nobody foresaw, whose text quotes the file."""
    raise KeyError(data)


class Panic(BaseException):
    """What Rust raises."""


def panic() -> None:
    """One in Rust."""
    raise Panic


def process() -> int:
    """One that says where it runs."""
    return os.getpid()


def speak() -> int:
    """One that prints."""
    os.write(1, b"\xff" * 100)
    print("a warning")
    return os.getpid()


class Stranger:
    """No part of an answer."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["STRANGER"],)


def stranger() -> Stranger:
    """One that was taken over by what it read."""
    return Stranger()


def half_an_answer() -> None:
    """One that breaks the pipe in the middle of an answer."""
    for number in range(3, 64):
        try:
            os.write(number, b"\x02\0\0\0" + b"\x05")
        except OSError:
            continue
    os._exit(0)


def within_a_daemon(answer: Any) -> None:
    """Decode where multiprocessing allows no process of its own."""
    with decoding_apart():
        answer.put((decode(double, b"\1\2", stored=2).tolist(), decode(speak, stored=0) != os.getpid()))
