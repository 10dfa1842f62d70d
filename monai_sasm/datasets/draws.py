"""Where random draws of training come from: a stream of its own for every process, loader worker and epoch.

A ``DataLoader`` copies its dataset into each worker at the beginning of each epoch, with the state of its generators:
left alone, all workers draw the same crops, and every epoch draws them again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import distributed
from torch.utils.data import get_worker_info


def process() -> int:
    """Number of this process in a distributed run; 0 without one."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def processes() -> int:
    """Number of processes of a distributed run; 1 without one."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def share(count: int) -> int:
    """This process's part of ``count`` examples, at least one."""
    return max(count // processes(), 1)


def process_seed(seed: int) -> int:
    """``seed`` in the first process, another one in each of the others."""
    return seed + process()


class Draws:
    """The random generators of a dataset.

    In the main process they go on from ``seed`` as long as the dataset lives. In a loader's worker they begin anew
    from the seed that the loader gives the worker: another one for each worker and each epoch, and the same ones in
    every run that sets ``torch``'s seed first.

    Args:
        seed: the same in all processes of a distributed run, whose streams differ nevertheless.
    """

    def __init__(self, seed: int) -> None:
        self.given, self.seed = seed, process_seed(seed)
        self._worker_seed: int | None = None
        self._random = np.random.default_rng(self.seed)
        self._generator = torch.Generator().manual_seed(self.seed)

    @property
    def random(self) -> np.random.Generator:
        """For numpy."""
        self._enter_worker()
        return self._random

    @property
    def generator(self) -> torch.Generator:
        """For torch."""
        self._enter_worker()
        return self._generator

    def restart(self, number: int) -> None:
        """Draw what belongs to item ``number``, in every process and worker, whatever came before: for validation."""
        self._enter_worker()
        self._random = np.random.default_rng((self.given, number))

    def _enter_worker(self) -> None:
        worker = get_worker_info()
        if worker is None or worker.seed == self._worker_seed:
            return
        self._worker_seed = worker.seed
        entropy = np.random.SeedSequence((self.seed, worker.seed))
        self._random = np.random.default_rng(entropy)
        self._generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
