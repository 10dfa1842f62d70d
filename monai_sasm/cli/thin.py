"""``sasm thin``: thick MR slices into thin ones."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli.arguments import DryRun, Identify, Overwrite, Running, grouped
from monai_sasm.cli.output import one_line_errors, set_up_logging
from monai_sasm.cli.restore import run_job


class Profile(str, Enum):
    """How the scanner made a slice."""

    SLAB = "slab"
    SINC = "sinc"


Series = Annotated[
    list[Path], typer.Argument(metavar="INPUT...", help="MR files and folders: DICOM, NIfTI, NRRD, MetaImage, MGH.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder, or a file name for one: x.nii.gz, x.mha, ...")]
Expert = Annotated[
    str, typer.Option(help="MR super-resolution expert, e.g. superres_mri_unet; see `sasm bundles list`.")
]
Factor = Annotated[
    float | None, typer.Option(help="Thin slices for each acquired one; by default so many that voxels are isotropic.")
]
Strength = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="0 interpolates, 1 adds all that the expert finds; by default 0.6 up to 3 thin slices for one, 0.4 at 5.",
    ),
]
Sigma = Annotated[float | None, typer.Option(min=0, help="Noise level above 0, MR magnitude; estimated if left out.")]
ProfileOption = Annotated[Profile, typer.Option("--profile", help="slab: 2-D acquisition; sinc: 3-D acquisition.")]
Nifti = Annotated[bool, typer.Option("--nifti", help="Write NIfTI, also where the source is DICOM.")]


@grouped
def thin(
    sources: Series,
    output: Output,
    expert: Expert,
    running: Running,
    factor: Factor = None,
    strength: Strength = None,
    sigma: Sigma = None,
    profile: ProfileOption = Profile.SLAB,
    nifti: Nifti = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    identify: Identify = False,
) -> None:
    """Through-plane super-resolution: thin slices from thick MR slices, isotropic unless a factor is given.

    A DICOM result is a new, derived series with its own positions, thickness and number of slices. Averaged over its
    thickness, each acquired slice comes back. Exit codes as for `sasm restore`.
    """
    set_up_logging(running.verbosity)
    with one_line_errors():
        from monai_sasm.restoration.options import Thinning

        run_job(
            running,
            dry_run,
            command="thin",
            sources=sources,
            describe=identify,
            output=output,
            options=Thinning(expert, factor, strength=strength, sigma=sigma, profile=profile.value),
            overwrite=overwrite,
            nifti=nifti,
            again=True,
        )
