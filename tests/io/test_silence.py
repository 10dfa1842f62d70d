"""What libraries warn of and log is silenced in the thread that reads, in no other."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from monai_sasm.io.silence import mute, quiet


def test_one_thread_is_silent_and_another_is_not() -> None:
    inside, told = threading.Event(), threading.Event()

    def silent() -> None:
        with quiet():
            inside.set()
            assert told.wait(10)
            warnings.warn("born 1950-01-01", stacklevel=1)

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(1) as pool:
        done = pool.submit(silent)
        assert inside.wait(10)
        warnings.warn("of another thread", stacklevel=1)
        told.set()
        done.result()
        warnings.warn("afterwards", stacklevel=1)
    assert [str(one.message) for one in caught] == ["of another thread", "afterwards"]


def broken() -> None:
    with quiet():
        with quiet():
            pass
        warnings.warn("not heard", stacklevel=1)
        raise ZeroDivisionError


def test_silence_outlasts_inner_silence_and_ends_with_errors() -> None:
    with warnings.catch_warnings(record=True) as caught:
        with pytest.raises(ZeroDivisionError):
            broken()
        warnings.warn("heard", stacklevel=1)
    assert [str(one.message) for one in caught] == ["heard"]


def test_filters_that_came_later_do_not_break_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            warnings.warn("not raised", stacklevel=1)
        with pytest.raises(UserWarning, match="raised"):
            warnings.warn("raised", stacklevel=1)


def test_many_threads_leave_the_filters_as_they_were() -> None:
    with quiet():
        before = list(warnings.filters)

    def enter(_: int) -> None:
        for _ in range(200):
            with quiet():
                warnings.warn("not heard", stacklevel=1)

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert not caught
    assert warnings.filters == before


@pytest.mark.parametrize("name", ["pydicom", "pydicom.pixels.utils", "nibabel.global", "tifffile", "PIL.ImageFile"])
def test_what_libraries_log_is_dropped_in_the_silent_thread_alone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG), ThreadPoolExecutor(1) as pool:
            with quiet():
                log.error("of Doe^John")
                pool.submit(log.warning, "of another thread").result()
            log.warning("afterwards")
    finally:
        log.setLevel(before)
    assert caplog.messages == ["of another thread", "afterwards"]


def test_a_muted_library_logs_what_is_critical_alone(caplog: pytest.LogCaptureFixture) -> None:
    mute("some_library")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("some_library.inside").error("of Doe^John")
        logging.getLogger("some_library").critical("on fire")
    assert caplog.messages == ["on fire"]
