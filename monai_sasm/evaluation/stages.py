"""Where the time of a restoration from disk to disk goes: reading, gate, experts, all between them, writing."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path

from monai_sasm.evaluation.batch_overhead import NetworkClock, one_thread
from monai_sasm.evaluation.synthetic_series import SIZE, write_ct_series
from monai_sasm.io.entry import Entry
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality

STAGE_DEFINITIONS = {
    "read ms, gate ms, expert ms, mix ms, write ms": "wall clock per slice of a synthetic CT series in DICOM, models "
    "loaded before, on one core: decoding; forward passes of the gate; of the experts; all else of the restoration "
    "(noise maps, weights, mixing); encoding and syncing",
    "slices/s": "of all stages together, on all cores, several slices at a time",
    "speedup": "time of all stages on one core over that on all cores",
    "beside experts": "share of the time that the experts do not take",
    "gate to experts": "the gate's time over the experts'",
}


def network_rate(device: str = "auto", seconds: float = 5.0) -> dict[str, float]:
    """``network slices/s`` of the CT expert alone, 512 x 512 pixels, in batches as a series is restored in."""
    import torch

    restorer = Restorer(device)
    plan = restorer.plan(Modality.CT)
    size = plan.batch(SIZE, SIZE)
    images = 0.1 * torch.randn(size, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(plan.device)
    sigma = torch.full_like(images, 0.03)
    (expert,) = plan.experts.values()
    expert.restore(images, sigma)
    started, done = time.perf_counter(), 0
    passed = 0.0
    while passed < seconds:
        restored = [expert.restore(images, sigma) for _ in range(3)]
        restored[-1][0, 0, 0, 0].item()  # waits for a GPU
        done += len(restored) * size
        passed = time.perf_counter() - started
    return {"network slices/s": done / passed, "batch": float(size)}


def stage_times(slices: int, device: str = "auto") -> dict[str, float]:
    """Restore a synthetic CT series and say where the time went, see :data:`STAGE_DEFINITIONS`.

    Args:
        slices: of 512 x 512 pixels.
        device: see :class:`monai_sasm.restoration.restorer.Restorer`.
    """
    from monai_sasm.io.formats import inventory

    restorer = Restorer(device)
    plan = restorer.plan(Modality.CT)
    with tempfile.TemporaryDirectory() as folder:
        write_ct_series(Path(folder) / "warm", 2)
        write_ct_series(Path(folder) / "in", slices)
        (first,), (entry,) = inventory(Path(folder) / "warm"), inventory(Path(folder) / "in")
        restorer(first.load())
        gate = NetworkClock(restorer.require_gate().network)
        experts = NetworkClock(*(one.network for one in plan.experts.values()))
        with one_thread():
            ticks = _ticks(restorer, entry, Path(folder) / "out")
        judged, restored = gate.close(), experts.close()
        together = _ticks(restorer, entry, Path(folder) / "again")
    read, restoring, write = (after - before for before, after in pairwise(ticks))
    seconds = {"read": read, "gate": judged, "expert": restored, "mix": restoring - judged - restored, "write": write}
    whole, fast = sum(seconds.values()), together[-1] - together[0]
    return {
        **{f"{stage} ms": 1e3 * value / slices for stage, value in seconds.items()},
        "slices/s": slices / fast,
        "speedup": whole / fast,
        "beside experts": 1 - restored / whole,
        "gate to experts": judged / restored if restored else 0.0,
    }


def _ticks(restorer: Restorer, entry: Entry, target: Path) -> list[float]:
    """When an image was begun, read, restored and written, in seconds."""
    ticks = [time.perf_counter()]
    volume = entry.load()
    ticks.append(time.perf_counter())
    result = restorer(volume, in_place=True)
    ticks.append(time.perf_counter())
    result.save(target)
    return [*ticks, time.perf_counter()]
