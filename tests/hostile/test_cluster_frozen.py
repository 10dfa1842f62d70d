"""A scheduler or a worker that is frozen: it is said, and the work goes on with the others, or ends with a reason."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monai_sasm.batch import cluster
from monai_sasm.batch.cluster import StoppedError, rows

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows freezes no process")
TASKS = 6
JOB = SimpleNamespace(run="run")


def work(task: Any, job: Any, last: bool = False) -> dict[str, Any]:
    time.sleep(0.2)
    return {"status": "ok", "id": task.id, "process": os.getpid()}


def begin(task: Any, job: Any) -> dict[str, Any]:
    return {"id": task.id}


def tasks() -> list[SimpleNamespace]:
    return [SimpleNamespace(id=str(number)) for number in range(TASKS)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "POLL", 0.5)
    monkeypatch.setattr(cluster, "ANSWER", 2.0)
    monkeypatch.setattr(cluster, "SILENCE", 6.0)


@pytest.fixture
def frozen() -> Iterator[list[int]]:
    """Processes that are woken up in the end."""
    stopped: list[int] = []
    yield stopped
    for process in stopped:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def test_a_frozen_worker_costs_its_task_some_time(
    impatient: None, frozen: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "monai_sasm")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        distributed.Client(local) as client,
    ):
        found = []
        for row in rows(tasks(), JOB, client, patience=60, work=work, begin=begin):
            if not found:
                frozen.append(row["process"])
                os.kill(row["process"], signal.SIGSTOP)
            found.append(row)
        assert sorted(row["id"] for row in found) == [str(number) for number in range(TASKS)]
        assert "1 workers were silent for more than 6 s; their work goes to others" in caplog.text


def test_a_frozen_scheduler_is_told_and_given_up(
    impatient: None, frozen: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "monai_sasm")
    place = tmp_path / "scheduler.json"
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    run += ["--no-dashboard", "--scheduler-file", str(place)]
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as scheduler:
        try:
            while not place.exists():
                time.sleep(0.1)
            client = distributed.Client(scheduler_file=str(place), set_as_default=False)
            frozen.append(scheduler.pid)
            os.kill(scheduler.pid, signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(StoppedError, match="has not answered for 5 s"):
                list(rows(tasks(), JOB, client, patience=5, work=work, begin=begin))
            assert time.monotonic() - started < 20
            assert "the scheduler has not answered for" in caplog.text
            os.kill(scheduler.pid, signal.SIGCONT)
            client.close()
        finally:
            os.kill(scheduler.pid, signal.SIGCONT)
            scheduler.terminate()
            frozen.clear()


def test_a_call_that_hangs_is_left_alone() -> None:
    assert cluster._within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        cluster._within(5, lambda: {}["x"])
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        cluster._within(0.1, lambda: time.sleep(5))
