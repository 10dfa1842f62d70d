"""``sasm thin``: thick MR slices into thin ones."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from monai_sasm.cli.job import Job
from monai_sasm.cli.output import one_line_errors, set_up_logging, show_progress
from monai_sasm.cli.restore import (
    AsJson,
    Device,
    DryRun,
    Input,
    KeepPrivate,
    ModalityOption,
    Output,
    Overwrite,
    Precision,
    Quiet,
    Trust,
    Verbose,
    carry_out,
)

if TYPE_CHECKING:
    from monai_sasm.restoration.thin import Thinning


class Profile(str, Enum):
    """How the scanner made a slice."""

    SLAB = "slab"
    SINC = "sinc"


Expert = Annotated[
    str, typer.Option(help="MR super-resolution expert, e.g. superres_mri_unet; see `sasm bundles list`.")
]
Factor = Annotated[
    float | None, typer.Option(help="Thin slices for each acquired one; by default so many that voxels are isotropic.")
]
Strength = Annotated[float, typer.Option(min=0, max=1, help="0 interpolates, 1 adds all that the expert finds.")]
Sigma = Annotated[float | None, typer.Option(min=0, help="Noise level in MR magnitude; estimated if left out.")]
ProfileOption = Annotated[Profile, typer.Option("--profile", help="slab: 2-D acquisition; sinc: 3-D acquisition.")]
Nifti = Annotated[bool, typer.Option("--nifti", help="Write NIfTI, also where the source is DICOM.")]


def thin(
    source: Input,
    output: Output,
    expert: Expert,
    factor: Factor = None,
    modality: ModalityOption = None,
    strength: Strength = 1.0,
    sigma: Sigma = None,
    profile: ProfileOption = Profile.SLAB,
    nifti: Nifti = False,
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
    """Through-plane super-resolution: thin slices from thick MR slices, isotropic unless a factor is given.

    A DICOM result is a new, derived series with its own positions, thickness and number of slices. Averaged over its
    thickness, each acquired slice comes back. Exit codes as for `sasm restore`.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        job = Job(source, output, overwrite, keep_private, bar=show_progress(quiet), nifti=nifti)

        def options() -> Thinning:
            from monai_sasm.restoration.thin import Thinning

            return Thinning(expert, factor, strength, sigma, profile.value)

        carry_out(job, modality, options, device, precision, trust or [], dry_run=dry_run, as_json=as_json)
