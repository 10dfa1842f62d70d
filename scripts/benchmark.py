"""Time the networks and peers on this machine and print the table: ``python scripts/benchmark.py [--data DIR]
[--no-peers]``; with ``--memory``, what a long CT takes beside its network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from monai_sasm.evaluation.memory import COPY, peak_memory
from monai_sasm.protocols.evaluate import evaluate


def main() -> None:
    """Run the ``speed`` protocol; results are kept only with ``--output``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data root; else SASM_DATA, else ../shared/data")
    parser.add_argument("--output", type=Path, help="folder for JSON and Markdown; nothing is kept when left out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--slices", type=int, help="slices of the series and memory measurements, for a quick look")
    parser.add_argument("--memory", action="store_true", help="only the memory of a CT of --slices slices (1000)")
    parser.add_argument("--no-peers", action="store_true", help="leave out BM3D and non-local means")
    arguments = parser.parse_args()
    if arguments.memory:
        slices = arguments.slices or 1000
        device = "cpu" if arguments.device == "auto" else arguments.device
        for kind, name in (("series", "DICOM"), ("volume", "NIfTI")):
            print(
                f"{name}, {slices} slices: {peak_memory(kind, slices, device=device, expert=COPY):.0f} MB", flush=True
            )
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output or Path(scratch) / "results"
        peers = not arguments.no_peers
        table = evaluate("speed", arguments.data, folder, arguments.device, arguments.slices, peers)
        print(table.markdown())


if __name__ == "__main__":
    main()
