"""``sasm enlarge`` and ``sasm inpaint``: photos made larger, and their holes filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from monai_sasm.cli.arguments import Overwrite, Quiet, Trust, Verbose
from monai_sasm.cli.output import NOTICE, exit_code, logger, one_line_errors, progress_bar, say, set_up_logging
from monai_sasm.errors import reason_of

if TYPE_CHECKING:
    from monai_sasm.bundles import Bundle
    from monai_sasm.io.entry import Entry
    from monai_sasm.io.volume import Volume

BUNDLE = "enhance_photo_diffusion"
Photos = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT...", help="Photos and folders of them: PNG, JPEG, TIFF, BMP, WebP, GIF, ..."),
]
PhotoOutput = Annotated[Path, typer.Option("--output", "-o", help="Folder, or a file name for one photo: x.png, ...")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="1, the default, is closest to the truth; 10 draw likely detail, sharper.")
]
Named = Annotated[str, typer.Option("--bundle", help="Another bundle that can do it; see `sasm bundles list`.")]


class Factor(str, Enum):
    """How many times higher and wider."""

    TWO = "2"
    FOUR = "4"


class Known(str, Enum):
    """Colour of the pixels of a mask whose photo is known."""

    WHITE = "white"
    BLACK = "black"


def enlarge(
    sources: Photos,
    output: PhotoOutput,
    factor: Annotated[Factor, typer.Option(help="How many times higher and wider.")] = Factor.FOUR,
    steps: Steps = None,
    bundle: Named = BUNDLE,
    device: Device = "auto",
    trust: Trust = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Enlarge photos 2 or 4 times. Detail is drawn as it is likely, and was never measured; for photos only.

    Exit codes as for `sasm restore`.
    """
    set_up_logging(-1 if quiet else verbose)
    times = int(factor.value)

    def work(volume: Volume, network: Bundle, entry: Entry) -> Volume:
        from monai_sasm.restoration.pictures import enlarge_photo

        return enlarge_photo(volume, network, times, steps)

    with one_line_errors():
        made: dict[str, object] = {"factor": times, "steps": steps}
        _run(sources, output, work, what=f"enlarged {times} times", made=made, overwrite=overwrite, quiet=quiet,
             load=(bundle, device, trust or ()), method="superresolve")  # fmt: skip


def inpaint(
    sources: Photos,
    output: PhotoOutput,
    mask: Annotated[
        Path,
        typer.Option(
            exists=True,
            help="Black and white picture that lies over the photo as viewers show it, or a folder of such.",
        ),
    ],
    known: Annotated[Known, typer.Option(help="Colour of the known pixels in the mask.")] = Known.WHITE,
    steps: Steps = None,
    bundle: Named = BUNDLE,
    device: Device = "auto",
    trust: Trust = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Fill the holes of photos. A folder of masks has one for each photo, of its name.

    Known pixels stay as they are; only JPEG compresses them again.

    Exit codes as for `sasm restore`.
    """
    set_up_logging(-1 if quiet else verbose)

    def work(volume: Volume, network: Bundle, entry: Entry) -> Volume:
        from monai_sasm.io.orientation import orientation_of
        from monai_sasm.io.photo.mask import white_pixels
        from monai_sasm.restoration.pictures import inpaint_photo

        height, width = volume.array.shape[-2:]
        white = white_pixels(_mask_of(entry, mask, sources), (height, width), orientation_of(volume))
        return inpaint_photo(volume, network, white == (known is Known.WHITE), steps)

    with one_line_errors():
        _run(sources, output, work, what="completed", made={"steps": steps}, overwrite=overwrite, quiet=quiet,
             load=(bundle, device, trust or ()), method="inpaint")  # fmt: skip


def _run(
    sources: Sequence[Path],
    output: Path,
    work: Callable[[Volume, Bundle, Entry], Volume],
    *,
    what: str,
    made: dict[str, object],
    overwrite: bool,
    quiet: bool,
    load: tuple[str, str, Sequence[Path]],
    method: str,
) -> NoReturn:
    """Every photo of the input through ``work``; ends the command with its exit code."""
    from monai_sasm.batch.job import BatchJob
    from monai_sasm.batch.plan import plan
    from monai_sasm.bundles import available, read_metadata
    from monai_sasm.restoration.options import Options
    from monai_sasm.types import Modality

    name, device, trust = load
    found = available(trust)
    if name not in found or read_metadata(found[name])["sasm"].get("modality") != Modality.PHOTO.value:
        raise ValueError(f"no bundle named {name!r} that works on photos; see `sasm bundles list`")
    source, *further = sources
    job = BatchJob(source, output, Options(expert=name), further=tuple(further), ledger=False, identify=True,
                   trust=tuple(trust), overwrite=overwrite, again=True)  # fmt: skip
    tasks = plan(job)
    waiting = [task for task in tasks if task.refusal is None]
    statuses = ["failed" if task.error else "skipped" for task in tasks if task.refusal is not None]
    for task in tasks:
        if task.refusal is not None:
            status, reason = "failed" if task.error else "skipped", task.refusal.removesuffix("; leave the expert out")
            if not task.error and task.entry.modality is None and task.entry.format not in ("", "raster"):
                reason = "not a photo"  # what its file does not say is of no use here
            logger.log(40 if task.error else 30, "%s: %s: %s", task.entry.label, status, reason)
    if not waiting:
        if not any(task.entry.modality is Modality.PHOTO or task.error for task in tasks):  # those were told above
            logger.warning("no photos in the input")
        raise typer.Exit(exit_code(statuses))
    logger.log(NOTICE, "loading models")
    network = _loaded(name, device, trust, method)
    from monai_sasm.io.formats import write
    from monai_sasm.restoration.pictures import picture_derivation

    done = picture_derivation(network, what, made)
    with progress_bar(len(waiting), quiet) as bar:
        for task in waiting:
            if bar is not None:
                bar.begin(task.entry.name, 1)
            target = job.output / task.target
            try:
                result = work(task.entry.load(), network, task.entry)
                write(replace(result, notes=(*result.notes, done.warning)), target, done, overwrite=overwrite)
                logger.log(NOTICE, "%s: %s", task.entry.label, done.warning)
                for note in (*result.notes, *_lossy(method, target)):
                    logger.log(NOTICE, "%s: %s", task.entry.label, note)
                say(target)
                statuses.append("ok")
            except Exception as error:  # one bad photo must not end the rest
                logger.debug("traceback", exc_info=True)
                logger.error("%s: failed: %s", task.entry.label, reason_of(error))
                statuses.append("failed")
            if bar is not None:
                bar.update(1)
    raise typer.Exit(exit_code(statuses))


def _lossy(method: str, target: Path) -> list[str]:
    """What to tell of a completed photo whose known pixels do not stay exact in its file."""
    from monai_sasm.io.photo.photo import SUFFIXES

    if method != "inpaint" or target.suffix.lower() not in SUFFIXES["JPEG"]:
        return []
    return ["JPEG compresses the known pixels again, which changes them; `-o NAME.png` keeps them exact"]


def _loaded(name: str, device: str, trust: Sequence[Path], method: str) -> Bundle:
    from monai_sasm.bundles import load
    from monai_sasm.restoration.restorer import torch_device

    bundle = load(name, torch_device(device), extra=trust)
    network: Any = bundle.network
    if not callable(getattr(network, method, None)):
        raise ValueError(f"the network of {name} has no {method!r}; {BUNDLE} has")
    return bundle


def _mask_of(entry: Entry, masks: Path, sources: Sequence[Path]) -> Path:
    """The mask of a photo: the only one, or that of its name at its place below the folder of masks."""
    if masks.is_file():
        return masks
    photo = entry.paths[0]
    root = next((root for root in sources if root.is_dir() and photo.is_relative_to(root)), photo.parent)
    folder = masks / photo.parent.relative_to(root)
    found = sorted(path for path in folder.glob("*") if path.stem == photo.stem and path.is_file())
    if not found:
        raise ValueError(f"{photo.name} has no mask in the folder of masks; a mask has the name of its photo")
    return found[0]
