"""``sasm evaluate``: measure by protocol, or experts side by side on one's own images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monai_sasm.cli.arguments import Cluster, Scheduler, Trust
from monai_sasm.cli.output import SOME_FAILED, exit_code, logger, one_line_errors, say_lines, set_up_logging
from monai_sasm.errors import as_flags
from monai_sasm.evaluation.report import PROTOCOLS
from monai_sasm.optional import matplotlib

if TYPE_CHECKING:
    from monai_sasm.protocols.brats import Engine

NAMES = ", ".join(PROTOCOLS)
PROTOCOL_OUTPUT, OWN_OUTPUT = Path("docs/results"), Path("comparison")


def evaluate(
    protocols: Annotated[
        list[str] | None, typer.Argument(metavar="PROTOCOL...", help=f"all, or some of: {NAMES}.")
    ] = None,
    bundles: Annotated[
        list[str] | None,
        typer.Option(
            "--bundle",
            metavar="NAME",
            help="Instead of a protocol: compare this expert with others on --data; NAME, NAME/OVERLAY or a folder. "
            "Repeat it; the first is the reference. With brats: the experts to measure.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data root; if left out $SASM_DATA, else ../shared/data. With --bundle: your images, pairs in clean/ "
            "and noisy/ (or full/ and quarter/), or clean ones, which are degraded as the experts expect."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=f"Folder of tables and figures: {PROTOCOL_OUTPUT}, beside which RESULTS.md is written; with --bundle "
            f"{OWN_OUTPUT}.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many images: a quick look, marked as such.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Also run the methods of others (BM3D, non-local means, ...).")] = True,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=FILE",
            help="Further weights to measure beside the shipped ones, e.g. 0.1.0=FILE, or EXPERT/0.1.0=FILE where a "
            "protocol has several experts; pair0=FILE for raindrop-real. What no protocol compares is refused.",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="brats: folder of subjects in the naming of any year.", file_okay=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="brats: take over subjects done with these files, models and parameters.")
    ] = False,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    trust: Trust = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done.")] = 0,
) -> None:
    """Measure by protocol, or experts on your own images; print each table and write JSON, Markdown and figures.

    A protocol whose data are absent is skipped, and its earlier results are kept.

    Exit codes: 0 done, 2 wrong use, 3 all skipped.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        from monai_sasm.evaluation.data import data_root
        from monai_sasm.protocols.evaluate import compare, evaluate_brats, share_weights
        from monai_sasm.protocols.evaluate import evaluate as measure
        from monai_sasm.restoration.targets import check_output

        check_output(output or PROTOCOL_OUTPUT, named=False)
        matplotlib("sasm evaluate")
        wanted = protocols or []
        further = _labelled(weights or [])
        if further and (not wanted or wanted == ["brats"]):
            raise ValueError("--weights is for protocols that compare weights; name other experts with --bundle")
        spread = resume or scheduler or cluster
        if bundles and not wanted:
            if root or spread or not peers:
                raise ValueError(
                    "--root, --resume, --scheduler, --cluster and --no-peers are for protocols; --bundle compares "
                    "experts on the images of --data, here and without the methods of others"
                )
            if data is None:
                raise ValueError("--bundle compares experts on images of your own; name their folder with --data")
            table = compare(bundles, data, output or OWN_OUTPUT, device=device, limit=limit, trust=trust or [])
            say_lines(table.markdown())
            raise typer.Exit(exit_code(["ok"]))
        if not wanted:
            raise ValueError(f"name a protocol, or experts with --bundle; protocols: {NAMES}")
        own = (root or data_root(data) / "brats") if wanted == ["brats"] else None
        if own and root and data:
            raise ValueError("--root and --data both say where the subjects are; give one of them")
        if own and (root or spread or bundles or own.is_dir()):
            with _engine(scheduler, cluster) as engine:
                table = evaluate_brats(
                    own,
                    bundles or (),
                    output or PROTOCOL_OUTPUT,
                    device=device,
                    limit=limit,
                    trust=trust or (),
                    resume=resume,
                    engine=engine,
                )
            say_lines(table.markdown())
            raise typer.Exit(exit_code(["skipped" if table.skipped else "ok"]))
        if root or spread:
            raise ValueError("--root, --resume, --scheduler and --cluster are for brats alone: sasm evaluate brats ...")
        if bundles or trust:
            raise ValueError("protocols measure the shipped experts; leave PROTOCOL out to compare others by --bundle")
        unknown = sorted(set(wanted) - {*PROTOCOLS, "all"})
        if unknown:
            raise ValueError(f"unknown protocol {', '.join(unknown)}; choose all or some of: {NAMES}")
        statuses = []
        for name, own_weights in share_weights(
            PROTOCOLS if "all" in wanted else list(dict.fromkeys(wanted)), further
        ).items():
            logger.info("measuring %s", name)
            table = measure(
                name, data, output or PROTOCOL_OUTPUT, device=device, limit=limit, peers=peers, weights=own_weights
            )
            statuses.append("skipped" if table.skipped else "ok")
            say_lines(as_flags(table.markdown()))
        raise typer.Exit(exit_code(statuses))


@contextmanager
def _engine(scheduler: str | None, cluster: Path | None) -> Iterator[Engine | None]:
    """Where subjects are measured: here, or on a cluster. One that is lost ends the command; --resume goes on."""
    if scheduler and cluster:
        raise ValueError("--scheduler is for a running cluster, --cluster starts one; give one of them")
    if not (scheduler or cluster):
        yield None
        return
    from monai_sasm.batch.cluster import connected_client, rows
    from monai_sasm.batch.run import StoppedError
    from monai_sasm.evaluation.brats_subject import measure_subject, row_of

    try:
        with connected_client(scheduler, cluster) as client:
            yield partial(rows, client=client, work=measure_subject, begin=row_of)
    except StoppedError as error:
        logger.error("%s", error)
        raise typer.Exit(SOME_FAILED) from None


def _labelled(entries: Sequence[str]) -> dict[str, Path]:
    """Label -> file."""
    found: dict[str, Path] = {}
    for entry in entries:
        label, separator, path = entry.partition("=")
        if not separator or not Path(path).is_file():
            raise ValueError(f"--weights takes LABEL=FILE with an existing file, got {entry!r}")
        if label in found:
            raise ValueError(f"--weights names {label} twice; give each file a label of its own")
        found[label] = Path(path)
    return found
