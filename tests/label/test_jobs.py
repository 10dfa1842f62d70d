"""Jobs: one at a time, watched, cancelled, collected once; files nobody comes for are removed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.label.jobs import KEPT, WAITING, BusyError, Jobs, Progress, Result


def writing(path: Path) -> Any:
    def work(progress: Progress) -> Result:
        progress(0.5)
        path.write_text("result")
        return path, {"made": path.name}

    return work


def settle(jobs: Jobs) -> None:
    """Wait for everything queued so far."""
    jobs.run(lambda progress: (Path("none"), {}))


def test_a_job_is_collected_once(tmp_path: Path) -> None:
    jobs = Jobs()
    job = jobs.start(writing(tmp_path / "a"))
    settle(jobs)
    assert jobs.state(job) == {"state": "done", "progress": 1.0}
    assert jobs.take(job) == (tmp_path / "a", {"made": "a"})
    with pytest.raises(KeyError):
        jobs.state(job)


def test_a_failure_has_a_reason() -> None:
    def work(progress: Progress) -> Result:
        progress(0.25)
        raise ValueError("too dark")

    jobs = Jobs()
    job = jobs.start(work)
    settle(jobs)
    assert jobs.state(job) == {"state": "failed", "progress": 0.25, "reason": "too dark"}
    with pytest.raises(ValueError, match="this one is failed"):
        jobs.take(job)


def test_states_and_cancelling(tmp_path: Path) -> None:
    jobs, begun, go_on = Jobs(), threading.Event(), threading.Event()

    def slow(progress: Progress) -> Result:
        progress(0.5)
        begun.set()
        go_on.wait(10)
        progress(0.75)
        return writing(tmp_path / "never")(progress)

    running, queued = jobs.start(slow), jobs.start(writing(tmp_path / "neither"))
    assert begun.wait(10)
    assert jobs.state(running) == {"state": "running", "progress": 0.5}
    assert jobs.state(queued) == {"state": "queued", "progress": 0.0}
    jobs.cancel(running)
    jobs.cancel(queued)
    go_on.set()
    settle(jobs)
    assert {jobs.state(job)["state"] for job in (running, queued)} == {"cancelled"}
    assert not list(tmp_path.iterdir())


def test_results_nobody_wants_are_removed(tmp_path: Path) -> None:
    jobs = Jobs()
    cancelled = jobs.start(writing(tmp_path / "cancelled"))
    settle(jobs)
    jobs.cancel(cancelled)
    assert not (tmp_path / "cancelled").exists()
    for number in range(KEPT + 3):
        jobs.start(writing(tmp_path / str(number)))
        settle(jobs)
    left = {int(path.name) for path in tmp_path.iterdir()}
    assert left == set(range(3, KEPT + 3))


def test_a_long_queue_takes_no_more(tmp_path: Path) -> None:
    jobs, go_on = Jobs(), threading.Event()

    def slow(progress: Progress) -> Result:
        go_on.wait(10)
        return writing(tmp_path / "slow")(progress)

    jobs.start(slow)
    for _ in range(WAITING):
        jobs.start(writing(tmp_path / "next"))
    with pytest.raises(BusyError, match="wait already"):
        jobs.start(writing(tmp_path / "too many"))
    go_on.set()
    settle(jobs)
    jobs.start(writing(tmp_path / "again"))
    settle(jobs)
    assert (tmp_path / "again").exists()
