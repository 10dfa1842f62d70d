"""``sasm qualify``: what the restoration does to a series of one's own scanner, as a page to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_sasm.cli.arguments import Input, ModalityOption, Overwrite, Quiet, Trust, Verbose
from monai_sasm.cli.output import logger, one_line_errors, say, set_up_logging
from monai_sasm.optional import matplotlib
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry


def qualify(
    source: Input,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Page to write; its numbers go beside it as .json.")
    ] = Path("qualify.html"),
    target_noise: Annotated[
        float | None,
        typer.Option(min=0, metavar="NOISE", help="Wanted noise in soft tissue: HU; MR: percent of white."),
    ] = None,
    dose: Annotated[
        float,
        typer.Option(help="CT: share of the usual dose that the series was made with, for `noise as at full dose`."),
    ] = 0.25,
    slices: Annotated[int, typer.Option(min=1, help="How many slices, or photos, are measured.")] = 8,
    expert: Annotated[str | None, typer.Option(help="Only this expert, without the gate.")] = None,
    gate: Annotated[str | None, typer.Option(help="Another gate than the default; see `sasm bundles list`.")] = None,
    modality: ModalityOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    trust: Trust = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Measure what restoring does to a series: noise, contrast, grain, mean values, and which strength is right.

    One series of CT or MR, or a folder of photos. The page says kernel and dose, noise by tissue, how much of small
    faint lesions is left at several strengths, what the gate does, whether the series lies in the range the experts
    were trained for, and a recommended strength. It holds pictures and no names.

    Exit codes: 0 done, 2 wrong use, or nothing that can be measured.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        from monai_sasm.evaluation.qualify import Wish
        from monai_sasm.io.formats import inventory
        from monai_sasm.restoration.targets import check_output

        if output.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"the page is HTML and its numbers go beside it as .json, got {output}; name it .html")
        check_output(output.parent, named=False)
        matplotlib("sasm qualify")
        wish = Wish(slices, target_noise, dose, expert, gate)
        entries = inventory(source, modality)
        _guard(output, entries, overwrite=overwrite)
        page, found = _measured(_one_kind(entries, modality), wish, device, trust=tuple(trust or ()))
        _write(output, page, found, [path for entry in entries for path in entry.paths])
        say(output)


def _guard(output: Path, entries: list[Entry], *, overwrite: bool) -> None:
    """Refuse a page that would replace an image, or numbers that would replace what a sidecar says of one.

    Raises:
        FileExistsError: one of them is there, and is not to be overwritten.
        ValueError: one of them is a source or the sidecar of an image.
    """
    from monai_sasm.io.commit import guard_target
    from monai_sasm.io.formats import is_file_name
    from monai_sasm.io.nifti.names import sidecar_of

    numbers = output.with_suffix(".json")
    images = [path for entry in entries for path in entry.paths]
    images += [path for path in output.parent.glob("*") if is_file_name(path)]
    sources = (*images, *(sidecar_of(path) for path in images))
    for path in (output, numbers):
        guard_target(path, overwrite=overwrite, sources=sources)


def _one_kind(entries: list[Entry], modality: Modality | None) -> list[Entry]:
    """The one series of an inventory, or its photos; of those of a modality, where one is asked for.

    Raises:
        ValueError: there is nothing to measure, or more than one series.
    """
    usable = [entry for entry in entries if entry.refusal is None and modality in (None, entry.modality)]
    if not usable:
        reasons = sorted({entry.refusal or "" for entry in entries})
        raise ValueError(f"nothing to measure: {'; '.join(reasons[:3]) or 'no image'}")
    if all(entry.modality is Modality.PHOTO for entry in usable):
        return usable
    series = [entry for entry in usable if entry.modality is not Modality.PHOTO]
    if len(series) > 1:
        from monai_sasm.batch.row import place_of

        places = list(dict.fromkeys(str(place_of(entry)) for entry in series))
        found = f"{len(series)} series were found, and one is measured"
        if len(places) == 1:
            raise ValueError(f"{found}; they lie in one folder, {places[0]}: move each into a folder of its own")
        raise ValueError(f"{found}; give the folder or file of one: {', '.join(places[:3])}")
    if series[0].modality is None:
        raise ValueError("the file does not say what made it; pass --modality CT or --modality MR")
    return series


def _measured(entries: list[Entry], wish: Any, device: str, *, trust: tuple[Path, ...]) -> tuple[str, dict[str, Any]]:
    from monai_sasm.evaluation import qualify_page
    from monai_sasm.evaluation.qualify import qualify as measure
    from monai_sasm.evaluation.qualify_photos import qualify_photos
    from monai_sasm.restoration.restorer import Restorer

    restorer = Restorer(device, trust=trust)
    if entries[0].modality is Modality.PHOTO:
        found, pairs = qualify_photos(entries, restorer, wish)
        return qualify_page.photo_page(found, pairs), found
    found, sample = measure(entries[0].load(), restorer, wish)
    best = found["recommended"]
    if best["strength"] is not None:
        logger.info("recommended: --strength %g (%s)", best["strength"], best["reason"])
    return qualify_page.series_page(found, sample), found


def _write(output: Path, page: str, found: dict[str, Any], sources: list[Path]) -> None:
    from monai_sasm.evaluation.table import finite
    from monai_sasm.io.commit import replacing

    with replacing(output, sources=sources) as file:  # it shows the images
        file.write(page.encode())
    with replacing(output.with_suffix(".json")) as file:
        file.write((json.dumps(finite(found), indent=1) + "\n").encode())
