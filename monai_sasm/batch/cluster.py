"""The engine for many machines: Dask.distributed, under five conditions that keep a crash cheap.

1. A window: no more tasks are handed over than there are workers, and one; the rest waits here.
2. Workers take one task at a time (``worker-saturation`` 1.0, one thread), so that no innocent one dies along.
3. Results are one small row, and released at once: a worker that dies takes no finished work with it.
4. The commit is atomic and idempotent (:mod:`monai_sasm.batch.ledger`): a task may run twice, its result is there once.
5. Errors are rows. A task whose process dies is put off until the others are done, and given up when it dies again and
   again (:mod:`monai_sasm.batch.work`).

Input and output must have the same paths on all workers. Dask does not encrypt or authenticate unless told to (see
"TLS" in its manual): whoever reaches the scheduler's port can run code as its user.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from inspect import signature
from pathlib import Path
from threading import Thread
from typing import Any

from monai_sasm.batch.row import Row, row_of
from monai_sasm.batch.run import Engine, StoppedError
from monai_sasm.batch.settings import read_settings
from monai_sasm.batch.work import MAX_DEATHS, PUT_OFF, run_task
from monai_sasm.optional import require

INSTALL = "pip install 'monai-sasm[cluster]'"
KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
CORES, MEMORY = 1, "8GB"  # of one worker, where the cluster file does not say it
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # of the networks
PATIENCE = 600.0  # seconds without any worker, for a queue to start one or a node to come back
POLL = 5.0  # seconds between looks at the workers
ANSWER = 30.0  # seconds within which a scheduler answers a question that needs no work
SILENCE = 120.0  # seconds without a heartbeat, after which a worker's task goes to another one
_CONDITIONS = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": MAX_DEATHS}

logger = logging.getLogger("monai_sasm")


@contextmanager
def connected(scheduler: str | None = None, cluster: Path | None = None) -> Iterator[Engine]:
    """An engine on a running scheduler, or on a cluster that is started for the block.

    Args:
        scheduler: address such as ``tcp://host:8786``, or a scheduler file.
        cluster: YAML file; see :func:`start`.

    Raises:
        MissingExtraError: Dask is not installed.
        ValueError: the file does not say what it must.
        OSError: the scheduler does not answer.
    """
    with connected_client(scheduler, cluster) as client:
        yield partial(rows, client=client)


@contextmanager
def connected_client(scheduler: str | None = None, cluster: Path | None = None) -> Iterator[Any]:
    """The ``distributed.Client`` of :func:`connected`, for tasks of another kind; arguments and errors as there."""
    distributed = require("distributed", "a batch on a cluster", INSTALL)
    with ExitStack() as stack:
        if cluster is not None:
            stack.enter_context(require("dask", "a batch on a cluster", INSTALL).config.set(_CONDITIONS))
            where = {"address": stack.enter_context(start(read_cluster(cluster)))}
        else:
            where = {"scheduler_file" if Path(str(scheduler)).is_file() else "address": scheduler}
        client = stack.enter_context(distributed.Client(**where))
        _warn_about(client)
        yield client


def read_cluster(path: Path) -> dict[str, Any]:
    """A cluster file, for :func:`start`.

    Raises:
        ValueError: it is no YAML mapping, or ``kind``, ``jobs``, ``cores`` or ``memory`` is missing or wrong.
    """
    options = read_settings(path)
    try:
        return checked(options)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options of :func:`start`, if they say what they must.

    Raises:
        ValueError: see there.
    """
    if not isinstance(options, dict) or options.get("kind") not in (*KINDS, "local"):
        raise ValueError(f"the cluster file needs 'kind', one of {', '.join((*KINDS, 'local'))}")
    for name, least, what in (("jobs", None, "the number of workers"), ("cores", CORES, "of one worker")):
        count = options.get(name, least)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"the cluster file needs {name!r}, {what}, at least 1, got {count!r}")
    utils = require("dask.utils", "a batch on a cluster", INSTALL)
    try:
        utils.parse_bytes(options.get("memory", MEMORY))
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"memory of one worker must be such as {MEMORY}, got {options['memory']!r}") from None
    if options["kind"] == "local":  # which hands what it does not know to workers, and those die of it
        dask = require("distributed", "a batch on a cluster", INSTALL)
        known = {name for one in (dask.LocalCluster, dask.Nanny, dask.Worker) for name in signature(one).parameters}
        unknown = sorted(map(str, set(options) - {"kind", "jobs", "cores", "memory"} - known))
        if unknown:
            raise ValueError(f"a cluster of kind local has no {', '.join(unknown)}; see distributed.LocalCluster")
    return options


@contextmanager
def start(options: dict[str, Any]) -> Iterator[Any]:
    """Start a cluster; it ends with the block.

    Args:
        options: ``kind`` (``slurm``, ``pbs``, ``sge``, ``lsf``, or ``local`` for worker processes on this machine),
            ``jobs`` (number of workers), ``cores`` (1 if left out) and ``memory`` of one worker (8GB; of ``local`` its
            share of the machine's), and whatever dask-jobqueue knows: ``queue``, ``account``, ``walltime``,
            ``job_extra_directives``, ...; of ``local`` ``distributed.LocalCluster``.

    Raises:
        ValueError: ``kind``, ``jobs``, ``cores`` or ``memory`` is missing or wrong, or there is no such option.
    """
    more = {key: value for key, value in checked(options).items() if key not in ("kind", "jobs")}
    kind, jobs = options["kind"], options["jobs"]
    if kind == "local":
        make = require("distributed", "a batch on a cluster", INSTALL).LocalCluster
        settings = {"n_workers": jobs, "dashboard_address": None} | on_this_machine(more)
    else:
        if shutil.which(SUBMIT[kind]) is None:
            raise ValueError(f"{SUBMIT[kind]} is not on this machine; run it where jobs of {kind} are submitted")
        make = getattr(require("dask_jobqueue", f"a batch on {kind}", INSTALL), KINDS[kind])
        settings = one_task_each(kind, more)
    try:
        started = make(**settings)
    except TypeError as error:  # of an option that there is not
        raise ValueError(
            f"a cluster of kind {kind} cannot be started with {', '.join(map(str, more))}: {error}"
        ) from error
    with started as cluster:
        if kind != "local":
            cluster.scale(jobs=jobs)
        yield cluster


def on_this_machine(options: dict[str, Any]) -> dict[str, Any]:
    """The same for ``distributed.LocalCluster``, which knows neither ``cores`` nor ``memory``."""
    wanted: dict[str, Any] = {"threads_per_worker": 1}
    if "memory" in options:
        wanted["memory_limit"] = options["memory"]
    if "cores" in options:
        wanted["env"] = dict.fromkeys(_THREADS, str(options["cores"]))
    return wanted | {key: value for key, value in options.items() if key not in ("cores", "memory")}


def one_task_each(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of dask-jobqueue for jobs of one worker with one thread for tasks and all cores for the networks."""
    options = {"memory": MEMORY} | options
    cores = int(options.get("cores", CORES))
    wanted: dict[str, Any] = {"job_cpu": cores} if kind == "slurm" else {"ncpus": cores} if kind == "lsf" else {}
    if kind == "pbs" and "resource_spec" not in options:
        wanted["resource_spec"] = f"select=1:ncpus={cores}:mem={options['memory']}"
    environment = [f"export {name}={cores}" for name in _THREADS]
    prologue = [*options.get("job_script_prologue", ()), *environment]
    return wanted | options | {"cores": 1, "processes": 1, "job_script_prologue": prologue}


def rows(
    tasks: Iterable[Any],
    job: Any,
    client: Any,
    patience: float = PATIENCE,
    work: Callable[..., Row] = run_task,
    begin: Callable[[Any, Any], Row] = row_of,
) -> Iterator[Row]:
    """Run tasks on the workers of a client; yields each row as it comes.

    Args:
        tasks: what to run, each with an ``id``.
        job: see :class:`monai_sasm.batch.job.BatchJob`; for other work anything small with the name of the ``run``.
        client: ``distributed.Client``.
        patience: seconds to wait while there is no worker at all.
        work: task and job -> row, on a worker. Where the row's status is :data:`monai_sasm.batch.work.PUT_OFF`, it is
            called again with ``last=True`` when the other tasks are done.
        begin: task and job -> row before anything is done, for a task that cannot be run.

    Raises:
        StoppedError: the scheduler is gone, or no worker came in time.
    """
    waiting, last = iter(tasks), False
    put_off: list[Any] = []
    running: dict[Any, tuple[Any, int]] = {}
    suspects: set[str] = set()

    def submit(task: Any, attempt: int) -> Any:
        key = f"sasm-{job.run}-{task.id}-{'last-' if last else ''}{attempt}"
        return client.submit(partial(work, last=True) if last else work, task, job, key=key, pure=False)

    try:
        while True:
            free = _workers(client, patience) + 1 - len(running)
            suspects = _pass_over_the_silent(client, suspects)
            for task in (task for _, task in zip(range(free), waiting, strict=False)):
                running[submit(task, 1)] = task, 1
            if not running and not put_off:
                return
            if not running:
                waiting, put_off, last = iter(put_off), [], True
                continue
            for future in _finished(list(running)):
                task, attempt = running.pop(future)
                try:
                    outcome = _within(ANSWER, partial(_outcome, future, partial(begin, task, job), attempt))
                except TimeoutError:
                    logger.warning("a result cannot be fetched: its worker does not answer; waiting for another one")
                    running[future] = task, attempt
                    continue
                future.release()
                if outcome is None:
                    running[submit(task, attempt + 1)] = task, attempt + 1
                elif outcome.get("status") == PUT_OFF:
                    put_off.append(task)
                else:
                    yield outcome
    finally:
        with suppress(TimeoutError):
            _within(ANSWER, lambda: [future.cancel() for future in running])


def _outcome(future: Any, begin: Callable[[], Row], attempt: int) -> Row | None:
    """The row of a finished future; ``None`` when its worker died and it should be tried again."""
    if future.status == "cancelled":
        raise StoppedError("the scheduler is gone or was reset; start it, then run again with resume=True")
    error = future.exception()  # waits where the result was lost a moment ago and is made again
    if error is None:
        row: Row = future.result()
        return row
    killed = type(error).__name__ == "KilledWorker"
    if killed and attempt <= MAX_DEATHS:
        return None  # the task knows by itself when it has died too often; here an innocent one gets another chance
    reason = "its worker died again and again before it could start" if killed else "the worker could not run it"
    return begin() | {"status": "failed", "reason": reason, "error": type(error).__name__}


def _finished(futures: list[Any]) -> list[Any]:
    """Futures that have come to something, as soon as there is one, or none after :data:`POLL` seconds.

    A "lost" one is none of them: its result died with its worker before it was fetched, and the scheduler runs the task
    again, which finds its result committed.
    """
    distributed = require("distributed", "a batch on a cluster", INSTALL)
    try:
        distributed.wait(futures, timeout=POLL, return_when="FIRST_COMPLETED")
    except (TimeoutError, distributed.TimeoutError):
        return []
    except distributed.CancelledError:
        pass  # seen by its status
    return [future for future in futures if future.status not in ("pending", "lost")]


def _workers(client: Any, patience: float) -> int:
    """How many workers there are; waits for the first one, and for a scheduler that does not answer."""
    started = time.monotonic()
    while True:
        if client.status != "running":
            raise StoppedError("the scheduler is gone; start it, then run again with resume=True")
        try:
            count = len(_within(ANSWER, client.nthreads))
            reason = f"no worker for {patience:.0f} s; start some"
        except TimeoutError:
            count, reason = 0, f"the scheduler has not answered for {patience:.0f} s; see what is the matter with it"
            logger.warning("the scheduler has not answered for %.0f s; waiting", time.monotonic() - started)
        if count:
            return count
        if time.monotonic() - started >= patience:
            raise StoppedError(f"{reason}, then run again with resume=True")
        time.sleep(0.2)


def _pass_over_the_silent(client: Any, suspects: set[str]) -> set[str]:
    """Give the tasks of workers without a heartbeat to others; should one wake up, its work counts once all the same.

    A worker whose connection breaks is noticed by the scheduler. One that is frozen, or on a machine that is, is not.

    Args:
        client: ``distributed.Client``.
        suspects: addresses of workers that were silent at the last look. Where all are, the scheduler has slept.

    Returns:
        Those that are silent now.
    """
    silence = SILENCE

    async def pass_over(dask_scheduler: Any) -> tuple[int, set[str]]:
        now = time.time()
        workers = list(dask_scheduler.workers.values())
        silent = {state.address for state in workers if now - state.last_seen > silence}
        gone = silent & suspects if len(silent) < len(workers) else set()
        for address in gone:
            await dask_scheduler.remove_worker(address, stimulus_id=f"sasm-silent-{now}", close=False)
        return len(gone), silent - gone

    try:
        count, silent = _within(ANSWER, partial(client.run_on_scheduler, pass_over))
    except TimeoutError:
        return set()  # said when its workers are counted
    if count:
        logger.warning("%d workers were silent for more than %.0f s; their work goes to others", count, silence)
    return set(silent)


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call gives, in a thread that is left alone when it takes too long.

    Raises:
        TimeoutError: it took longer than ``seconds``.
    """
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, name="sasm-question", daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except FutureTimeoutError:
        if answer.done():
            raise  # the call's own
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None


def _warn_about(client: Any) -> None:
    """A scheduler that others started may be set up otherwise; then a dying worker can take innocent tasks along."""

    def settings(dask_scheduler: Any) -> tuple[float, int]:
        return float(dask_scheduler.WORKER_SATURATION), int(dask_scheduler.allowed_failures)

    saturation, failures = client.run_on_scheduler(settings)
    if saturation > 1 or failures < 1:
        logger.warning(
            "the scheduler has worker-saturation %g and allowed-failures %d; start it with "
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION=1.0, or a crash costs more than the task at fault",
            saturation,
            failures,
        )
    if any(threads > 1 for threads in client.nthreads().values()):
        logger.warning("workers with several threads run several series at once; start them with one thread each")
