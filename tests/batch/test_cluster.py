"""The cluster's edges without a cluster: files that say too little, job scripts, and what becomes of lost tasks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.batch import cluster
from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.run import StoppedError
from monai_sasm.batch.work import PUT_OFF
from monai_sasm.cli.main import main
from monai_sasm.io.entry import Entry
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality
from tests.data import mr_volume

pytest.importorskip("distributed")


class KilledWorker(Exception):  # noqa: N818  (the name of Dask's)
    """Stands for ``distributed.scheduler.KilledWorker``, which is known by its name."""


class Future:
    """What a task came to: a row, an error, or a status such as ``cancelled``."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.status = outcome if isinstance(outcome, str) else "error" if isinstance(outcome, Exception) else "finished"
        self.gone = False

    def result(self) -> Any:
        return self.outcome

    def exception(self) -> Any:
        return self.outcome if isinstance(self.outcome, Exception) else None

    def release(self) -> None:
        self.gone = True

    def cancel(self) -> None:
        self.gone = True


class Client:
    """A client with ``workers`` workers, whose tasks come to ``outcome(task, attempt)``, with ``last`` at the end."""

    status = "running"

    def __init__(self, outcome: Callable[..., Any], workers: int = 2) -> None:
        self.outcome, self.workers = outcome, workers
        self.futures: list[Future] = []
        self.most = 0

    def run_on_scheduler(self, function: Any) -> tuple[int, set[str]]:
        return 0, set()

    def nthreads(self) -> dict[str, int]:
        return {f"tcp://{number}": 1 for number in range(self.workers)}

    def submit(self, function: Any, task: Task, job: BatchJob, key: str, pure: bool) -> Future:
        keywords = getattr(function, "keywords", {})
        future = Future(self.outcome(task, int(key.rsplit("-", 1)[1]), **keywords))
        self.futures.append(future)
        self.most = max(self.most, sum(not one.gone for one in self.futures))
        return future


def entry() -> Entry:
    def load() -> Any:
        raise NotImplementedError

    return Entry("CT", "dicom", (Path("a.dcm"),), Modality.CT, "single", None, (), load)


TASKS = [Task(f"{number:016x}", entry(), Path(f"CT-{number}")) for number in range(20)]
JOB = BatchJob(Path("in"), Path("out"), Options())


finished = cluster._finished


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_finished", lambda futures: futures[:1])


def run(client: Client, patience: float = 0.0) -> list[dict[str, Any]]:
    return list(cluster.rows(TASKS, JOB, client, patience))


def test_no_more_than_a_window_is_handed_over_and_all_is_released() -> None:
    client = Client(lambda task, attempt: {"id": task.id}, workers=3)
    assert [row["id"] for row in run(client)] == [task.id for task in TASKS]
    assert client.most == 4
    assert all(future.gone for future in client.futures)


def test_a_task_whose_worker_died_gets_other_chances() -> None:
    client = Client(lambda task, attempt: KilledWorker() if task is TASKS[3] and attempt < 3 else {"id": task.id})
    assert {row["id"] for row in run(client)} == {task.id for task in TASKS}
    assert len(client.futures) == len(TASKS) + 2


def test_a_task_that_took_its_process_along_waits_for_the_others() -> None:
    def outcome(task: Any, attempt: int, last: bool = False) -> dict[str, Any]:
        return {"id": task.id, "status": "ok" if last or task is not TASKS[3] else PUT_OFF, "last": last}

    client = Client(outcome, workers=3)
    rows = run(client)
    assert [row["id"] for row in rows] == [task.id for task in TASKS if task is not TASKS[3]] + [TASKS[3].id]
    assert [row["last"] for row in rows] == [False] * (len(TASKS) - 1) + [True]
    assert client.most == 4


def test_one_that_never_starts_is_a_row() -> None:
    client = Client(lambda task, attempt: KilledWorker() if task is TASKS[3] else {"id": task.id})
    (failed,) = [row for row in run(client) if row.get("status") == "failed"]
    assert failed["input"]["id"] == TASKS[3].id
    assert "died again and again" in failed["reason"]
    assert len(client.futures) == len(TASKS) + cluster.MAX_DEATHS


def test_an_error_outside_the_task_is_a_row_without_its_text() -> None:
    secret = ModuleNotFoundError("No module named 'patient_smith'")
    client = Client(lambda task, attempt: secret if task is TASKS[0] else {"id": task.id})
    (failed,) = [row for row in run(client) if row.get("status") == "failed"]
    assert failed["error"] == "ModuleNotFoundError"
    assert "smith" not in str(failed)


def test_a_lost_scheduler_ends_the_run_and_cancels_what_is_under_way() -> None:
    client = Client(lambda task, attempt: "cancelled" if task is TASKS[5] else {"id": task.id})
    with pytest.raises(StoppedError, match="resume=True"):
        run(client)
    assert all(future.gone for future in client.futures if future.status == "finished")
    client.status = "closed"
    with pytest.raises(StoppedError, match="scheduler is gone"):
        run(client)


def test_a_result_that_died_with_its_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed.wait", lambda *futures, **how: None)
    lost, done, pending, cancelled = Future("lost"), Future({}), Future("pending"), Future("cancelled")
    assert finished([lost, done, pending, cancelled]) == [done, cancelled]


def test_a_result_that_is_lost_while_it_is_fetched_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(futures: list[Future]) -> list[Future]:
        futures[0].status = "lost" if futures[0].outcome["id"] == TASKS[2].id else futures[0].status
        return futures[:1]

    monkeypatch.setattr(cluster, "_finished", losing)
    rows = run(Client(lambda task, attempt: {"id": task.id, "status": "ok"}))
    assert [row["id"] for row in rows] == [task.id for task in TASKS]


def test_without_workers_it_does_not_wait_for_ever() -> None:
    with pytest.raises(StoppedError, match="no worker for"):
        run(Client(lambda task, attempt: {}, workers=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, "kind"),
        ({"kind": "abacus", "jobs": 2}, "slurm, pbs, sge, lsf, local"),
        ({"kind": "slurm"}, "jobs"),
        ({"kind": "local", "jobs": "many"}, "jobs"),
        ({"kind": "local", "jobs": True}, "jobs"),
        ({"kind": "slurm", "jobs": 2, "cores": "many"}, "'cores', of one worker, at least 1, got 'many'"),
        ({"kind": "slurm", "jobs": 2, "memory": "much"}, "memory of one worker must be such as 8GB, got 'much'"),
        ({"kind": "local", "jobs": 1, "queu": "gpu"}, "a cluster of kind local has no queu; see"),
    ],
)
def test_a_cluster_file_says_what_it_must(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message), cluster.start(options):
        pass


def test_a_documented_file_is_enough_for_a_job(tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    (tmp_path / "slurm.yaml").write_text("kind: slurm\njobs: 8\nqueue: gpu\n")
    options = cluster.read_cluster(tmp_path / "slurm.yaml")
    more = {key: value for key, value in options.items() if key not in ("kind", "jobs")}
    made = jobqueue.SLURMCluster.job_cls("tcp://host:8786", "sasm", **cluster.one_task_each("slurm", more))
    assert {"#SBATCH -p gpu", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=8G"} <= set(made.job_script().splitlines())


def test_workers_on_this_machine_may_be_told_their_memory() -> None:
    options = {"kind": "local", "jobs": 1, "memory_limit": "2GB", "processes": False}
    assert cluster.checked(options) is options


def _limits(dask_worker: Any) -> tuple[int, int, str | None]:
    return dask_worker.memory_manager.memory_limit, dask_worker.state.nthreads, os.environ.get("OMP_NUM_THREADS")


def test_memory_and_cores_of_a_file_hold_on_this_machine_too(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text("kind: local\njobs: 1\ncores: 3\nmemory: 3GB\n")
    with cluster.connected_client(cluster=tmp_path / "local.yaml") as client:
        client.wait_for_workers(1, timeout=120)
        ((memory, tasks, threads),) = client.run(_limits).values()
    assert (memory, tasks, threads) == (3_000_000_000, 1, "3")


def test_where_no_jobs_can_be_submitted_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", "")
    message = "sbatch is not on this machine"
    with pytest.raises(ValueError, match=message), cluster.start({"kind": "slurm", "jobs": 2}):
        pass


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"jobs: [", "cluster.yaml is not valid YAML"),
        (b"jobs: \xff", "cluster.yaml is not valid YAML"),
        (b"- slurm", "cluster.yaml must hold a mapping of settings, got a list"),
        (b"kind: slurm\njobs: 2\ncores: 0", "cluster.yaml: the cluster file needs 'cores'"),
        (b"kind: local\njobs: 2\nqueue: gpu", "a cluster of kind local has no queue; see"),
    ],
)
def test_the_command_checks_the_file_before_anything_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, told: str
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(mr_volume(), tmp_path / "in" / "scan_T1w.nii.gz")
    (tmp_path / "cluster.yaml").write_bytes(content)
    arguments = ["batch", tmp_path / "in", tmp_path / "out", "--modality", "MR"]
    with pytest.raises(SystemExit) as ended:
        main([str(part) for part in (*arguments, "--cluster", tmp_path / "cluster.yaml")])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("sasm: ")
    assert err.count("\n") == 1, err
    assert told in err


@pytest.mark.parametrize(
    ("kind", "cores"), [("slurm", "--cpus-per-task=8"), ("pbs", "ncpus=8"), ("lsf", "#BSUB -n 8"), ("sge", None)]
)
def test_a_job_is_one_worker_with_one_task_and_all_cores(kind: str, cores: str | None) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    options = {"cores": 8, "memory": "32GB", "queue": "gpu", "walltime": "08:00", "job_extra_directives": ["--x=1"]}
    job_class = getattr(jobqueue, cluster.KINDS[kind]).job_cls
    script = job_class(scheduler="tcp://host:8786", name="sasm", **cluster.one_task_each(kind, options)).job_script()
    assert "--nthreads 1" in script
    assert "--nworkers" not in script
    assert "export OMP_NUM_THREADS=8" in script
    assert "--x=1" in script
    assert cores is None or cores in script
