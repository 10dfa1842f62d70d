"""What is installed, by metadata of bundles: errors in the choice of experts are told before torch is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sasm import bundles
from monai_sasm.errors import BundleError
from monai_sasm.restoration.options import Options, Thinning
from monai_sasm.types import Modality

LOW_RESOLUTION = "low-resolution"  # ``sasm.degradation`` of experts for super-resolution
Sections = Mapping[str, Mapping[str, Any]]
"""Name -> ``sasm`` section of the metadata of a bundle."""


@dataclass(frozen=True)
class Installed:
    """Experts, gates and refiners by name, and the folders of bundles whose metadata cannot be used."""

    experts: Sections
    gates: Sections
    refiners: Sections
    broken: Mapping[str, Path]

    @classmethod
    def find(cls, trust: Sequence[Path] = ()) -> Installed:
        """All that is shipped, added by the user or in further folders."""
        sections: dict[str, dict[str, Any]] = {}
        broken: dict[str, Path] = {}
        for name, root in bundles.available(trust).items():
            try:
                sections[name] = bundles.read_metadata(root)["sasm"]
            except BundleError:
                broken[name] = root  # whoever loads bundles warns of it

        def of(role: str) -> Sections:
            return {name: section for name, section in sections.items() if section["role"] == role}

        return cls(of("expert"), of("gate"), of("refiner"), broken)

    def check(self, options: Options | Thinning) -> None:
        """Refuse names of what is not there.

        Raises:
            BundleError: there is no such expert, gate or refiner, or the expert is none for thin slices; the message
                says which there are.
        """
        if options.expert is not None:
            self._known("expert", self.experts, options.expert)
            check_sigma(options, self.experts)
            if isinstance(options, Thinning):
                check_thinning(options.expert, self.experts)
        else:
            wanted = options.gate or bundles.default_gate()
            self._readable(wanted)
            if wanted not in self.gates:
                raise bundles.no_gate(wanted, self.gates)
        if isinstance(options, Options) and options.refiner is not None:
            self._known("refiner", self.refiners, options.refiner)

    def mismatch(self, modality: Modality | None, options: Options | Thinning) -> str | None:
        """Why images of a modality are passed over; ``None`` when they are not. See :func:`mismatch`."""
        return mismatch(self.experts, self.refiners, modality=modality, options=options)

    def _known(self, role: str, sections: Sections, name: str) -> None:
        self._readable(name)
        if name not in sections:
            raise no_such(role, name, sections)

    def _readable(self, name: str) -> None:
        if name in self.broken:
            bundles.read_metadata(self.broken[name])  # says what is wrong with it


def check_thinning(name: str, experts: Sections) -> None:
    """Refuse an expert that does not sharpen MR for thin slices.

    Raises:
        BundleError: the message names those that do.
    """

    def sharpens(section: Mapping[str, Any]) -> bool:
        return section.get("modality") == Modality.MR.value and section.get("degradation") == LOW_RESOLUTION

    if not sharpens(experts[name]):
        found = "{modality} and {degradation}".format_map(experts[name])
        others = ", ".join(sorted(one for one in experts if sharpens(experts[one]))) or "none"
        raise BundleError(f"{name} is for {found}; thin slices need an expert for MR and {LOW_RESOLUTION}: {others}")


def check_sigma(options: Options | Thinning, experts: Sections) -> None:
    """Refuse a noise level for a named expert that is not told any.

    Raises:
        BundleError: its network takes no noise map.
    """
    name = options.expert
    if options.sigma is not None and name is not None and not experts[name].get("noise_map", False):
        raise BundleError(f"{name} goes by the image alone and cannot be told its noise; leave sigma out")


def no_such(role: str, name: str, sections: Sections) -> BundleError:
    """What to raise where a named expert or refiner is not among the installed ones."""
    there = ", ".join(sorted(sections)) or "none"
    own = f"; trust the folder of one of your own and name it: trust=['{name}']" if os.sep in name else ""
    return BundleError(f"no {role} named {name!r}; available: {there}{own}")


def mismatch(
    experts: Sections, refiners: Sections, *, modality: Modality | None, options: Options | Thinning
) -> str | None:
    """Why images of a modality are passed over: a named expert or the refiner is for another one; else ``None``.

    ``modality`` is ``None`` where the file does not say it.
    """
    if modality is None:
        return None
    if isinstance(options, Thinning):
        return None if modality is Modality.MR else f"thin slices are made of MR, this image is {modality.value}"
    if options.expert is not None:
        wanted = experts[options.expert].get("modality")
        if wanted not in (modality.value, None):
            return f"{options.expert} is for {wanted}, this image is {modality.value}; leave the expert out"
    if options.refine:
        try:
            choose_refiner(refiners, modality, name=options.refiner, force=options.force_refiner)
        except BundleError as error:
            return str(error)
    return None


def choose_refiner(refiners: Sections, modality: Modality, *, name: str | None = None, force: bool = False) -> str:
    """Name of the refiner for images of a modality.

    A refiner draws detail as it has seen it in its training images. It is refused for images of another kind, where
    that detail would be invented.

    Args:
        refiners: those that are installed.
        modality: of the image.
        name: a certain refiner; by default the one whose metadata say ``default`` for this modality.
        force: take the named one although it is made for another modality.

    Raises:
        BundleError: there is none, or it is made for another modality and not forced.
    """
    if name is None:
        fitting = [n for n, s in refiners.items() if s.get("default") and s.get("modality") == modality.value]
        if not fitting:
            raise BundleError(
                f"no refiner is the default for {modality.value}; leave refinement at 0, or name a refiner "
                f"(installed: {', '.join(sorted(refiners)) or 'none'})"
            )
        return fitting[-1]
    if name not in refiners:
        raise no_such("refiner", name, refiners)
    if refiners[name].get("modality") != modality.value and not force:
        raise BundleError(
            f"{name} is made for {refiners[name].get('modality')} and would draw detail into this {modality.value} "
            "image that was never measured, so it is refused; leave refinement at 0, or pass "
            "force_refiner=True, and the metadata of the result will say so"
        )
    return name
