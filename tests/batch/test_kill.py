"""The proof: processes are killed with SIGKILL in the middle of a batch, and every other study is done, once.

``SASM_KILLS=10 pytest tests/batch/test_kill.py`` kills that often, each time after a random number of studies.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from monai_sasm.batch.ledger import FOLDER
from monai_sasm.batch.manifest import read
from tests.batch.studies import EXPERT, write_fragile_expert, write_studies
from tests.data import CHECKOUT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

KILLS = int(os.environ.get("SASM_KILLS", "0"))
STUDIES = 200 + 2 * KILLS
DEADLY = STUDIES - 80
RANDOM = sorted(random.Random(KILLS).sample(range(1, DEADLY - 5 - KILLS), KILLS))  # each kill puts a study off
LAUNCHER = """
import os, sys
import monai.bundle, monai_sasm.batch.local, monai_sasm.batch.run
from monai_sasm.cli.main import main
for line in sys.stdin:  # the imports take seconds, a fork none
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(line.split())
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def clinic(tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """Studies, one of them deadly, where results go, and the arguments of a batch over them."""
    write_studies(tmp_path / "in", STUDIES, DEADLY)
    trust = write_fragile_expert(tmp_path / "trust")
    arguments = ["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--trust", str(trust), "--expert", EXPERT, "-q"]
    return tmp_path / "in", tmp_path / "out", arguments


def wait_for_rows(output: Path, count: int, seconds: float = 600) -> None:
    """Until the manifest has that many lines."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        manifest = output / "manifest.jsonl"
        if manifest.exists() and manifest.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)
    raise TimeoutError(f"{count} rows were not written in {seconds} s")


def check_all_done_once(source: Path, output: Path) -> None:
    """Every study but the deadly one is restored and committed once; nothing else is left behind."""
    rows = read(output / "manifest.jsonl")
    done = [row for row in rows if row["status"] == "ok"]
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(done) == len({row["input"]["id"] for row in done}) == STUDIES - 1
    assert len(rows) == STUDIES
    assert [row["error"] for row in failed] == ["ProcessDied"]
    records = {path.stem: json.loads(path.read_text())["row"] for path in (output / FOLDER / "done").iterdir()}
    assert {row["input"]["id"]: row["commit"] for row in done} == {key: row["commit"] for key, row in records.items()}
    for folder in ("staging", "ready", "starts"):
        assert not list((output / FOLDER / folder).iterdir())
    assert not list(output.rglob("*.tmp"))
    results = sorted(output.rglob("*.dcm"))
    assert len(results) == STUDIES - 1
    missing = {path.name for path in source.iterdir()} - {path.relative_to(output).parts[0] for path in results}
    assert missing == {f"Doe_Jane_{DEADLY:03d}"}
    for path in results[:: STUDIES // 10]:
        before = pydicom.dcmread(source / path.relative_to(output).parts[0] / "slice.dcm")
        after = pydicom.dcmread(path)
        halved = (before.pixel_array * float(before.RescaleSlope) + float(before.RescaleIntercept)) / 2
        assert np.abs(after.pixel_array * after.RescaleSlope + after.RescaleIntercept - halved).max() <= 1


@contextmanager
def launcher() -> Iterator[Any]:
    """``start(arguments)`` runs a command in a process of its own; gives its id, and a function that waits for it."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LAUNCHER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def start(arguments: list[str]) -> tuple[int, Any]:
            process.stdin.write(" ".join(arguments) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline()), lambda: int(process.stdout.readline())

        yield start
        process.stdin.close()


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(clinic: tuple[Path, Path, list[str]]) -> None:
    source, output, arguments = clinic
    with launcher() as start:
        for rows in RANDOM or (1, 40, 80):
            process, wait = start([*arguments, "--resume"])
            wait_for_rows(output, rows)
            os.kill(process, signal.SIGKILL)
            assert wait() == -signal.SIGKILL
        for _ in range(3):  # the deadly study does it by itself, until it is given up
            _, wait = start([*arguments, "--resume"])
            assert wait() == -signal.SIGKILL
        _, wait = start([*arguments, "--resume"])
        assert wait() == 8
        check_all_done_once(source, output)
        before = (output / "manifest.jsonl").read_bytes()
        results = {path: path.stat().st_mtime_ns for path in output.rglob("*.dcm")}
        _, wait = start([*arguments, "--resume", "--dry-run"])
        assert wait() == 0
    assert (output / "manifest.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.dcm")} == results


@contextmanager
def cluster_of(workers: int) -> Iterator[tuple[str, Any]]:
    """A Dask cluster whose workers start by a fork: its address, and a client."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    from distributed.utils import get_mp_context

    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",  # the imports take seconds, a fork none
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with dask.config.set(settings):
        get_mp_context().set_forkserver_preload(["distributed", "monai.bundle", "monai_sasm.batch.work"])
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield cluster.scheduler_address, client


def kill_a_worker(client: Any, seconds: float = 120) -> int:
    """With SIGKILL; its process. After many kills no worker may be there for a moment."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):  # one that just ended
            for process in sorted(client.run(os.getpid, on_error="ignore").values()):
                os.kill(process, signal.SIGKILL)
                return int(process)
        time.sleep(0.1)
    raise TimeoutError(f"no worker came back in {seconds} s")


@pytest.mark.slow
def test_workers_die_and_every_other_study_is_done(
    clinic: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    from monai_sasm.cli.main import main

    source, output, arguments = clinic
    killed = []
    with cluster_of(3) as (address, client):

        def kill() -> None:
            for rows in RANDOM or (30, 90):
                wait_for_rows(output, rows)
                killed.append(kill_a_worker(client))

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--scheduler", address])
        killer.join()
    assert ended.value.code == 8
    assert len(killed) == (KILLS or 2)
    assert len(capsys.readouterr().out.splitlines()) == STUDIES - 1
    check_all_done_once(source, output)


@pytest.mark.slow
def test_the_command_and_its_workers_die_in_turn(clinic: tuple[Path, Path, list[str]]) -> None:
    """Workers may be at work for a command that is dead when the next one begins."""
    source, output, arguments = clinic
    killed = {"command": 0, "worker": 0}
    with cluster_of(2) as (address, client), launcher() as start:
        again = [*arguments, "--resume", "--scheduler", address]
        process, wait = start(again)
        for number, rows in enumerate(RANDOM or (30, 60, 90)):
            wait_for_rows(output, rows)
            if number % 2:
                kill_a_worker(client)
            else:
                os.kill(process, signal.SIGKILL)
                assert wait() == -signal.SIGKILL
                process, wait = start(again)
            killed["worker" if number % 2 else "command"] += 1
        assert wait() == 8
    assert sum(killed.values()) == (KILLS or 3)
    check_all_done_once(source, output)
