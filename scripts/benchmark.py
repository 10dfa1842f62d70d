"""Time the networks and peers on this machine and print the table: ``python scripts/benchmark.py [--data DIR] [--no-
peers]``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from monai_sasm.evaluation.evaluate import evaluate


def main() -> None:
    """Run the ``speed`` protocol; results are kept only with ``--output``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data root; else SASM_DATA, else ../shared/data")
    parser.add_argument("--output", type=Path, help="folder for JSON and Markdown; nothing is kept when left out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--slices", type=int, help="slices of the series and memory measurements, for a quick look")
    parser.add_argument("--no-peers", action="store_true", help="leave out BM3D and non-local means")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output or Path(scratch) / "results"
        peers = not arguments.no_peers
        table = evaluate("speed", arguments.data, folder, arguments.device, arguments.slices, peers)
        print(table.markdown())


if __name__ == "__main__":
    main()
