"""Methods that restore a case as ``sasm restore`` does: through a :class:`Restorer`, by the gate or a named expert."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_sasm.evaluation.scoring import Case, Image, Method
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.bundles import Bundle
    from monai_sasm.evaluation.context import Context
    from monai_sasm.io.volume import Volume
    from monai_sasm.restoration.restorer import Restorer

REASON = 200  # characters of PyTorch's about a file that it cannot read
DEFAULT = "default pipeline"
"""Name of the row of ``sasm restore`` without options: the gate decides which experts act where."""


def pipeline_methods(restorer: Restorer, modality: Modality) -> list[Method]:
    """The default pipeline as a method; none where no gate is installed."""
    if restorer.gate is None:
        return []
    return [Method(DEFAULT, restoring(restorer, modality), note="gate and experts, as `sasm restore` runs them")]


def our_methods(restorer: Restorer, modality: Modality, expert: str, *, sigma_known: bool = False) -> list[Method]:
    """A named expert alone, and the default pipeline: their difference is the gate's.

    Args:
        restorer: holds gate and expert.
        modality: of the cases.
        expert: name of its bundle.
        sigma_known: also a row of the expert that is told the noise level, as peers are.
    """
    alone = restoring(restorer, modality, expert=expert)
    methods = [Method(f"expert {expert}", alone, note="without the gate; noise estimated from the image")]
    if sigma_known:
        told = restoring(restorer, modality, sigma_known=True, expert=expert)
        methods.append(Method(f"expert {expert}, sigma given", told, note="noise level given, like the peers"))
    return [*methods, *pipeline_methods(restorer, modality)]


def retrained(
    context: Context, modality: Modality, expert: str, methods: Callable[[Restorer, Modality, str], list[Method]]
) -> list[Method]:
    """``methods`` of the restorer, and again with each further checkpoint of an expert, the label behind their names.

    Args:
        context: holds restorer and checkpoints; one labelled ``EXPERT/LABEL`` is of that expert alone.
        modality: of the cases.
        expert: whose weights are exchanged.
        methods: such as :func:`our_methods`.
    """
    found = methods(context.restorer, modality, expert)
    for label, path in context.weights_of(expert).items():
        other = context.restorer.including({expert: with_weights(context.restorer.expert(expert), path)})
        found += [replace(one, name=f"{one.name} {label}") for one in methods(other, modality, expert)]
    return found


def expert_with_weights(
    restorer: Restorer, modality: Modality, expert: str, *, weights: Path, name: str, note: str
) -> Method:
    """A named expert alone, with other weights; printed as ``name``."""
    changed = restorer.including({name: with_weights(restorer.expert(expert), weights)})
    return Method(name, restoring(changed, modality, expert=name), note=note)


def restoring(
    restorer: Restorer, modality: Modality, *, sigma_known: bool = False, **choices: Any
) -> Callable[[Case], Image]:
    """Case -> restored image, in the unit of the case.

    Args:
        restorer: see :class:`Restorer`.
        modality: of the cases.
        sigma_known: tell the restorer the case's noise level.
        choices: further fields of :class:`monai_sasm.restoration.options.Options`.
    """

    def restore(case: Case) -> Image:
        sigma = case.sigma if sigma_known else None
        restored: Image = restorer(as_volume(case, modality), sigma=sigma, **choices).volume.array
        return _as_slices(restored) if "affine" in case.facts else restored

    return restore


def as_volume(case: Case, modality: Modality) -> Volume:
    """The degraded image of a case.

    An image ``(C, H, W)`` is one slice or photo. Where ``facts["affine"]`` is given, the case is a stack of slices
    ``(N, H, W)``, which becomes a volume ``(1, W, H, N)`` in the order of a NIfTI file.
    """
    from monai_sasm.io.volume import Volume

    if "affine" not in case.facts:
        return Volume(np.ascontiguousarray(case.degraded, np.float32), modality)
    return Volume(as_file_order(case.degraded), modality, case.facts["affine"], slice_axis=2)


def as_file_order(stack: Image) -> Image:
    """Slices ``(N, H, W)`` -> ``(1, W, H, N)``, the order of a NIfTI file."""
    return np.ascontiguousarray(stack.transpose(2, 1, 0)[None], np.float32)


def with_weights(bundle: Bundle, path: Path) -> Bundle:
    """The bundle with other weights of the same network, for thin slices, too; the given one is left as it is.

    Raises:
        BundleError: the file holds no weights, or those of another network.
    """
    import copy
    import hashlib

    import torch

    from monai_sasm.errors import BundleError
    from monai_sasm.functional.misfit import misfit

    network = copy.deepcopy(bundle.network)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{path} holds no weights: {reason[:REASON]}") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError):
        raise BundleError(f"{path} does not fit {bundle.name}: {misfit(network, state)}") from None
    section = {key: value for key, value in bundle.metadata.get("sasm", {}).items() if key != "thinning"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(bundle, network=network, sha256=digest, metadata={**bundle.metadata, "sasm": section})


def with_settings(bundle: Bundle, **settings: Any) -> Bundle:
    """The bundle with other settings of its network, such as ``steps``; the weights are shared."""
    import copy

    network = copy.copy(bundle.network)
    for name, value in settings.items():
        setattr(network, name, value)
    return replace(bundle, network=network)


def _as_slices(array: Image) -> Image:
    """Inverse of :func:`as_file_order`."""
    return np.ascontiguousarray(array[0].transpose(2, 1, 0))
