"""``sasm restore``: the options, and what is printed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from monai_sasm.cli.job import Job, Row, plan, report, run
from monai_sasm.cli.output import (
    exit_code,
    one_line_errors,
    print_row,
    print_table,
    set_up_logging,
    show_progress,
)
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.options import Options
    from monai_sasm.restoration.restorer import Restorer
    from monai_sasm.restoration.thin import Thinning

Input = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="DICOM folder or file, NIfTI, PNG, JPEG, TIFF, BMP, or a folder of them."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder, or a file name for one NIfTI or photo.")]
Expert = Annotated[str | None, typer.Option(help="Use only this expert, without the gate; see `sasm bundles list`.")]
Gate = Annotated[str | None, typer.Option(help="Another gate than the default; see `sasm bundles list`.")]
ModalityOption = Annotated[
    Modality | None, typer.Option(case_sensitive=False, help="What NIfTI files are; other files say it themselves.")
]
Strength = Annotated[float, typer.Option(min=0, max=1, help="0 returns the input, 1 the full restoration.")]
Sigma = Annotated[
    float | None,
    typer.Option(min=0, help="Noise level: HU, MR magnitude, or 0 to 1 for photos; estimated if left out."),
]
TopK = Annotated[int | None, typer.Option(min=1, help="How many experts may act on one image.")]
Passes = Annotated[
    int | None, typer.Option(min=1, help="How often gate and experts look at it; by default 1, photos 2.")
]
Refine = Annotated[float, typer.Option(min=0, max=1, help="Strength of the diffusion refiner, photos only; 0 is off.")]
Refiner = Annotated[str | None, typer.Option(help="Another refiner than the default; see `sasm bundles list`.")]
ForceRefiner = Annotated[
    bool, typer.Option("--force-refiner", help="Let the named refiner draw into CT or MR, too; the result is marked.")
]
Upscale = Annotated[
    bool, typer.Option("--upscale", help="Keep the larger photo of a refiner that enlarges, upscale_photo_sd4x: x 4.")
]
SaveMaps = Annotated[
    bool,
    typer.Option(
        "--save-maps",
        help="Also write expert weights, trust and the change (photos: change / 2 + 0.5); of a named expert that draws "
        "samples also its uncertainty, which takes many times as long.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str, typer.Option(help="float32, or bfloat16: several times faster on recent processors and GPUs, rounds a little.")
]
Trust = Annotated[
    list[Path] | None,
    typer.Option(exists=True, file_okay=False, help="Another folder of bundles; bundles can run code."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what not and why; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results; sources are never replaced.")]
KeepPrivate = Annotated[
    bool, typer.Option("--keep-private", help="Keep private DICOM tags, which may hold patient data.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per image on stdout instead of output paths.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only, no progress bar.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done; -vv with tracebacks.")]


def restore(
    source: Input,
    output: Output,
    expert: Expert = None,
    modality: ModalityOption = None,
    strength: Strength = 1.0,
    sigma: Sigma = None,
    top_k: TopK = None,
    passes: Passes = None,
    refine: Refine = 0.0,
    refiner: Refiner = None,
    force_refiner: ForceRefiner = False,
    upscale: Upscale = False,
    save_maps: SaveMaps = False,
    gate: Gate = None,
    device: Device = "auto",
    precision: Precision = "float32",
    trust: Trust = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    keep_private: KeepPrivate = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Restore images. A result is the same kind of file as its source; a DICOM result is a new, derived series.

    Exit codes: 0 done, 2 wrong use, 3 nothing to do, 4 all failed, 8 some failed, 130 interrupted.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        job = Job(source, output, overwrite, keep_private, bar=show_progress(quiet))

        def options() -> Options:
            from monai_sasm.restoration.options import Options

            return Options(
                expert=expert,
                strength=strength,
                top_k=top_k,
                passes=passes,
                sigma=sigma,
                refine=refine,
                keep_maps=save_maps,
                refiner=refiner,
                force_refiner=force_refiner,
                upscale=upscale,
                gate=gate,
            )

        carry_out(job, modality, options, device, precision, trust or [], dry_run=dry_run, as_json=as_json)


def carry_out(
    job: Job,
    modality: Modality | None,
    options: Callable[[], Options | Thinning],
    device: str,
    precision: str,
    trust: list[Path],
    *,
    dry_run: bool,
    as_json: bool,
) -> NoReturn:
    """Plan every image of a job, do what can be done, print a line for each; ends the command with its exit code.

    ``options`` is called only when there is something to do: making them loads what help and plans do without.
    """
    from monai_sasm.io.formats import inventory

    entries = inventory(job.source, modality)
    planned = [plan(job, entry) for entry in entries]
    if dry_run:
        print_plan(planned, job.source, as_json)
        raise typer.Exit(exit_code(row["status"] for row in planned))
    if not any(row["status"] == "planned" for row in planned):
        results = report(planned)  # no network is loaded to say why there is nothing to do
    else:
        chosen = options()
        results = run(job, entries, _open_restorer(device, precision, trust, chosen), chosen)
    statuses = []
    for row in results:
        statuses.append(row["status"])
        if as_json:
            print_row(row)
        elif row["status"] == "ok":
            print(row["output"]["path"], flush=True)
    raise typer.Exit(exit_code(statuses))


def _open_restorer(device: str, precision: str, trust: list[Path], options: Options | Thinning) -> Restorer:
    from monai_sasm.restoration.files import open_restorer

    return open_restorer(device, precision, trust, options)


def print_plan(rows: list[Row], source: Path, as_json: bool) -> None:
    """What would be done, as a table on stdout or one JSON object per image."""
    if as_json:
        for row in rows:
            print_row(row)
        return
    cells: list[tuple[str, ...]] = []
    for row in rows:
        found = row["input"]
        place = os.path.relpath(found["path"], source)  # names of series are hashes; the place tells which it is
        what = f"-> {row['output']['path']}" if row["status"] == "planned" else f"{row['reason']} [{place}]"
        label = "restore" if row["status"] == "planned" else "skip"
        cells.append((label, found["modality"] or "?", found["geometry"], str(found["files"]), found["name"], what))
    print_table(("plan", "what", "geometry", "files", "name", "result or reason"), cells)
