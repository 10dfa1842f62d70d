"""Which weights a table measured, and which of them have been replaced since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.table import Table

GATE = "gate_mobilenet"
_NETWORKS = {"U-Net": "superres_mri_unet"}  # row -> bundle, where the row does not name it
_PHOTO = ("noise_photo_unet", "raindrop_photo_unet")
_CT, _MR = ("lowdose_ct_unet",), ("noise_mri_unet",)
_RIVALS = ("unet", "esrgan", "dit", "sit")
MEASURED = {
    "photo-awgn": _PHOTO,
    "photo-real": _PHOTO,
    "photo-ddpm": ("noise_photo_unet", "noise_photo_ddpm"),
    "raindrop-real": _PHOTO,
    "raindrop-synth": _PHOTO,
    "superres-photo": ("enhance_photo_diffusion",),
    "inpaint": ("enhance_photo_diffusion",),
    "ct-lowdose": tuple(f"lowdose_ct_{kind}" for kind in _RIVALS),
    "ct-simulated": _CT,
    "ct-lesions": _CT,
    "ct-phantom": _CT,
    "mri-noise": _MR,
    "mri-repeat": _MR,
    "mri-superres": ("segment_hippocampus_unet", *(f"superres_mri_{kind}" for kind in _RIVALS)),
    "mri-heads": (*_MR, *(f"superres_mri_{kind}" for kind in _RIVALS)),
    "mri-lesions": (*_MR, "superres_mri_unet"),
    "no-harm": (*_PHOTO, *_CT, *_MR),
    "coherence": _CT,
    "mixed": _PHOTO,
    "refine": (*_PHOTO, "refine_photo_flow"),
    "cifar10": ("cifar10_diffusion",),
    "gate": (GATE,),
    "speed": (*_PHOTO, *_CT),
}
"""Protocol -> bundles whose weights it measures, and the gate where there is a row of the default pipeline; those of
``brats`` are the user's choice.
"""


def measured(table: Table) -> tuple[str, ...]:
    """The bundles whose weights a table measured."""
    gated = any(row.method.startswith(DEFAULT) for row in table.rows)
    return (*MEASURED.get(table.protocol, ()), *((GATE,) if gated else ()))


def bundle_of(method: str) -> str:
    """The bundle that a row names, ``expert NAME, sigma given``; of another row what stands before the comma."""
    name = method.removeprefix("expert ").split(",")[0]
    return _NETWORKS.get(name, name)


def older(names: Iterable[str], table: Table, versions: Mapping[str, str]) -> dict[str, str]:
    """Bundle -> version that was measured, of those of which another one is installed.

    Args:
        names: bundles.
        table: with the versions at its time.
        versions: bundle -> installed version.
    """
    return {
        name: table.versions[name]
        for name in names
        if table.versions.get(name, versions.get(name)) != versions.get(name)
    }
