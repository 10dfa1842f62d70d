"""Time the networks and peers on this machine and print the table: ``python scripts/benchmark.py [--data DIR]
[--no-peers]``; with ``--memory``, what a long CT takes beside its network; with ``--throughput``, slices a second of
the CT expert and of a series from disk to disk, as JSON, without any data: ``--throughput --device cuda`` on a GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from monai_sasm.evaluation.context import torch_device
from monai_sasm.evaluation.memory import COPY, peak_memory
from monai_sasm.evaluation.stages import network_rate, stage_times
from monai_sasm.protocols.evaluate import evaluate
from monai_sasm.protocols.speed import machine


def main() -> None:
    """Run the ``speed`` protocol; results are kept only with ``--output``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data root; else SASM_DATA, else ../shared/data")
    parser.add_argument("--output", type=Path, help="folder for JSON and Markdown; nothing is kept when left out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--slices", type=int, help="slices of the series and memory measurements, for a quick look")
    parser.add_argument("--memory", action="store_true", help="only the memory of a CT of --slices slices (1000)")
    parser.add_argument("--throughput", action="store_true", help="only slices a second of a CT of --slices (300)")
    parser.add_argument("--no-peers", action="store_true", help="leave out BM3D and non-local means")
    arguments = parser.parse_args()
    alone = [name for name in ("memory", "throughput") if getattr(arguments, name)]
    unused = ["data"] * (arguments.data is not None) + ["no-peers"] * arguments.no_peers
    unused += ["output"] * (arguments.memory and arguments.output is not None)
    if len(alone) > 1 or (alone and unused):
        parser.error(f"--{alone[0]} does not take --{', --'.join([*alone[1:], *unused])}")
    if arguments.slices is not None and arguments.slices < 1:
        parser.error("--slices must be at least 1")
    try:
        torch_device(arguments.device)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if arguments.memory:
        slices = arguments.slices or 1000
        device = "cpu" if arguments.device == "auto" else arguments.device
        for kind, name in (("series", "DICOM"), ("volume", "NIfTI")):
            print(
                f"{name}, {slices} slices: {peak_memory(kind, slices, device=device, expert=COPY):.0f} MB", flush=True
            )
        return
    if arguments.throughput:
        found = throughput(arguments.slices or 300, arguments.device)
        print(json.dumps(found, indent=2))
        if arguments.output is not None:
            arguments.output.mkdir(parents=True, exist_ok=True)
            (arguments.output / "throughput.json").write_text(json.dumps(found, indent=2) + "\n")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output or Path(scratch) / "results"
        peers = not arguments.no_peers
        table = evaluate("speed", arguments.data, folder, arguments.device, arguments.slices, peers)
        print(table.markdown())


def throughput(slices: int, device: str) -> dict[str, object]:
    """Of the network alone and of all stages, with the names of the hardware; the series lies where ``TMPDIR`` says."""
    return {"machine": machine(device), "slices": slices, **network_rate(device), **stage_times(slices, device)}


if __name__ == "__main__":
    main()
