"""Devices and processes: one process, or one per GPU under ``torchrun``."""

from __future__ import annotations

import os

import torch
from monai.utils import set_determinism
from torch import distributed, nn

from monai_sasm.datasets.draws import processes


def default_device() -> torch.device:
    """The GPU if there is one, of this process under ``torchrun``; the CPU otherwise."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if number is None else f"cuda:{number}")


def join(device: torch.device | str, seed: int) -> None:
    """Begin a distributed run: NCCL between GPUs, Gloo between CPUs.

    Networks start the same everywhere; what is drawn differs between processes, see :mod:`monai_sasm.datasets.draws`.

    Args:
        device: of this process; ``cuda`` without a number is the GPU of its place under ``torchrun``.
        seed: of the networks.
    """
    device = torch.device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) if device.index is None else device)
    set_determinism(seed)


def leave() -> None:
    """End a distributed run."""
    distributed.destroy_process_group()


def spread(network: nn.Module, device: torch.device | str) -> nn.Module:
    """``network`` with its gradients averaged over all processes of a distributed run; itself without one."""
    if processes() == 1:
        return network
    device = torch.device(device)
    return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
