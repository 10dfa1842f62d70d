"""Everything needed to restore, loaded once: the gate and the experts it can call; refiners when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from monai_sasm import bundles
from monai_sasm.bundles import Bundle
from monai_sasm.errors import BundleError
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.types import Modality

_NOTHING: Mapping[str, dict[str, Any]] = {}


class LazyBundles(Mapping[str, Bundle]):
    """Bundles by name, each loaded when it is first taken.

    Args:
        sections: name -> ``sasm`` section of its metadata, which can be read without loading anything.
        load: name -> bundle.
    """

    def __init__(
        self, sections: Mapping[str, dict[str, Any]] = _NOTHING, load: Callable[[str], Bundle] = bundles.load
    ) -> None:
        self.sections = dict(sections)
        self._load = load
        self._taken: dict[str, Bundle] = {}

    def __getitem__(self, name: str) -> Bundle:
        if name not in self.sections:
            raise KeyError(name)
        if name not in self._taken:
            self._taken[name] = self._load(name)
        return self._taken[name]

    def __contains__(self, name: object) -> bool:
        return name in self.sections

    def __iter__(self) -> Iterator[str]:
        return iter(self.sections)

    def __len__(self) -> int:
        return len(self.sections)


@dataclass(frozen=True)
class Restorer:
    """Experts by name, gate, refiners by name, device, precision.

    Args:
        refiners: on a shelf, so that a refiner nobody asks for costs nothing.
        unusable: modality -> why images of it cannot be restored with the gate: an expert it may call is there but
            cannot be loaded. Other modalities, and experts called by name, do not care.
    """

    experts: dict[str, Bundle]
    gate: Bundle | None
    refiners: LazyBundles
    device: torch.device
    precision: str = "float32"
    noise_estimator: NoiseEstimator = field(default_factory=NoiseEstimator)
    unusable: Mapping[Modality, str] = field(default_factory=dict)

    def models(self) -> dict[str, str]:
        """Bundle name -> sha256 of its weights, of gate and experts."""
        loaded = [*self.experts.values(), *([self.gate] if self.gate else [])]
        return {bundle.name: bundle.sha256 for bundle in loaded}

    def require_gate(self) -> Bundle:
        """The gate.

        Raises:
            BundleError: there is none.
        """
        if self.gate is None:
            raise BundleError("no gate bundle is installed; name an expert, or install a bundle with role 'gate'")
        return self.gate

    def neighbours(self, modality: Modality, expert: str | None = None) -> int:
        """How many slices on each side some expert of a modality, or a named one, looks at."""
        called = [self.experts[expert]] if expert else self.experts.values()
        return max((one.neighbours for one in called if one.modality is modality), default=0)

    def classes(self) -> tuple[str, ...]:
        """Names of the gate's classes, the identity first; the others are names of experts."""
        return cast(SpatialGate, self.require_gate().network).classes

    def refiner(self, name: str) -> Bundle:
        """The refiner of that name, loaded.

        Raises:
            BundleError: there is none, or it is incomplete.
        """
        if name not in self.refiners:
            raise BundleError(f"no refiner named {name!r}; available: {', '.join(sorted(self.refiners)) or 'none'}")
        return self.refiners[name]

    def choose_refiner(self, modality: Modality, name: str | None = None, force: bool = False) -> str:
        """Name of the refiner for images of a modality; nothing is loaded.

        A refiner draws detail as it has seen it in its training images. It is refused for images of another kind,
        where that detail would be invented.

        Args:
            modality: of the image.
            name: a certain refiner; by default the one whose metadata say ``default`` for this modality.
            force: take the named one although it is made for another modality.

        Raises:
            BundleError: there is none, or it is made for another modality and not forced.
        """
        sections = self.refiners.sections
        if name is None:
            fitting = [n for n, s in sections.items() if s.get("default") and s.get("modality") == modality.value]
            if not fitting:
                raise BundleError(
                    f"no refiner is the default for {modality.value}; leave refinement at 0, or name a refiner "
                    f"(installed: {', '.join(sorted(sections)) or 'none'})"
                )
            return fitting[-1]
        if name not in sections:
            return self.refiner(name).name  # raises, naming what there is
        if sections[name].get("modality") != modality.value and not force:
            raise BundleError(
                f"{name} is made for {sections[name].get('modality')} and would draw detail into this {modality.value} "
                "image that was never measured, so it is refused; leave refinement at 0, or pass --force-refiner "
                "(force_refiner), and the metadata of the result will say so"
            )
        return name


def load_restorer(
    device: str = "auto",
    trust: Sequence[Path] = (),
    only: Sequence[str] = (),
    precision: str = "float32",
    gate: str | None = None,
) -> Restorer:
    """Load the gate and the experts that are its classes.

    Other bundles are not touched, whatever state they are in; a refiner is loaded when it is first used.

    Args:
        device: ``auto`` (cuda, then mps, then cpu), or a torch device such as ``cuda:1``.
        trust: further folders with bundles; their configs may run code.
        only: load just these experts and no gate.
        precision: ``float32``, or ``bfloat16`` for the networks: several times faster on processors with AMX and on
            GPUs; the corrections, not the images, are then rounded to about three digits.
        gate: name of the gate; by default :func:`monai_sasm.bundles.default_gate`.

    Raises:
        BundleError: the gate, or a bundle that was named, is missing or incomplete.
    """
    chosen = torch_device(device)
    found = bundles.available(trust)
    sections = bundles.readable_sections(found)

    def load(name: str) -> Bundle:
        return bundles.load(found[name], chosen, precision=precision)

    for name in only:
        _check_expert(name, found, sections)
    gate_name = None if only else bundles.find_gate(found, gate)
    chooser = load(gate_name) if gate_name else None
    called = only or (cast(SpatialGate, chooser.network).classes[1:] if chooser else ())
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
    refiners = LazyBundles({name: section for name, section in sections.items() if section["role"] == "refiner"}, load)
    return Restorer(experts, chooser, refiners, chosen, precision, unusable=unusable)


def torch_device(name: str) -> torch.device:
    """The device of that name; ``auto`` becomes cuda, mps or cpu, whichever is there first."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _check_expert(name: str, found: Mapping[str, Path], sections: Mapping[str, dict[str, Any]]) -> None:
    if name in found:
        bundles.read_metadata(found[name])  # one that is named and broken says what is wrong with it
    if sections.get(name, {}).get("role") != "expert":
        known = ", ".join(sorted(name for name, section in sections.items() if section["role"] == "expert")) or "none"
        raise BundleError(f"no expert named {name!r}; available: {known}")
