"""Deflated DICOM: what a data set unpacks to, found out before the parser unpacks it without a limit."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO

from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_sasm.errors import UnreadableError
from monai_sasm.io.memory import free_memory

MAX_INFLATED = 2**31
"""Bytes a deflated file may unpack to before it is taken for a decompression bomb; fewer where memory is short."""

_SHARE = 0.25  # of the free memory: the parser holds what it unpacks more than once


def unpacked(stream: BinaryIO) -> bytes:
    """The content of a gzip file (``.dcm.gz``).

    Raises:
        RefusedError: it is damaged, or unpacks to more than memory should take.
    """
    limit = _limit()
    try:
        with gzip.GzipFile(fileobj=stream) as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("its gzip stream is damaged or ends early") from error
    if len(content) > limit:
        raise UnreadableError(f"its gzip stream unpacks to more than {limit >> 20} MiB")
    return content


def _limit() -> int:
    free = free_memory()
    return MAX_INFLATED if free is None else min(MAX_INFLATED, int(_SHARE * free))


def inflates_beyond(stream: BinaryIO) -> int | None:
    """Where a deflated data set unpacks to more bytes than the parser may be given: how many it may; ``None`` else.

    Args:
        stream: of the file, at any position; left anywhere.
    """
    stream.seek(0)
    try:
        read_preamble(stream, force=True)
        syntax = _read_file_meta_info(stream).get("TransferSyntaxUID")  # as the parser finds it, wherever it hides
    except Exception:  # pydicom raises whatever the damage provokes; the parser will say it again
        return None
    if syntax != DeflatedExplicitVRLittleEndian:
        return None
    limit = _limit()
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while chunk := stream.read(1 << 16):
            while chunk:
                total += len(inflater.decompress(chunk, 1 << 22))
                if total > limit:
                    return limit
                chunk = inflater.unconsumed_tail
    except zlib.error:
        return None
    return None
