"""Where the time of a restoration from disk to disk goes: reading, gate, experts, all between them, writing."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path

from monai_sasm.evaluation.batch_overhead import NetworkClock
from monai_sasm.evaluation.synthetic_series import write_ct_series
from monai_sasm.restoration.restorer import Restorer

STAGE_DEFINITIONS = {
    "read ms, gate ms, expert ms, mix ms, write ms": "wall clock per slice of a synthetic CT series in DICOM, models "
    "loaded before: decoding; forward passes of the gate; of the experts; all else of the restoration (noise maps, "
    "weights, mixing); encoding and syncing",
    "slices/s": "of all stages together",
    "beside experts": "share of the time that the experts do not take",
    "gate to experts": "the gate's time over the experts'",
}


def stage_times(slices: int, device: str = "auto") -> dict[str, float]:
    """Restore a synthetic CT series and say where the time went, see :data:`STAGE_DEFINITIONS`.

    Args:
        slices: of 512 x 512 pixels.
        device: see :class:`monai_sasm.restoration.restorer.Restorer`.
    """
    from monai_sasm.io.formats import inventory
    from monai_sasm.types import Modality

    restorer = Restorer(device)
    plan = restorer.plan(Modality.CT)
    with tempfile.TemporaryDirectory() as folder:
        write_ct_series(Path(folder) / "warm", 2)
        write_ct_series(Path(folder) / "in", slices)
        (first,), (entry,) = inventory(Path(folder) / "warm"), inventory(Path(folder) / "in")
        restorer(first.load())
        gate = NetworkClock(restorer.require_gate().network)
        experts = NetworkClock(*(one.network for one in plan.experts.values()))
        ticks = [time.perf_counter()]
        volume = entry.load()
        ticks.append(time.perf_counter())
        result = restorer(volume, in_place=True)
        ticks.append(time.perf_counter())
        result.save(Path(folder) / "out")
        ticks.append(time.perf_counter())
    read, restoring, write = (after - before for before, after in pairwise(ticks))
    judged, restored = gate.close(), experts.close()
    seconds = {"read": read, "gate": judged, "expert": restored, "mix": restoring - judged - restored, "write": write}
    whole = sum(seconds.values())
    return {
        **{f"{stage} ms": 1e3 * value / slices for stage, value in seconds.items()},
        "slices/s": slices / whole,
        "beside experts": 1 - restored / whole,
        "gate to experts": judged / restored if restored else 0.0,
    }
