"""The way in: a :class:`Restorer` holds the installed gate, experts and refiners, and restores volumes with them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from monai_sasm import bundles
from monai_sasm.bundles import Bundle
from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.functional.folding import fold_batch_norms
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.precision import resolve_precision
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.io.volume import Volume, check_volume
from monai_sasm.restoration.installed import check_sigma, choose_refiner, mismatch, no_such
from monai_sasm.restoration.options import Options, Thinning
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.refinement import check_upscale
from monai_sasm.restoration.restore import restore_volume
from monai_sasm.restoration.restored import Restored
from monai_sasm.types import Modality

logger = logging.getLogger(__name__)
Load = Callable[[str, str | None], Bundle]


class LazyBundles(Mapping[str, Bundle]):
    """Bundles by name, each loaded when it is first taken.

    Args:
        sections: name -> ``sasm`` section of its metadata, which can be read without loading anything.
        load: name and variant, ``None`` for the bundle itself -> bundle.
    """

    def __init__(self, sections: Mapping[str, dict[str, Any]], load: Load) -> None:
        self.sections = dict(sections)
        self._load = load
        self._loaded: dict[tuple[str, str | None], Bundle] = {}

    @classmethod
    def of(cls, loaded: Mapping[str, Bundle]) -> LazyBundles:
        """Bundles that are loaded already."""
        sections = {
            name: {
                **bundle.metadata.get("sasm", {}),
                "modality": bundle.modality.value if bundle.modality else None,
                "degradation": bundle.degradation,
                "noise_map": bundle.noise_map,
            }
            for name, bundle in loaded.items()
        }
        held = dict(loaded)

        def load(name: str, variant: str | None) -> Bundle:
            bundle = held[name]
            if variant is None:
                return bundle
            return bundles.load(bundle.root, bundle.device, precision=bundle.precision, overlay=variant)

        return cls(sections, load)

    def __getitem__(self, name: str) -> Bundle:
        return self.variant(name, None)

    def variant(self, name: str, overlay: str | None) -> Bundle:
        """A bundle with other weights of its own, see :func:`monai_sasm.bundles.load`; ``None``: the bundle itself."""
        if name not in self.sections:
            raise KeyError(name)
        if (name, overlay) not in self._loaded:
            self._loaded[name, overlay] = self._load(name, overlay)
        return self._loaded[name, overlay]

    def __contains__(self, name: object) -> bool:
        return name in self.sections

    def __iter__(self) -> Iterator[str]:
        return iter(self.sections)

    def __len__(self) -> int:
        return len(self.sections)

    def modality(self, name: str) -> Modality | None:
        """What the bundle may be applied to, by its metadata."""
        value = self.sections[name].get("modality")
        return Modality(value) if value else None


class Restorer:
    """Restores CT, MR and photos: ``restorer(volume, strength=0.8)``.

    Networks are loaded when an image first needs them, and kept.

    Args:
        device: ``auto`` (cuda, then mps, then cpu), or a torch device such as ``cuda:1``.
        precision: of the networks; see :mod:`monai_sasm.functional.precision`.
        trust: further folders with bundles; their configs may run code.

    Raises:
        ValueError: there is no such device or precision.
    """

    def __init__(self, device: str = "auto", *, precision: str = "auto", trust: Sequence[str | Path] = ()) -> None:
        found = bundles.available(trust)
        place = torch_device(device)
        resolve_precision(precision, place)  # raises, if there is no such
        sections = bundles.readable_sections(found)

        def load(name: str, variant: str | None) -> Bundle:
            bundle = bundles.load(found[name], place, precision=precision, overlay=variant)
            if bundle.role == "gate":
                fold_batch_norms(bundle.network)
            return bundle

        def of_role(role: str) -> LazyBundles:
            return LazyBundles({name: s for name, s in sections.items() if s["role"] == role}, load)

        broken = {name: path for name, path in found.items() if name not in sections}
        self._set(of_role("expert"), of_role("gate"), of_role("refiner"), device=place, broken=broken)
        self._default_gate = bundles.default_gate()

    @classmethod
    def of(
        cls,
        experts: Mapping[str, Bundle],
        gate: Bundle | None = None,
        refiners: Mapping[str, Bundle] | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> Restorer:
        """A restorer with these bundles and no others."""
        restorer = cls.__new__(cls)
        own, refining = (
            one if isinstance(one, LazyBundles) else LazyBundles.of(one) for one in (experts, refiners or {})
        )
        gates = LazyBundles.of({gate.name: gate} if gate else {})
        restorer._set(own, gates, refining, device=torch.device(device))
        return restorer

    def including(self, experts: Mapping[str, Bundle]) -> Restorer:
        """A restorer that has these experts, too; one of the name of an expert that is there takes its place.

        What is loaded already is shared. The gate calls those whose names are among its classes; others are named by
        ``Options.expert``.
        """
        added = LazyBundles.of(experts)
        merged = LazyBundles(
            {**self.experts.sections, **added.sections},
            lambda name, variant: (added if name in added else self.experts).variant(name, variant),
        )
        other = copy.copy(self)
        other.experts = merged
        return other

    def _set(
        self,
        experts: LazyBundles,
        gates: LazyBundles,
        refiners: LazyBundles,
        *,
        device: torch.device,
        broken: dict[str, Path] | None = None,
    ) -> None:
        self.experts, self.gates, self.refiners = experts, gates, refiners
        self.device, self.noise_estimator = device, NoiseEstimator()
        self._broken = {} if broken is None else broken
        self._missed: set[tuple[str, str]] = set()
        self._default_gate = next(iter(gates), bundles.DEFAULT_GATE)

    def __call__(
        self,
        volume: Volume,
        options: Options | None = None,
        *,
        progress: Callable[[int], None] | None = None,
        in_place: bool = False,
        **choices: Any,
    ) -> Restored:
        """Restore one image; geometry, unit and shape out equal those in.

        Args:
            volume: what to restore.
            options: see :class:`Options`; or give its fields by name: ``restorer(volume, strength=0.8)``.
            progress: called with 1 after each unit of :meth:`Plan.work_units`.
            in_place: put the restored pixels where those of ``volume`` were, which is then used up; a long series
                needs half the memory so.

        Raises:
            BundleError: an expert, the gate or a refiner that the options need is not there or does not fit.
            RefusedError: pixels are NaN or infinite, which networks would spread.
            TypeError: both ``options`` and its fields were given, or the image is no :class:`Volume`.
        """
        if options is not None and choices:
            raise TypeError(f"give options, or its fields by name, not both; got options and {sorted(choices)}")
        check_volume(volume)
        if not volume.is_finite:
            raise RefusedError("an image is of finite pixels, got NaN or infinite ones; fill them first")
        plan = self.plan(volume.modality, options or Options(**choices))
        return restore_volume(volume, plan, progress, in_place=in_place)

    def plan(self, modality: Modality, options: Options | None = None) -> Plan:
        """Which networks run on images of a modality, how often and how; they are loaded now.

        Raises:
            BundleError: one that is needed is not there, cannot be loaded or does not fit.
        """
        options = options or Options()
        gate, experts = None, {}
        names: tuple[str, ...]
        if options.expert is not None:
            expert = self.expert(options.expert)
            check_sigma(options, self.experts.sections)
            if expert.modality is not modality:
                raise BundleError(
                    f"{options.expert} is for {expert.modality.value if expert.modality else 'nothing'}, this image is "
                    f"{modality.value}; choose an expert of its modality, or leave the expert out"
                )
            names, experts = (options.expert,), {1: expert}
        else:
            gate = self.require_gate(options.gate)
            names, experts = classes_of(gate)[1:], self._called(gate, modality)
        refiner = None
        if options.refine:
            refiner = self.refiner(self.choose_refiner(modality, options.refiner, options.force_refiner))
            if options.upscale:
                check_upscale(refiner, modality)
            refiner.prepare()
        return Plan(
            modality=modality,
            options=options,
            gate=gate,
            classes=("identity", *names),
            experts=experts,
            refiner=refiner,
            passes=options.passes or (1 if options.expert else modality.profile.passes),
            device=self.device,
            noise_estimator=self.noise_estimator,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the default gate's classes, the identity first; the others are names of experts."""
        return classes_of(self.require_gate())

    @property
    def gate(self) -> Bundle | None:
        """The default gate, loaded; ``None`` where it is not installed."""
        return self.gates.get(self._default_gate)

    def require_gate(self, name: str | None = None) -> Bundle:
        """The gate of that name, by default :func:`monai_sasm.bundles.default_gate`, loaded.

        Raises:
            BundleError: there is none, or it is incomplete.
        """
        wanted = name or self._default_gate
        if wanted in self._broken:
            bundles.read_metadata(self._broken[wanted])  # says what is wrong with it
        if wanted not in self.gates:
            raise bundles.no_gate(wanted, self.gates)
        return self.gates[wanted]

    def expert(self, name: str, *, thinning: bool = False) -> Bundle:
        """The expert of that name, loaded.

        Args:
            name: of its bundle.
            thinning: its variant for planes across thick slices, where it has one: ``sasm.thinning`` of its metadata.

        Raises:
            BundleError: there is none, or it is incomplete.
        """
        if name in self._broken:
            bundles.read_metadata(self._broken[name])  # says what is wrong with it
        if name not in self.experts:
            raise no_such("expert", name, self.experts.sections)
        return self.experts.variant(name, self.experts.sections[name].get("thinning") if thinning else None)

    def refiner(self, name: str) -> Bundle:
        """The refiner of that name, loaded.

        Raises:
            BundleError: there is none, or it is incomplete.
        """
        if name not in self.refiners:
            raise no_such("refiner", name, self.refiners.sections)
        return self.refiners[name]

    def choose_refiner(self, modality: Modality, name: str | None = None, force: bool = False) -> str:
        """Name of the refiner for images of a modality; nothing is loaded.

        Args:
            modality: of the image.
            name: a certain refiner; by default the one whose metadata say ``default`` for this modality.
            force: take the named one although it is made for another modality.

        Raises:
            BundleError: there is none, or it is made for another modality and not forced.
        """
        return choose_refiner(self.refiners.sections, modality, name=name, force=force)

    def mismatch(self, modality: Modality | None, options: Options | Thinning) -> str | None:
        """Why images of a modality are passed over: a named expert or the refiner is for another one; else ``None``.

        Nothing is loaded. ``modality`` is ``None`` where the file does not say it.
        """
        return mismatch(self.experts.sections, self.refiners.sections, modality=modality, options=options)

    def check(self, options: Options | Thinning) -> None:
        """Load what the options name, so that what is wrong with it is said once and not for each image.

        Raises:
            BundleError: a bundle is missing or incomplete.
        """
        if options.expert is not None:
            self.expert(options.expert, thinning=isinstance(options, Thinning))
            check_sigma(options, self.experts.sections)
        else:
            self.require_gate(options.gate)
        if isinstance(options, Options) and options.refiner is not None:
            self.refiner(options.refiner)

    def _called(self, gate: Bundle, modality: Modality) -> dict[int, Bundle]:
        """Class index -> expert, of those a gate may call for a modality; one that is not there is left out."""
        experts: dict[int, Bundle] = {}
        for index, name in enumerate(classes_of(gate)):
            gone = index and name not in self.experts and name not in self._broken
            if gone and (gate.name, name) not in self._missed:
                self._missed.add((gate.name, name))  # told once, not for each image
                logger.warning(
                    "%s calls %s, which is not there: where that should act, others do or none; put it back, or "
                    "let the gate forget it by `sasm bundles remove %s`",
                    gate.name,
                    name,
                    name,
                )
            if index and name in self.experts and self.experts.modality(name) is modality:
                try:
                    experts[index] = self.experts[name]
                except (ValueError, ImportError, OSError, RuntimeError) as error:  # BundleError is a ValueError
                    reason = f"{name} cannot be loaded: {error}; repair the bundle, or name an expert"
                    raise BundleError(reason) from error
        return experts


def classes_of(gate: Bundle) -> tuple[str, ...]:
    """Names of a gate's classes, the identity first."""
    return cast(SpatialGate, gate.network).classes


def torch_device(name: str) -> torch.device:
    """The device of that name; ``auto`` becomes cuda, mps or cpu, whichever is there first.

    Raises:
        ValueError: it is not there.
    """
    present = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(name.split(":")[0], False):
        choices = ", ".join(one for one, there in present.items() if there)
        raise ValueError(f"device {name!r} is not there; choose one of {choices}")
    if name != "auto":
        try:
            device = torch.device(name)
        except RuntimeError:
            raise ValueError(f"device {name!r} is none; choose {name.split(':')[0]} or one by its number") from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {name!r} is not there; the last one is cuda:{torch.cuda.device_count() - 1}")
        return device
    return torch.device(next(one for one in ("cuda", "mps", "cpu") if present[one]))
