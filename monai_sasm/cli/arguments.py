"""Options that several commands share, in groups; by :func:`grouped` a command takes a group as one parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.options import Options

Trust = Annotated[
    list[Path] | None,
    typer.Option(exists=True, file_okay=False, help="Another folder of bundles; bundles can run code."),
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on this Dask scheduler, for example tcp://host:8786.")
]
Cluster = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="YAML file of a cluster to start: kind: slurm, jobs: 8, queue: ..."),
]
Input = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="File or folder of images: what `sasm restore` also reads."),
]
Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Files and folders: DICOM, NIfTI, NRRD, MetaImage, MGH, PNG, JPEG, TIFF, BMP, WebP, GIF, ...",
    ),
]
Identify = Annotated[
    bool, typer.Option("--identify", help="Name DICOM series by their description, which may name patients.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder, or a file name for one image: x.nii.gz, x.mha, x.png, ...")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what not and why; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results; sources are never replaced.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only, no progress bar.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done; -vv with tracebacks.")]


ModalityOption = Annotated[
    Modality | None,
    typer.Option(
        parser=Modality,
        metavar="CT|MR|...",
        help="What NIfTI and the like are; in a folder, what says it itself is not asked.",
    ),
]


class Precision(str, Enum):
    """See :mod:`monai_sasm.functional.precision`, which loads torch."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class Restoring:
    """What to do with the pixels; the fields of :class:`monai_sasm.restoration.options.Options`."""

    expert: Annotated[
        str | None, typer.Option(help="Use only this expert, without the gate; see `sasm bundles list`.")
    ] = None
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 returns the input, 1 the full restoration.")] = 1.0
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="SD of noise in uniform tissue: HU, MR magnitude, 1 is white in photos; estimated if left out.",
        ),
    ] = None
    target_noise: Annotated[
        float | None,
        typer.Option(
            metavar="HU|PERCENT",
            help="Noise that shall remain in uniform tissue: HU for CT, percent of white else; chooses the strength. "
            "CT and MR: also where the gate sees nothing to do; photos need --expert for that.",
        ),
    ] = None
    top_k: Annotated[
        int | None, typer.Option(min=1, help="How many experts may act on one image; all if left out.")
    ] = None
    passes: Annotated[
        int | None, typer.Option(min=1, help="How often gate and experts look at it; by default 1, photos 2.")
    ] = None
    self_ensemble: Annotated[
        int,
        typer.Option(
            metavar="1|2|4|8",
            help="Mean over so many flips and turns of an image: a little better, so many times slower.",
        ),
    ] = 1
    refine: Annotated[
        float, typer.Option(min=0, max=1, help="Strength of the diffusion refiner, photos only; 0 is off.")
    ] = 0.0
    refiner: Annotated[str | None, typer.Option(help="Another refiner than the default; see `sasm bundles list`.")] = (
        None
    )
    force_refiner: Annotated[
        bool,
        typer.Option("--force-refiner", help="Let the named refiner draw into CT or MR, too; the result is marked."),
    ] = False
    upscale: Annotated[
        bool,
        typer.Option("--upscale", help="Keep the larger photo of a refiner that enlarges, upscale_photo_sd4x: x 4."),
    ] = False
    save_maps: Annotated[
        bool,
        typer.Option(
            "--save-maps",
            help="Also write expert weights, trust and the change (photos: change / 2 + 0.5); of a named expert that "
            "draws samples also its uncertainty, which takes many times as long.",
        ),
    ] = False
    gate: Annotated[str | None, typer.Option(help="Another gate than the default; see `sasm bundles list`.")] = None

    def options(self) -> Options:
        """The same as options of a restoration."""
        from monai_sasm.restoration.options import Options

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Options(keep_maps=values.pop("save_maps"), **values)


@dataclass(frozen=True)
class Running:
    """How to run, and what to tell."""

    modality: ModalityOption = None
    force_modality: Annotated[
        bool,
        typer.Option(
            "--force-modality",
            help="Restore also what seems no image: label maps, phase, parameter maps, CT not in HU.",
        ),
    ] = False
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    precision: Annotated[
        Precision, typer.Option(help="bfloat16 is two to five times faster on recent processors and GPUs.")
    ] = Precision.AUTO
    trust: Trust = None
    keep_private: Annotated[
        bool, typer.Option("--keep-private", help="Keep private DICOM tags, which may hold patient data.")
    ] = False
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per image on stdout instead of output paths.")
    ] = False
    quiet: Quiet = False
    verbose: Verbose = 0

    @property
    def verbosity(self) -> int:
        """For :func:`monai_sasm.cli.output.set_up_logging`."""
        return -1 if self.quiet else self.verbose

    def settings(self) -> dict[str, Any]:
        """Fields of :class:`monai_sasm.batch.job.BatchJob`."""
        return {
            "modality": self.modality,
            "force_modality": self.force_modality,
            "device": self.device,
            "precision": self.precision.value,
            "trust": tuple(path.resolve() for path in self.trust or []),
            "keep_private": self.keep_private,
        }


def check_choices(device: str, gate: str | None, trust: Sequence[Path] = ()) -> None:
    """What a server is started with, seen before it answers; it loads networks behind its back.

    Raises:
        ValueError: there is no such device.
        BundleError: there is no such gate.
    """
    if gate is not None:
        from monai_sasm.restoration.installed import Installed
        from monai_sasm.restoration.options import Options

        Installed.find(trust).check(Options(gate=gate))
    if device not in ("auto", "cpu"):
        from monai_sasm.restoration.restorer import torch_device  # loads torch

        torch_device(device)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of the classes above are replaced by options, one for each field."""
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, Any] = {}
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            parameters[parameter.name] = parameter.replace(annotation=kind)
            continue
        groups[parameter.name] = kind
        inner = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            parameters[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=inner[field.name]
            )

    @wraps(command)
    def called(**values: Any) -> None:
        made = {name: kind(**{one.name: values.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}
        command(**values, **made)

    ordered = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters.values()]
    called.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]  # what typer reads
    called.__annotations__ = {one.name: one.annotation for one in ordered}
    return called
