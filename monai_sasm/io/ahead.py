"""Work on many things in their order, a few at a time: disk, decoders, encoders and networks wait for no other.

Threads are enough, since pydicom's files, zlib, hashes and torch let others run while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    """``work(item)`` of every item, in their order, some of them at the same time.

    Items are taken in this thread, and no more than ``threads + 1`` before their results are asked for, so that memory
    is bounded. An error is raised in the place of the result. After it, after Ctrl-C, and when nobody asks for more
    (``close``), nothing further begins, and what is at work is waited for.

    Args:
        work: safe to be called from several threads at once.
        items: whatever ``work`` takes.
        threads: with 1, everything is done in this thread.
    """
    if threads <= 1:
        yield from map(work, items)
        return
    begun: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) > threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for one in begun:
                one.cancel()
