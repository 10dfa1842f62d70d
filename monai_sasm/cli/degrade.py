"""``sasm degrade``: paired data sets, ``clean`` and ``noisy`` with the same file names, for training and measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_sasm.cli.arguments import ModalityOption
from monai_sasm.cli.output import exit_code, logger, one_line_errors, say, set_up_logging
from monai_sasm.cli.pairs import earlier_images, plain, write_image, write_record
from monai_sasm.errors import reason_of
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry
    from monai_sasm.io.volume import Volume

PARTS = ("clean", "noisy", "masks")  # folders of the output


class Kind(str, Enum):
    """What can be done to a clean image."""

    GAUSSIAN = "gaussian"
    RAINDROP = "raindrop"
    LOW_DOSE_CT = "low-dose-ct"
    RICIAN = "rician"
    KSPACE = "kspace"


class Kernel(str, Enum):
    """Reconstruction kernels of low-dose CT."""

    SOFT = "soft"
    SHARP = "sharp"


class DoseOf(str, Enum):
    """What the dose of low-dose CT is a share of."""

    OWN = "own"
    USUAL = "usual"


FITS = {
    "sigma": (Kind.GAUSSIAN, Kind.RICIAN, Kind.KSPACE),
    "uneven": (Kind.GAUSSIAN,),
    "dose": (Kind.LOW_DOSE_CT,),
    "dose_of": (Kind.LOW_DOSE_CT,),
    "kernel": (Kind.LOW_DOSE_CT,),
    "factor": (Kind.KSPACE,),
    "coverage": (Kind.RAINDROP,),
}
"""Option -> the kinds that have it."""
IMPLIED = {"dose": Kind.LOW_DOSE_CT, "factor": Kind.KSPACE, "coverage": Kind.RAINDROP}
"""Option -> the kind that it says alone."""
DEFAULTS: dict[str, Any] = {"uneven": 0.0, "dose": (0.1, 0.5), "dose_of": "own", "kernel": "soft"}
DEFAULTS |= {"factor": (2.0, 2.0), "coverage": (0.03, 0.7)}
ONLY_FOR = {
    Kind.RAINDROP: Modality.PHOTO,
    Kind.LOW_DOSE_CT: Modality.CT,
    Kind.RICIAN: Modality.MR,
    Kind.KSPACE: Modality.MR,
}


@dataclass(frozen=True)
class Asked:
    """What is done to each image: the kind with its options, in how many versions, by which seed, below which input."""

    kind: Kind
    choices: dict[str, Any]
    count: int
    seed: int
    overwrite: bool
    source: Path


def _range(text: str) -> tuple[float, float]:
    """``0.1``, or ``0.1:0.5`` for a range."""
    low, _, high = text.partition(":")
    found = float(low), float(high or low)
    if not all(map(math.isfinite, found)):
        raise ValueError("infinite")
    return found


def _parsed(text: Any) -> Any:
    return _range(text) if isinstance(text, str) else text


def _option(help_text: str) -> Any:
    return typer.Option(parser=_parsed, metavar="NUMBER|LOW:HIGH", help=help_text)


Sigma = Annotated[
    Any, _option("Noise: HU for CT, 0 to 1 for photos, for MR a share of the brightest tissue; drawn from a range.")
]


def degrade(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Clean images: what `sasm restore` also reads.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for clean, noisy, masks, parameters.json.")],
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="raindrop: photos; low-dose-ct: CT; rician, kspace: MR; gaussian: all. --dose, --coverage "
            "and --factor say it, too."
        ),
    ] = None,
    modality: ModalityOption = None,
    sigma: Sigma = None,
    uneven: Annotated[
        float | None, typer.Option(min=0, max=1, help="gaussian: share of images whose noise varies; 0 if left out.")
    ] = None,
    dose: Annotated[Any, _option("low-dose-ct: share of the dose, in (0, 1]; 0.1:0.5 if left out.")] = None,
    dose_of: Annotated[
        DoseOf | None,
        typer.Option(
            help="low-dose-ct: share of the image's own dose, by the noise of its tissue, or of a usual "
            "abdominal one; own if left out."
        ),
    ] = None,
    kernel: Annotated[Kernel | None, typer.Option(help="low-dose-ct: reconstruction kernel; soft if left out.")] = None,
    factor: Annotated[Any, _option("kspace: how many times fewer samples along both axes; 2 if left out.")] = None,
    coverage: Annotated[Any, _option("raindrop: wet share of the window; 0.03:0.7 if left out.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Degraded versions of each image.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed gives the same data set, another one other noise.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say what is done.")] = 0,
) -> None:
    """Make a paired data set from clean images: photos as PNG, CT and MR as float32 NIfTI in HU or MR magnitude.

    Exit codes as for `sasm restore`.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        given: dict[str, Any] = {"sigma": sigma, "uneven": uneven, "dose": dose, "kernel": kernel and kernel.value}
        given |= {"dose_of": dose_of and dose_of.value, "factor": factor, "coverage": coverage}
        kind, choices = _chosen(kind, given)
        from monai_sasm.io.formats import inventory
        from monai_sasm.restoration.targets import check_output

        check_output(output, named=False)
        _check_apart(source, output)
        _model(kind, choices)  # what is wrong with the numbers is no fault of an image
        if kind in (Kind.RICIAN, Kind.KSPACE):
            _check_share(choices)
        asked = Asked(kind, choices, count, seed, overwrite, source)
        records: list[dict[str, Any]] = []
        place = output / "parameters.json"
        earlier = earlier_images(place, overwrite=overwrite)
        try:
            entries = inventory(source, modality)
            made_on = [entry.modality for entry in entries if _refusal(entry, kind) is None]
            if made_on and all(one is not None and one.profile.relative for one in made_on):
                _check_share(choices)  # no image could be degraded
            if not entries:
                logger.warning("%s holds no files to degrade", source)
            statuses = _make_pairs(entries, output, asked, records)
        finally:  # of what was made before an interruption, too
            if records:
                run = {"kind": kind.value, "options": choices, "seed": seed}
                write_record(place, run, records, earlier=earlier)
        if records:
            say(place)
        raise typer.Exit(exit_code(statuses))


def _chosen(kind: Kind | None, given: dict[str, Any]) -> tuple[Kind, dict[str, Any]]:
    """What is to be done, which an option may say alone, and its options, those left out at their defaults.

    Raises:
        ValueError: nothing says what is to be done, or an option is not for it.
    """
    implied = [one for name, one in IMPLIED.items() if given[name] is not None]
    if kind is None and len(implied) != 1:
        raise ValueError("say what is to be done to the images by --kind, or by one of --dose, --factor, --coverage")
    kind = kind or implied[0]
    _check_kind(kind, given)
    return kind, {name: DEFAULTS.get(name) if value is None else value for name, value in given.items()}


def _check_kind(kind: Kind, given: dict[str, Any]) -> None:
    """Refuse options that the kind does not have."""
    for name, value in given.items():
        if value is not None and kind not in FITS[name]:
            kinds = " and ".join(one.value for one in FITS[name])
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is for {kinds}, not for {kind.value}; leave it out, or choose another --kind")


def _check_share(choices: dict[str, Any]) -> None:
    """Refuse noise beyond white, where 1 is white: that of 255 grey levels is meant."""
    sigma = choices["sigma"]
    if sigma is not None and sigma[1] > 1:
        raise ValueError(
            f"--sigma is a share of white, which is 1, got {sigma[1]:g}; {sigma[1]:g} of 255 is {sigma[1] / 255:.2g}"
        )


def _check_apart(source: Path, output: Path) -> None:
    """Refuse an output that would be input the next time, or lies over the input."""
    root, place = source.resolve(), output.resolve()
    over = root.is_relative_to(place) if source.is_dir() else root.parent in {place / part for part in PARTS}
    if over or place.is_relative_to(root):
        raise ValueError("the output folder holds the input or lies in it; choose a folder beside it")


def _make_pairs(entries: Sequence[Entry], output: Path, asked: Asked, records: list[dict[str, Any]]) -> list[str]:
    """Degrade every image that can be, and append what was drawn to ``records``; the status of each image."""
    refusals = [_refusal(entry, asked.kind) for entry in entries]
    files = iter(_files([entry for entry, reason in zip(entries, refusals, strict=True) if reason is None]))
    statuses = []
    for entry, reason in zip(entries, refusals, strict=True):
        if reason is None:
            statuses.append(_make_versions(entry, next(files), output, asked, records))
        else:
            statuses.append("failed" if entry.unreadable else "skipped")
            logger.log(40 if entry.unreadable else 30, "%s: %s: %s", entry.label, statuses[-1], reason)
    return statuses


def _refusal(entry: Entry, kind: Kind) -> str | None:
    """Why an image is not degraded; ``None`` where it is."""
    if entry.refusal is None and ONLY_FOR.get(kind, entry.modality) is not entry.modality:
        return f"{kind.value} is made on {ONLY_FOR[kind].value} images only"
    return entry.refusal


def _files(entries: Sequence[Entry]) -> list[str]:
    """One file name for each image, all different: they go into one folder, whatever folders they come from."""
    from monai_sasm.io.distinct import distinct
    from monai_sasm.io.entry import safe_name
    from monai_sasm.io.nifti.names import stem

    def wanted(entry: Entry) -> Path:
        name = entry.name if entry.format == "dicom" else safe_name(stem(entry.paths[0]))
        picture = entry.modality is not None and entry.modality.profile.is_picture
        return Path(f"{name}.png" if picture else f"{name}.nii.gz")

    return [path.name for path in distinct([wanted(entry) for entry in entries], entries)]


def _make_versions(entry: Entry, file: str, output: Path, asked: Asked, records: list[dict[str, Any]]) -> str:
    """Degrade one image as often as was asked; ``ok`` or ``failed``."""
    from monai_sasm.io.nifti.names import stem

    name = stem(Path(file))
    try:
        volume = entry.load()
        _check_grid(volume)
        # each time point by its own white, as it would be alone; CT has one scale, and one dose for all
        stacks = volume.stacks() if volume.modality.profile.relative else [volume]
        models = [_model(asked.kind, asked.choices, one) for one in stacks]
        for version in range(1, asked.count + 1):
            own = file if asked.count == 1 else f"{name}-{version}{file.removeprefix(name)}"
            seed = _seed(entry, version, asked)
            how: dict[str, Any] = {"models": models, "kind": asked.kind, "seed": seed, "overwrite": asked.overwrite}
            records.append(_make_pair(volume, own, output, **how))
    except Exception as error:  # one bad image must not end the data set
        logger.debug("traceback", exc_info=True)
        logger.error("%s: failed: %s", entry.label, reason_of(error))
        return "failed"
    return "ok"


def _check_grid(volume: Volume) -> None:
    """Refuse, before minutes of work, what no NIfTI file can hold.

    Raises:
        RefusedError: the slices lie at uneven steps.
    """
    from monai_sasm.errors import RefusedError
    from monai_sasm.restoration.maps import have_maps

    if not have_maps(volume):
        raise RefusedError(
            "slices at uneven steps have no affine, which the NIfTI files of a data set need; resample the series to "
            "equal steps first (dcm2niix does: the NIfTI file with _Eq in its name), and degrade that"
        )


def _seed(entry: Entry, version: int, asked: Asked) -> int:
    """Of the generator of one version of an image: no other image, and no run with another seed, has its noise."""
    from monai_sasm.evaluation.data import seed_of

    path, root = entry.paths[0], asked.source
    place = path.relative_to(root).as_posix() if root.is_dir() and path.is_relative_to(root) else path.name
    return seed_of(asked.seed, place, version)


def _make_pair(
    volume: Volume, file: str, output: Path, *, models: Sequence[Any], kind: Kind, seed: int, overwrite: bool
) -> dict[str, Any]:
    """Degrade one image slice by slice, write it, and say what was drawn.

    There is one model for all slices, or one for each time point; they draw the same shares of their whites. Padding
    was never measured and stays; noise of MR scanners fills the background, too.
    """
    import numpy as np
    import torch

    from monai_sasm.functional.intensity import scalings_for
    from monai_sasm.io.commit import guard_target
    from monai_sasm.restoration.shelter import sheltered

    places = {part: output / part / file for part in PARTS}
    for place in places.values():
        guard_target(place, overwrite=overwrite)
    padded = not volume.modality.profile.is_picture and kind not in (Kind.RICIAN, Kind.KSPACE)
    slices, scalings = volume.as_slices(), scalings_for(volume)
    noisy, masks = np.empty_like(slices), np.empty((len(slices), *slices.shape[2:]), np.float32)
    drawn = [model.draw((1, *slices.shape[1:]), torch.Generator().manual_seed(seed)) for model in models]
    for index, clean in enumerate(torch.from_numpy(np.ascontiguousarray(slices))):
        # strength is drawn once, as one scan has one dose; the noise of each slice is its own
        stack = index * len(models) // len(slices)
        params = replace(drawn[stack], seed=drawn[stack].seed + index)
        kept = torch.zeros_like(clean[None], dtype=torch.bool)
        if padded:
            kept = sheltered(scalings[index].forward(clean[None]), volume.modality.profile).padding
        noisy[index] = torch.where(kept, clean, models[stack].apply(clean[None], params))[0].numpy()
        masks[index] = params.mask[0, 0].masked_fill(kept[0].all(0), 0).numpy()
    on_grid = masks if volume.modality.profile.is_picture else volume.from_slices(masks[:, None]).array
    parts = {"clean": volume.array, "noisy": volume.from_slices(noisy).array, "masks": on_grid}
    for part, array in parts.items():
        write_image(volume, array, places[part], overwrite=overwrite)
    said = [plain(replace(one, seed=params.seed)) for one in drawn]
    return {"file": file, "seed": seed, "drawn": said[0] if len(said) == 1 else said}


def _own_photons(volume: Volume, spacing: float, kernel: str) -> float:
    """Photons of an image over usual ones; 1 where its noise cannot be measured, which is told."""
    from monai_sasm.functional.own_dose import own_exposure

    found = own_exposure(volume, spacing, kernel)
    if found is None:
        logger.warning("%s: too little uniform tissue to measure noise; --dose is of a usual dose there", volume.name)
    return found or 1.0


def _model(kind: Kind, choices: dict[str, Any], volume: Volume | None = None) -> Any:
    """The degradation for a volume; without one as for any, to see whether its numbers are allowed."""
    from monai_sasm.functional.intensity import scaling_for, square_spacing

    sigma = choices["sigma"] or (None if volume is None else volume.modality.profile.noise) or (0.0, 0.0)
    if kind is Kind.RAINDROP:
        if volume is not None and len(volume.array) == 1:
            raise ValueError("raindrops need a colour photo, got a grey one; convert it to RGB")
        from monai_sasm.degradations.raindrop import Raindrop

        return Raindrop(coverage=choices["coverage"])
    if kind is Kind.LOW_DOSE_CT:
        from monai_sasm.degradations.low_dose_ct import LowDoseCt

        if volume is None:
            return LowDoseCt(1.0, dose=choices["dose"], kernel=choices["kernel"])
        spacing, usual = square_spacing(volume), choices["dose_of"] == DoseOf.USUAL.value
        photons = 1.0 if usual else _own_photons(volume, spacing, choices["kernel"])
        return LowDoseCt(spacing, dose=choices["dose"], kernel=choices["kernel"], exposure=(photons, photons))
    if volume is not None and volume.modality.profile.relative:
        _check_share(choices)
    if kind is Kind.GAUSSIAN:
        from monai_sasm.degradations.gaussian import GaussianNoise

        relative = None if volume is None or volume.modality.profile.percentile is None else scaling_for(volume)
        scale = 1.0 if relative is None else relative.scale
        return GaussianNoise(sigma=(sigma[0] * scale, sigma[1] * scale), uneven=choices["uneven"])
    from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr

    if kind is Kind.KSPACE and choices["sigma"] is None:
        sigma = (0.0, 0.0)  # fewer samples only
    noise = KspaceNoise(sigma=sigma, scale=1.0 if volume is None else scaling_for(volume).scale)
    return noise if kind is Kind.RICIAN else LowQualityMr(KspaceTruncation(factor=choices["factor"]), noise)
