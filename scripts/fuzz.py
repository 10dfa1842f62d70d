"""Read and give back thousands of wrong inputs: ``python scripts/fuzz.py --count 40000 --report fuzz.json``.

The inputs follow from their seeds (``tests/hostile/structured.py``). They run in a process of their own, which is
started anew after one that ended: a crash is counted and the next seed goes on. Stopped and called again with the same
report, it goes on where it was.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SLICE = 200  # seeds between two reports
MEMORY = 4 << 30  # bytes that the process may take
LOADED = ("imagecodecs", "simplejpeg", "PIL.Image", "pydicom.pixels.decoders", "pylibjpeg", "monai_sasm.io.photo.tiff")
"""What inputs need sooner or later: loaded once, and not by each process."""
HANGING = 120  # seconds without a word after which it is ended


def main() -> None:
    """Run the seeds and print what was wrong; the exit code is 1 where something was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--report", type=Path, help="JSON file of what was done, and of the faults")
    arguments = parser.parse_args()
    end = arguments.start + arguments.count
    _warm_up()
    report: dict[str, Any] = {"next": arguments.start, "done": 0, "faults": []}
    if arguments.report and arguments.report.is_file():
        report = json.loads(arguments.report.read_text())
    while report["next"] < end:
        _slice(report, min(end, report["next"] + SLICE))
        if arguments.report:
            arguments.report.write_text(json.dumps(report, indent=1))
        print(f"{report['done']} inputs, {len(report['faults'])} faults", flush=True)
    for fault in report["faults"]:
        print(fault)
    sys.exit(bool(report["faults"]))


def _warm_up() -> None:
    """Load and make what every process needs; files that live for a moment need no disk."""
    from tests.hostile.intact import intact_files
    from tests.hostile.reading import faults_of  # noqa: F401

    for name in LOADED:
        importlib.import_module(name)
    intact_files()
    if os.path.isdir("/dev/shm"):
        tempfile.tempdir = tempfile.mkdtemp(dir="/dev/shm")
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
    os.environ["RUST_BACKTRACE"] = "0"  # of decoders that panic: it takes seconds


def _slice(report: dict[str, Any], end: int) -> None:
    """The seeds up to ``end``, or up to one that takes the process along."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(report["next"], end, sender))
    process.start()
    sender.close()
    try:
        while report["next"] < end:
            if not receiver.poll(HANGING):
                raise EOFError("no end")
            report["faults"] += receiver.recv()
            report["next"], report["done"] = report["next"] + 1, report["done"] + 1
    except EOFError:
        process.kill()
        process.join()
        report["faults"].append(f"seed {report['next']}: the process ended ({process.exitcode}) or hung")
        report["next"], report["done"] = report["next"] + 1, report["done"] + 1
    process.join()


def _work(start: int, end: int, sender: Any) -> None:
    import resource

    from tests.hostile.reading import faults_of

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for seed in range(start, end):
        sender.send(faults_of(seed))


if __name__ == "__main__":
    main()
