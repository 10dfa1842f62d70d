"""Draw validation and training curves of several runs side by side, from their TensorBoard files.

    python scripts/training_curves.py -o curves.png U-Net=runs/first,runs/second SiT=runs/sit

Runs of one label that follow one another are joined by commas. Time is what the trainings took, without pauses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Curve = tuple[list[float], list[float]]


def scalars(folder: Path, tag: str) -> list[tuple[float, float]]:
    """``(wall time in seconds, value)`` of a scalar, of all event files in ``folder``, oldest first."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        if tag in events.Tags()["scalars"]:
            found += [(event.wall_time, event.value) for event in events.Scalars(tag)]
    return sorted(found)


def joined(folders: list[Path], tag: str) -> Curve:
    """Minutes of training and values, runs one after the other; ends the program where a run has no such scalar."""
    minutes: list[float] = []
    values: list[float] = []
    offset = 0.0
    for folder in folders:
        points = scalars(folder, tag)
        if not points:
            raise SystemExit(f"{folder} has no scalar {tag!r}; name a training run's output folder")
        start = scalars(folder, "train_loss")[0][0]
        minutes += [offset + (when - start) / 60 for when, _ in points]
        values += [value for _, value in points]
        offset = minutes[-1]
    return minutes, values


def main() -> None:
    """Read the runs, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN[,RUN...]")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--metric", default="val_psnr", help="scalar of the validation (default: %(default)s)")
    options = parser.parse_args()
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for entry in options.runs:
        label, _, folders = entry.partition("=")
        minutes, values = joined([Path(folder) for folder in folders.split(",")], options.metric)
        axis.plot(minutes, values, marker=".", label=label)
    axis.set(xlabel="minutes of training, one core", ylabel=options.metric)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
