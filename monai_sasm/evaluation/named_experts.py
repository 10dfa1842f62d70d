"""Experts that a user names on the command line: shipped bundles, variants of them, and trusted folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.bundles import available, read_metadata
from monai_sasm.errors import BundleError
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.bundles import Bundle
    from monai_sasm.restoration.restorer import Restorer

_CONFIG = ("inference.yaml", "inference.json")


@dataclass(frozen=True)
class NamedExpert:
    """One expert to be measured; small, so that it can travel to other processes.

    Args:
        label: as printed; unique among those chosen together.
        root: its bundle's folder.
        overlay: variant of the bundle, see :func:`monai_sasm.bundles.load`.
    """

    label: str
    root: Path
    overlay: str | None = None

    @property
    def weights(self) -> Path:
        """The file of its weights, which may be missing."""
        return self.root / "models" / ("model.pt" if self.overlay is None else f"{self.overlay}_model.pt")

    @property
    def section(self) -> dict[str, Any]:
        """The ``sasm`` section of its metadata."""
        section: dict[str, Any] = read_metadata(self.root)["sasm"]
        return section

    @property
    def modality(self) -> Modality:
        """What it may be applied to."""
        return Modality(self.section["modality"])

    @property
    def degradation(self) -> str:
        """What it declares to repair."""
        return str(self.section["degradation"])

    def fingerprint(self) -> str:
        """sha256 over configuration, weights and the ``sasm`` section of the metadata: what a result with this expert
        depends on.
        """
        names = [*_CONFIG, *([f"{self.overlay}.yaml"] if self.overlay else ())]
        digest = hashlib.sha256(json.dumps(self.section, sort_keys=True, default=str).encode())
        for path in (*(self.root / "configs" / name for name in names), self.weights):
            if path.is_file():
                digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def load(self, device: str) -> Bundle:
        """The bundle, ready to run.

        Raises:
            BundleError: a file is missing, or the weights do not fit.
        """
        from monai_sasm.bundles import load

        return load(self.root, device, precision="auto", overlay=self.overlay)


def find_experts(names: Sequence[str], trust: Sequence[str | Path] = ()) -> list[NamedExpert]:
    """Find experts by name or folder.

    Args:
        names: bundle ``NAME`` or folder, or ``NAME/OVERLAY`` for a variant. One that is named twice is measured twice.
        trust: further folders of bundles, whose configuration may run code.

    Raises:
        BundleError: there is no such expert, its weights are missing, nobody vouched for its folder, two names mean one
            bundle, or the experts are for different modalities.
    """
    known = available(trust)
    found: list[NamedExpert] = []
    meant: dict[tuple[Path, str | None], str] = {}
    for name in names:
        one = _find(name, known, trust)
        if (earlier := meant.setdefault((one.root, one.overlay), name)) != name:
            raise BundleError(
                f"{earlier} and {name} are one bundle, {one.root}: what is trusted takes the place of what is "
                "installed under its name; rename it to compare the two"
            )
        role = one.section["role"]
        if role != "expert":
            raise BundleError(f"{name} is a {role}; only bundles with role 'expert' restore images")
        if not one.weights.is_file():
            raise BundleError(f"{one.weights} is missing; train {name}, or copy the trained file there")
        same = sum(one.label == other.label.split(" (")[0] for other in found)
        found.append(replace(one, label=f"{one.label} ({same + 1})") if same else one)
    modalities = dict.fromkeys(one.modality for one in found)
    if len(modalities) > 1:
        listed = ", ".join(f"{one.label} for {one.modality.value}" for one in found)
        raise BundleError(f"experts of one modality can be compared, got {listed}")
    return found


def open_restorer(experts: Sequence[NamedExpert], device: str) -> Restorer:
    """A restorer without a gate, whose experts are these, by label."""
    from monai_sasm.restoration.restorer import Restorer, torch_device

    place = torch_device(device)
    return Restorer.of({one.label: one.load(str(place)) for one in experts}, device=place)


def _find(name: str, known: dict[str, Path], trust: Sequence[str | Path]) -> NamedExpert:
    bundle, _, overlay = name.rpartition("/")
    if name in known:
        return NamedExpert(name, known[name].resolve())
    if bundle in known:
        return _variant(name, known[bundle], overlay)
    folder = Path(name)
    if _is_bundle(folder):
        return NamedExpert(folder.resolve().name, _vouched(folder, known, trust))
    if _is_bundle(folder.parent):
        parent = _vouched(folder.parent, known, trust)
        return _variant(f"{parent.name}/{folder.name}", parent, folder.name)
    experts = ", ".join(sorted(name for name, root in known.items() if _is_expert(root)))
    raise BundleError(f"no expert named {name!r}, and no such bundle folder; available: {experts or 'none'}")


def _variant(label: str, root: Path, overlay: str) -> NamedExpert:
    if not (root / "configs" / f"{overlay}.yaml").is_file():
        raise BundleError(f"{root.name} has no variant {overlay!r}: configs/{overlay}.yaml is missing")
    return NamedExpert(label, root.resolve(), overlay)


def _vouched(folder: Path, known: dict[str, Path], trust: Sequence[str | Path]) -> Path:
    """``folder`` itself, if it is an available bundle or lies in a trusted folder: loading a bundle can run code."""
    root = folder.resolve()
    if root not in {path.resolve() for path in known.values()} and not any(
        root.is_relative_to(Path(place).resolve()) for place in trust
    ):
        raise BundleError(f"a bundle's configuration can run code; pass trust=['{folder}'] if you trust who made it")
    return root


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "metadata.json").is_file()


def _is_expert(root: Path) -> bool:
    try:
        return bool(read_metadata(root)["sasm"]["role"] == "expert")
    except BundleError:
        return False
