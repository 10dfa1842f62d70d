"""Several slices of a volume restored at the same time, in threads, as if it were one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import count as count_from
from threading import Lock, get_ident

import torch

from monai_sasm.io.ahead import in_order
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.statistics import SliceStatistics
from monai_sasm.types import ImageBatch

AT_ONCE = 4  # slabs, each with some hundred megabytes of a network's features per slice


def in_threads(
    run: Callable[..., tuple[ImageBatch, SliceStatistics]],
    slabs: Iterable[ImageBatch],
    size: int,
    *,
    plan: Plan,
    count: int,
    statistics: SliceStatistics,
    progress: Callable[[int], None] | None,
) -> Generator[ImageBatch, None, None]:
    """The correction of each slice, in their order, from slabs of ``size`` of them; some slabs are at work at a time.

    On a CPU as many as there are cores: one that has a slice of its own waits for no other, and gate, masks and mixing
    are too small to be shared out. On a GPU a few, each on a stream of its own: it is never idle while the host waits
    for one of them, fills the next, or adds up the last. What draws at random works on one after the other.

    Args:
        run: index of the first slice, slab, ``progress`` -> corrections of the slab's slices, on the CPU, and what was
            noted of them; safe to be called from several threads.
        slabs: see :func:`monai_sasm.functional.neighbours.batches`; made in this thread.
        size: slices of a slab.
        plan: says where and what runs.
        count: slices altogether.
        statistics: gets what was noted, in the order of the slices.
        progress: called in this thread.
    """
    here, cuda = plan.device.type == "cpu", plan.device.type == "cuda"
    streams: dict[int, torch.cuda.Stream] = {}  # by thread: memory is kept for each
    with _all_cores(plan) as cores:
        together = _together(plan, -(-count // size), cores)

        def work(numbered: tuple[int, ImageBatch]) -> tuple[ImageBatch, SliceStatistics, list[int]]:
            units: list[int] = []
            if together == 1:
                return *run(*numbered, progress=progress), units
            if here and torch.get_num_threads() != cores // together:
                torch.set_num_threads(cores // together)  # of this thread
            if cuda and get_ident() not in streams:
                streams[get_ident()] = torch.cuda.Stream(plan.device)
            with torch.cuda.stream(streams[get_ident()]) if cuda else nullcontext():
                return *run(*numbered, progress=units.append), units

        if here:
            torch.set_num_threads(cores // together)  # it has little to do: to share that out costs more than it saves
        begun = in_order(work, zip(count_from(0, size), slabs, strict=False), together)
        with closing(begun):
            for change, noted, units in begun:
                statistics.extend(noted)
                for unit in units:
                    if progress is not None:
                        progress(unit)
                yield from change


@contextmanager
def as_one_of(plan: Plan, count: int) -> Iterator[None]:
    """What one slice of ``count`` is restored in, alone, to come out as among the others.

    The last bits of a convolution depend on how many threads share it.
    """
    with _all_cores(plan) as cores:
        if plan.device.type == "cpu":
            torch.set_num_threads(cores // _together(plan, count, cores))
        yield


_sharing: list[int] = []  # threads of torch before any was shared out, once for each restoration at work on a CPU
_changing = Lock()


@contextmanager
def _all_cores(plan: Plan) -> Iterator[int]:
    """How many threads torch has where no restoration shares them out; on a CPU it has as many again at the end.

    What one restoration sets holds for threads that begin meanwhile, too: another one there must not take it for all.
    """
    if plan.device.type != "cpu":
        yield torch.get_num_threads()
        return
    with _changing:
        cores = _sharing[0] if _sharing else torch.get_num_threads()
        _sharing.append(cores)
    try:
        yield cores
    finally:
        with _changing:
            torch.set_num_threads(cores)
            _sharing.pop()


def _together(plan: Plan, slabs: int, cores: int) -> int:
    """How many of some slabs are at work at the same time."""
    if plan.refiner is not None or any(expert.samples for expert in plan.experts.values()):
        return 1
    return min({"cpu": cores, "cuda": AT_ONCE}.get(plan.device.type, 1), slabs, AT_ONCE)
