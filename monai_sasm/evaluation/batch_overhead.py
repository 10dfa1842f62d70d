"""What a batch takes beside its networks: planning, reading, noise maps, routing, mixing, writing, hashing, syncing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, local
from typing import TYPE_CHECKING, Any

from monai_sasm.evaluation.synthetic_series import write_ct_series

if TYPE_CHECKING:
    from torch import nn

BATCH_DEFINITIONS = {
    "batch s": "wall clock of a batch over synthetic CT as DICOM in this process, from the first look at the folder to "
    "the last commit, on one core, the models loaded before",
    "networks s": "of it, spent in the forward passes of the gate and of the experts it called",
    "overhead": "(batch - networks) / networks",
}


def batch_overhead(series: int, slices: int, device: str = "auto") -> dict[str, float]:
    """Run a batch and say what it took beside the forward passes of its networks, see :data:`BATCH_DEFINITIONS`.

    Args:
        series: number of CT series.
        slices: of 512 x 512 pixels in each.
        device: as for ``sasm batch``.

    Raises:
        RuntimeError: a series was not restored.
    """
    from monai_sasm.batch.job import BatchJob
    from monai_sasm.batch.local import in_process
    from monai_sasm.batch.plan import plan
    from monai_sasm.batch.run import Summary, run
    from monai_sasm.batch.work import restorer_of
    from monai_sasm.restoration.options import Options
    from monai_sasm.types import Modality

    with tempfile.TemporaryDirectory() as folder, one_thread():
        for number in range(series):
            write_ct_series(Path(folder) / "in" / str(number), slices, study=number + 1)
        job = BatchJob(Path(folder) / "in", Path(folder) / "out", Options(), device=device)
        restorer = restorer_of(job)
        plan_ct = restorer.plan(Modality.CT)
        clock = NetworkClock(restorer.require_gate().network, *(one.network for one in plan_ct.experts.values()))
        start = time.perf_counter()
        tasks = plan(job)
        rows = list(run(job, tasks, in_process, summary=Summary(len(tasks))))
        seconds, networks = time.perf_counter() - start, clock.close()
    if [row["status"] for row in rows] != ["ok"] * series:
        raise RuntimeError(f"a series was not restored: {[row['reason'] for row in rows]}")
    return {"batch s": seconds, "networks s": networks, "overhead": (seconds - networks) / networks}


@contextmanager
def one_thread() -> Iterator[None]:
    """On a CPU, one slice after the other on one core: where its time goes cannot be told from slices side by side."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class NetworkClock:
    """Adds up the seconds spent in the forward passes of networks, over all threads.

    Args:
        networks: none of which calls another.
    """

    def __init__(self, *networks: nn.Module) -> None:
        self.seconds, self._lock, self._here = 0.0, Lock(), local()
        self.hooks = [network.register_forward_pre_hook(self._start) for network in networks]
        self.hooks += [network.register_forward_hook(self._stop) for network in networks]

    def close(self) -> float:
        """Stop listening; the seconds so far."""
        for hook in self.hooks:
            hook.remove()
        return self.seconds

    def _start(self, *_: Any) -> None:
        self._here.started = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        with self._lock:
            self.seconds += time.perf_counter() - self._here.started
