"""``sasm evaluate``: measure by protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli_report import exit_code, logger, one_line_errors, set_up_logging

NAMES = (
    "photo-awgn, photo-ddpm, raindrop-real, raindrop-synth, superres-photo, inpaint, ct-lowdose, ct-simulated, "
    "mri-noise, mri-superres, mixed, refine, cifar10, gate, speed"
)


def evaluate(
    protocols: Annotated[list[str], typer.Argument(metavar="PROTOCOL...", help=f"all, or some of: {NAMES}.")],
    data: Annotated[Path | None, typer.Option(help="Data root; if left out $SASM_DATA, else ../shared/data.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of tables and figures; RESULTS.md is written beside it.")
    ] = Path("docs/results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many images: a quick look, marked as such.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Also run the methods of others (BM3D, non-local means, ...).")] = True,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=FILE", help="Further weights to measure, e.g. pair0=FILE for raindrop-real."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done.")] = 0,
) -> None:
    """Measure by protocol; print each table and write JSON, Markdown and figures.

    A protocol whose data are absent is skipped. Exit codes: 0 done, 2 wrong use, 3 all skipped.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        from monai_sasm.evaluation.evaluate import PROTOCOLS
        from monai_sasm.evaluation.evaluate import evaluate as measure

        unknown = sorted(set(protocols) - {*PROTOCOLS, "all"})
        if unknown:
            raise ValueError(f"unknown protocol {', '.join(unknown)}; choose all or some of: {NAMES}")
        further = dict(_labelled(entry) for entry in weights or [])
        statuses = []
        for name in PROTOCOLS if "all" in protocols else dict.fromkeys(protocols):
            logger.info("measuring %s", name)
            table = measure(name, data, output, device, limit, peers, further)
            statuses.append("skipped" if table.skipped else "ok")
            print(table.markdown(), flush=True)
        raise typer.Exit(exit_code(statuses))


def _labelled(entry: str) -> tuple[str, Path]:
    label, separator, path = entry.partition("=")
    if not separator or not Path(path).is_file():
        raise ValueError(f"--weights takes LABEL=FILE with an existing file, got {entry!r}")
    return label, Path(path)
