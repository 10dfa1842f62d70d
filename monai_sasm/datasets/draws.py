"""Where random draws of training come from: a stream of its own for every process, loader worker and epoch.

A ``DataLoader`` copies its dataset into each worker at the beginning of each epoch, with the state of its generators:
left alone, all workers draw the same crops, and every epoch draws them again.

A training calls :func:`begin_epoch`, after which all draws depend on the seeds and on where training stands, not on
what was drawn before: a run that was stopped and resumed draws what it would have drawn.
"""

from __future__ import annotations

import random

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


_epoch = (0, 0)  # how many have begun in this process, and the iterations of the training before the last of them


def begin_epoch(seed: int, start: int) -> int:
    """Let all that draws in this process begin anew: ``torch``, ``numpy``, ``random`` and every :class:`Draws`.

    Args:
        seed: of the run, not negative.
        start: iterations before this epoch.

    Returns:
        A seed for what else draws, below 2**32.
    """
    global _epoch
    _epoch = (_epoch[0] + 1, start)
    first, second = (int(word) for word in np.random.SeedSequence((seed, start, process())).generate_state(2))
    torch.manual_seed(first)
    np.random.seed(first)
    random.seed(first)
    return second


class Draws:
    """The random generators of a dataset, or of what becomes of its batches.

    In the main process they go on from ``seed`` until :func:`begin_epoch`, which starts the stream of its epoch. In a
    loader's worker they begin anew from the seed that the loader gives the worker: another one for each worker and each
    epoch, and the same ones in every run that sets ``torch``'s seed first.

    Args:
        seed: the same in all processes of a distributed run, whose streams differ nevertheless.
    """

    def __init__(self, seed: int) -> None:
        self.given, self.seed = seed, process_seed(seed)
        self._worker_seed: int | None = None
        self._epoch = _epoch  # an epoch that began before does not concern this stream
        self._random = np.random.default_rng(self.seed)
        self._generator = torch.Generator().manual_seed(self.seed)

    @property
    def random(self) -> np.random.Generator:
        """For numpy."""
        self._enter()
        return self._random

    @property
    def generator(self) -> torch.Generator:
        """For torch."""
        self._enter()
        return self._generator

    def restart(self, number: int) -> None:
        """Draw what belongs to item ``number``, in every process and worker, whatever came before: for validation."""
        self._enter()
        self._random = np.random.default_rng((self.given, number))

    def _enter(self) -> None:
        """Begin anew in another worker or epoch."""
        worker = get_worker_info()
        if worker is not None:
            if worker.seed != self._worker_seed:
                self._worker_seed = worker.seed
                self._begin(worker.seed)
        elif _epoch != self._epoch:
            self._epoch = _epoch
            self._begin(_epoch[1])

    def _begin(self, number: int) -> None:
        entropy = np.random.SeedSequence((self.seed, number))
        self._random = np.random.default_rng(entropy)
        self._generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
