"""Work a few things ahead: order, errors, bounds and the end are those of doing one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from monai_sasm.io.ahead import in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 2 else 0)  # later ones are done first
        return 10 * item

    assert list(in_order(work, range(7), threads)) == [0, 10, 20, 30, 40, 50, 60]


def test_two_are_at_work_at_the_same_time() -> None:
    both = threading.Barrier(2)
    assert list(in_order(lambda item: both.wait(10) >= 0 and item, [1, 2, 3, 4], 2)) == [1, 2, 3, 4]


def test_no_more_is_taken_than_threads_and_one() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda item: item, items(), 3)
    assert not taken
    for number in range(5):
        assert next(results) == number
        assert len(taken) <= number + 4
    results.close()
    assert len(taken) <= 9


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_the_place_of_its_result_and_ends_the_work(threads: int) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("the third")
        return item

    results = in_order(work, range(100), threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert max(begun) <= 2 + threads
    assert list(results) == []


def test_whoever_interrupts_waits_for_what_is_at_work_and_for_nothing_else() -> None:
    at_work, done = threading.Semaphore(0), []

    def work(item: int) -> None:
        at_work.release()
        time.sleep(0.05)
        done.append(item)

    def interrupted() -> Iterator[int]:
        yield from range(2)
        assert at_work.acquire(timeout=10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, interrupted(), 2))
    left = len(done)
    time.sleep(0.1)
    assert len(done) == left <= 2
