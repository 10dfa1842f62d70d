"""A copy of a gate with other classes: its last layer, what it remembers, and the folder that it becomes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from monai_sasm.bundles import (
    DEFAULT_GATE,
    available,
    choose_default_gate,
    default_gate,
    gate_classes,
    load,
    read_metadata,
    readable_sections,
    user_folder,
)
from monai_sasm.bundles.finding import beside
from monai_sasm.errors import BundleError
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.io.commit import WORKING, move_folder
from monai_sasm.io.owned_folder import OwnedFolder

REHEARSAL_FILE = "rehearsal_features.pt"  # longer than model.pt: MONAI Label loads the shortest name in models/


@dataclass(frozen=True)
class GateHead:
    """A gate as far as new classes change it.

    Args:
        network: the trained gate.
        classes: identity and experts, E of them.
        weight: ``(E, F)`` of the last layer.
        bias: ``(E,)``.
        rows: ``features`` (n, F), ``target`` (n, E), ``allowed`` (n, E), and ``owner`` (n,), the class with which a row
            came; 0 for those of the gate's own training.
    """

    network: SpatialGate
    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    rows: dict[str, Tensor]


def read_head(root: Path) -> GateHead:
    """The head of a gate bundle.

    Raises:
        BundleError: it is no spatial gate, or its rehearsal file is missing.
    """
    path = root / "models" / REHEARSAL_FILE
    if not path.is_file():
        raise BundleError(f"{path} is missing; without it a new head would forget the old classes")
    network = load(root).network
    if not isinstance(network, SpatialGate):
        raise BundleError(f"{root.name} must be a SpatialGate")
    head = network.head
    bias = torch.zeros(head.out_channels) if head.bias is None else head.bias.detach()
    rows = torch.load(path, map_location="cpu", weights_only=True)
    rows = {"owner": torch.zeros(len(rows["target"]), dtype=torch.long)} | rows
    return GateHead(network, tuple(network.classes), head.weight[..., 0, 0].detach(), bias, rows)


def without(head: GateHead, name: str) -> GateHead:
    """The head without a class, and without what came with it; the others' rows stay as they are."""
    if name not in head.classes:
        return head
    column = head.classes.index(name)
    left = [index for index in range(len(head.classes)) if index != column]
    target, owner = head.rows["target"].float()[:, left], head.rows["owner"]
    mass = target.sum(1)
    kept = (owner != column) & (mass > 0)
    rows = {
        "features": head.rows["features"][kept],
        "target": target[kept] / mass[kept, None],
        "allowed": head.rows["allowed"][kept][:, left],
        "owner": owner[kept] - (owner[kept] > column).long(),
    }
    classes = tuple(head.classes[index] for index in left)
    less = replace(head, classes=classes, weight=head.weight[left], bias=head.bias[left], rows=rows)
    return without(less, name)  # version 0.2.0 could add a class twice


def write_gate(head: GateHead, root: Path, folder: Path) -> None:
    """A copy of the gate bundle ``root`` in a new folder, with another head."""
    shutil.copytree(root, folder)
    state = {key: _half(value) for key, value in head.network.state_dict().items()}
    # float32: the weight of a feature that hardly varies may be too large for float16
    state |= {"head.weight": head.weight[..., None, None].contiguous(), "head.bias": head.bias}
    torch.save(state, folder / "models" / "model.pt")
    torch.save({key: _half(value) for key, value in head.rows.items()}, folder / "models" / REHEARSAL_FILE)
    (folder / "configs" / "classes.json").write_text(json.dumps(head.classes, indent=2) + "\n", encoding="utf-8")
    metadata = read_metadata(folder)
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = len(head.classes)
    metadata["sasm"].setdefault("extends", root.name)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


@contextmanager
def workshop(destination: Path) -> Iterator[Path]:
    """A folder on the disk of ``destination`` in which bundles are put together; it vanishes with the block."""
    destination.mkdir(parents=True, exist_ok=True)
    with closing(OwnedFolder(destination, WORKING)) as own:
        yield own.path


def put(made: Path, place: Path) -> None:
    """Move a folder from the workshop to its place, in which a crash leaves the old or the new one."""
    move_folder(made, place, guard=lambda found: None)


def came_later(root: Path, name: str) -> bool:
    """Whether a gate knows a class that the one it extends does not know."""
    origin = available((root.parent,)).get(read_metadata(root)["sasm"].get("extends", ""))
    return origin is not None and name in gate_classes(root) and name not in gate_classes(origin)


def remove_bundle(name: str, destination: Path | None = None) -> list[str]:
    """Delete a bundle that was added, and take its class out of the extended gates beside it.

    An extended gate that knows no more than the one it extends is deleted, too. Where the default gate goes, the one
    that it extends is the default again.

    Args:
        name: of the bundle; one whose folder is gone already may still be a class of gates, or the default gate.
        destination: where it lies; by default the user's bundle folder.

    Returns:
        Names of the gates that changed or went.

    Raises:
        BundleError: there is no such bundle, and no gate knows it.
    """
    destination = destination or user_folder()
    here = {path.name: path for path in available(beside(destination)).values() if path.parent == destination}
    gates = [one for one, section in readable_sections(here).items() if section["role"] == "gate" and one != name]
    extended = [one for one in gates if came_later(here[one], name)]
    if name not in here and not extended and _is_default(name, destination):
        choose_default_gate(DEFAULT_GATE)
        return []
    if name not in here and not extended:
        raise BundleError(f"no bundle named {name!r} in {destination}; it has {', '.join(sorted(here)) or 'none'}")
    with workshop(destination) as work:
        for one in extended:  # first, for a gate must not call what is gone
            head = without(read_head(here[one]), name)
            origin = read_metadata(here[one])["sasm"]["extends"]
            if head.classes == tuple(gate_classes(available((destination,))[origin])):
                _leave(one, origin, destination)
                here[one].rename(work / f"{one}.old")
            else:
                write_gate(head, here[one], work / one)
                put(work / one, here[one])
        if name in here:
            _leave(name, read_metadata(here[name])["sasm"].get("extends", DEFAULT_GATE), destination)
            here[name].rename(work / f"{name}.old")
    return extended


def _leave(name: str, origin: str, destination: Path) -> None:
    """Where the gate ``name`` is the default, let the one it extends be that, or the shipped one."""
    if _is_default(name, destination):
        choose_default_gate(origin if origin in available() else DEFAULT_GATE)


def _is_default(name: str, destination: Path) -> bool:
    """Whether the choice of the user's bundle folder, ``destination``, is the gate ``name``."""
    return name != DEFAULT_GATE and destination.resolve() == user_folder().resolve() and default_gate() == name


def _half(value: Tensor) -> Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
