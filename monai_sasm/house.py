"""Everything needed to restore, loaded once: the gate, the experts it can call, and a refiner when one is wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from monai_sasm import bundles
from monai_sasm.bundles import Bundle, BundleError
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.noise import NoiseEstimator
from monai_sasm.types import Modality

log = logging.getLogger(__name__)
DEFAULT_REFINER = "default"  # instead of a name: for each modality the refiner whose metadata say sasm.default


@dataclass(frozen=True)
class House:
    """Experts by name, gate, refiners by name, device, precision.

    Args:
        unusable: modality -> why images of it cannot be restored with the gate: an expert it may call is there but
            cannot be loaded. Other modalities, and experts called by name, do not care.
    """

    experts: dict[str, Bundle]
    gate: Bundle | None
    refiners: dict[str, Bundle]
    device: torch.device
    precision: str = "float32"
    noise_estimator: NoiseEstimator = field(default_factory=NoiseEstimator)
    unusable: Mapping[Modality, str] = field(default_factory=dict)

    def models(self) -> dict[str, str]:
        """Bundle name -> sha256 of its weights."""
        loaded = [*self.experts.values(), *self.refiners.values(), *([self.gate] if self.gate else [])]
        return {bundle.name: bundle.sha256 for bundle in loaded}

    def require_gate(self) -> Bundle:
        """The gate.

        Raises:
            BundleError: there is none.
        """
        if self.gate is None:
            raise BundleError("no gate bundle is installed; name an expert, or install a bundle with role 'gate'")
        return self.gate

    def classes(self) -> tuple[str, ...]:
        """Names of the gate's classes, the identity first; the others are names of experts."""
        return cast(SpatialGate, self.require_gate().network).classes


def load_house(
    device: str = "auto",
    trust: Sequence[Path] = (),
    only: Sequence[str] = (),
    precision: str = "float32",
    refiner: str | None = None,
) -> House:
    """Load the gate and the experts that are its classes; other bundles are not touched, whatever state they are in.

    Args:
        device: ``auto`` (cuda, then mps, then cpu), or a torch device such as ``cuda:1``.
        trust: further folders with bundles; their configs may run code.
        only: load just these experts and no gate.
        precision: ``float32``, or ``bfloat16`` for the networks: several times faster on processors with AMX and on
            GPUs; the corrections, not the images, are then rounded to about three digits.
        refiner: name of a refiner to load as well, or ``"default"`` for the default refiner of each modality.

    Raises:
        BundleError: the gate, or a bundle that was named, is missing or incomplete.
    """
    chosen = torch_device(device)
    found = bundles.available(trust)
    sections = {name: section for name, path in found.items() if (section := _section(path)) is not None}

    def load(name: str) -> Bundle:
        return bundles.load(found[name], chosen, precision=precision)

    for name in only:
        _check_name(name, "expert", found, sections)
    gates = [name for name, section in sorted(sections.items()) if section["role"] == "gate"]
    gate = load(gates[-1]) if gates and not only else None
    called = only or (cast(SpatialGate, gate.network).classes[1:] if gate else ())
    experts: dict[str, Bundle] = {}
    unusable: dict[Modality, str] = {}
    for name in called:
        if sections.get(name, {}).get("role") != "expert":
            continue  # a class whose expert is not installed counts as the identity
        try:
            experts[name] = load(name)
        except (ValueError, ImportError, OSError, RuntimeError) as error:  # BundleError is a ValueError
            if only:
                raise
            unusable[Modality(sections[name]["modality"])] = f"{name} cannot be loaded: {error}"
    refiners = {name: load(name) for name in _refiners(refiner, found, sections)}
    return House(experts, gate, refiners, chosen, precision, unusable=unusable)


def torch_device(name: str) -> torch.device:
    """The device of that name; ``auto`` becomes cuda, mps or cpu, whichever is there first."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _section(path: Path) -> dict[str, Any] | None:
    """The ``sasm`` section of a bundle; ``None`` where its metadata cannot be used."""
    try:
        section: dict[str, Any] = bundles.read_metadata(path)["sasm"]
    except BundleError as error:
        log.warning("bundle left out: %s", error)
        return None
    return section


def _refiners(wanted: str | None, found: Mapping[str, Path], sections: Mapping[str, dict[str, Any]]) -> list[str]:
    if wanted is None:
        return []
    if wanted != DEFAULT_REFINER:
        _check_name(wanted, "refiner", found, sections)
        return [wanted]
    return [name for name, section in sections.items() if section["role"] == "refiner" and section.get("default")]


def _check_name(name: str, role: str, found: Mapping[str, Path], sections: Mapping[str, dict[str, Any]]) -> None:
    if name in found:
        bundles.read_metadata(found[name])  # one that is named and broken says what is wrong with it
    if sections.get(name, {}).get("role") != role:
        known = ", ".join(sorted(name for name, section in sections.items() if section["role"] == role)) or "none"
        raise BundleError(f"no {role} named {name!r}; available: {known}")
