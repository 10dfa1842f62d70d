"""A new expert joins: only the last, linear layer of the gate is fitted again, in seconds.

The trunk and everything up to :meth:`SpatialGate.features` stay as they are. Old classes are remembered by rehearsal:
feature vectors of the training examples with their soft targets, kept beside the gate's weights. New classes bring
example images. The head is then a multinomial logistic regression, a convex problem that L-BFGS solves exactly.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_sasm.bundles import (
    available,
    choose_default_gate,
    classes_for,
    default_gate,
    find_gate,
    read_metadata,
    user_folder,
)
from monai_sasm.bundles.checking import check_runs
from monai_sasm.bundles.copying import check_name, namesake
from monai_sasm.bundles.finding import beside
from monai_sasm.datasets.draws import process
from monai_sasm.datasets.images import paired
from monai_sasm.errors import BundleError
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.training.gate_bank import Example, GateBank
from monai_sasm.training.gate_copy import came_later, put, read_head, without, workshop, write_gate
from monai_sasm.training.logistic import minimise
from monai_sasm.types import Modality

REHEARSAL_COUNT = 5000  # feature vectors at most, about 1.5 MB as float16
DECAY = 1e-4  # L2 penalty on the head's weights, towards the old head
EXTENDED = "_extended"  # suffix of a gate that knows more experts than the one it was made from

logger = logging.getLogger(__name__)


class ExportRehearsal:
    """At the end of training, keep a sample of features, targets and class masks for later head fits.

    Args:
        gate: the trained network.
        bank: its examples.
        path: target file.
        count: feature vectors to keep, drawn evenly over the examples.
    """

    def __init__(self, gate: SpatialGate, bank: GateBank, path: str | Path, count: int = REHEARSAL_COUNT) -> None:
        self.gate, self.bank, self.path, self.count = gate, bank, Path(path), count

    def attach(self, engine: Engine) -> None:
        """Register on a trainer; in a distributed run, on that of the first process."""
        if process() == 0:
            engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        rehearsal = collect(self.gate, self.bank, self.count)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {key: value.half() if value.is_floating_point() else value for key, value in rehearsal.items()}, self.path
        )


def collect(gate: SpatialGate, bank: GateBank, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Sample ``count`` positions: ``features`` (n, F), ``target`` (n, E), ``allowed`` (n, E)."""
    generator = torch.Generator().manual_seed(seed)
    per_example = max(count // len(bank), 1)
    device = next(gate.parameters()).device
    rows: dict[str, list[Tensor]] = {"features": [], "target": [], "allowed": []}
    gate.eval()
    for item in (bank[index] for index in range(len(bank))):
        with torch.inference_mode():
            features = gate.features(item["display"][None].to(device), item["sigma"][None].to(device))[0].cpu()
        chosen = torch.randperm(features[0].numel(), generator=generator)[:per_example]
        rows["features"].append(features.flatten(1)[:, chosen].T)
        rows["target"].append(item["target"].flatten(1)[:, chosen].T)
        rows["allowed"].append(item["allowed"].expand(len(chosen), -1))
    return {key: torch.cat(values) for key, values in rows.items()}


def fit_head(rows: dict[str, Tensor], weight: Tensor, bias: Tensor, steps: int = 300) -> tuple[Tensor, Tensor]:
    """Logistic regression of soft targets on features, with classes masked per row.

    Args:
        rows: see :func:`collect`.
        weight: ``(E, F)`` start; also the point the L2 penalty pulls to, so old classes move no more than needed.
        bias: ``(E,)`` start.
        steps: most L-BFGS iterations.

    Returns:
        New weight and bias, float32.
    """
    features, target, weight, bias = (x.double() for x in (rows["features"], rows["target"], weight, bias))
    mean = features.mean(0)  # in double precision, or a constant feature would keep a trace of rounding
    # a feature that hardly varies here may vary elsewhere: rounding noise must not be blown up to a signal
    std = torch.maximum(features.std(0), 1e-3 * mean.abs()).clamp_min(1e-6)
    inputs, target = ((features - mean) / std).float(), target.float()
    forbidden = ~rows["allowed"]
    fitted, offset = minimise(
        lambda some, free: (inputs @ some.T + free).masked_fill(forbidden, -1e4),
        target,
        (weight * std).detach().float(),
        (bias + weight @ mean).detach().float(),
        decay=DECAY,
        steps=steps,
    )
    new_weight = fitted / std
    return new_weight.float(), (offset - new_weight @ mean).float()


def add_bundle(
    folder: Path,
    examples: Path,
    destination: Path | None = None,
    *,
    steps: int = 300,
    gate_name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Register an expert bundle and extend a gate by it: from a head that is fitted anew it knows when to call it.

    The gate that is extended stays as it is. The extended one has the suffix ``_extended`` and names the other in its
    metadata (``sasm.extends``); a gate that is itself an extended one is replaced. Where the default gate was extended,
    the extended one becomes the default, see :func:`monai_sasm.bundles.choose_default_gate`. An expert that was added
    before is learnt anew, and what the gate remembers of its earlier examples is dropped.

    Args:
        folder: the expert bundle; its name becomes the class name. Its config may run code.
        examples: pairs in ``<examples>/{clean,noisy}`` (same file names): what the expert repairs, and the same
            images without the fault.
        destination: where the bundle and the extended gate are put; by default the user's bundle folder, the only
            one that can choose the default gate.
        steps: most iterations of the fit.
        gate_name: which gate to extend; by default that of :func:`monai_sasm.bundles.default_gate`.
        overwrite: replace a bundle of that name in ``destination``; where an extension of the gate calls it already,
            that is the one which learns it anew.

    Returns:
        Folder of the extended gate.

    Raises:
        BundleError: the folder is no expert, or does not run, or the gate lacks its rehearsal file, or had a class of
            that name from its training.
        ValueError: a name that no bundle may have.
        FileExistsError: a bundle of that name is already there, or another extension of that gate.
    """
    folder, destination = Path(folder).resolve(), destination or user_folder()
    role = read_metadata(folder)["sasm"]["role"]
    if role != "expert":
        raise BundleError(f"{folder} has role {role!r}; only bundles with role 'expert' can be added")
    _check_free(destination / folder.name, overwrite=overwrite)
    installed = available(beside(destination))
    base = find_gate(installed, gate_name)
    if base is None:
        raise BundleError("no gate bundle is installed; name one by gate_name='NAME'")
    of_default = base == default_gate()
    if overwrite and _calls(destination / (base + EXTENDED), base, folder.name):
        base += EXTENDED  # the expert is replaced, and what calls it must learn it anew
    gate_root = installed[base]
    extended = _extended_name(base, gate_root, destination)
    old = read_head(gate_root)
    if folder.name in old.classes:
        if not came_later(gate_root, folder.name):
            raise BundleError(f"{base} was trained with a class {folder.name!r}; give the new expert another name")
        old = without(old, folder.name)
    check_runs(folder)  # once added, it would fail in every image that the gate calls it for
    modality = Modality(read_metadata(folder)["sasm"]["modality"])
    classes = (*old.classes, folder.name)
    same_modality = torch.tensor(classes_for(old.classes, modality.value, beside(destination)))
    source = _Examples(paired([examples], modality.value), modality, folder.name)
    bank = GateBank(
        [source], [len(source)], classes, {}, old.network.noise_estimator or NoiseEstimator(), augment=False
    )
    count = max(len(old.rows["allowed"]) // len(old.classes), 1000)
    rows = _joined(old.rows, collect(old.network, bank, count=count), same_modality)
    weight, bias = torch.cat([old.weight, torch.zeros(1, old.weight.shape[1])]), torch.cat([old.bias, torch.zeros(1)])
    weight, bias = fit_head(rows, weight, bias, steps)
    with workshop(destination) as work:  # both are whole before the first is put in its place
        write_gate(replace(old, classes=classes, weight=weight, bias=bias, rows=rows), gate_root, work / extended)
        shutil.copytree(folder, work / folder.name)
        put(work / folder.name, destination / folder.name)
        put(work / extended, destination / extended)
    if destination.resolve() == user_folder().resolve() and of_default:
        choose_default_gate(extended)
    logger.info("added %s; %s tells %d classes apart", folder.name, extended, len(classes))
    return destination / extended


def _check_free(place: Path, *, overwrite: bool) -> None:
    """Refuse the name of a bundle that is there already; one in ``place`` may be replaced."""
    check_name(place.name)
    for found in (available(), available(beside(place.parent))):
        known = namesake(place.name, found)
        if known is not None and known.resolve() != place.resolve():
            raise FileExistsError(f"a bundle named {known.name!r} exists already, {known}; rename the new one")
    if os.path.lexists(place) and not overwrite:
        raise FileExistsError(
            f"a bundle named {place.name!r} exists already; replace it by overwrite=True, or rename the new one"
        )


def _extended_name(base: str, root: Path, destination: Path) -> str:
    """Name of the extended gate; an extension is extended further in place, but never lost for another one."""
    if "extends" in read_metadata(root)["sasm"]:
        return base
    name = base + EXTENDED
    if (destination / name).exists():
        raise FileExistsError(f"{destination / name} exists already; extend it (gate_name='{name}'), or remove it")
    return name


def _calls(extension: Path, base: str, name: str) -> bool:
    """Whether there is such an extension of the gate ``base``, and an expert among its classes."""
    if not (extension / "configs" / "metadata.json").is_file():
        return False
    return read_metadata(extension)["sasm"].get("extends") == base and came_later(extension, name)


class _Examples:
    """The given pairs one after the other: each degraded image, then its clean partner."""

    def __init__(self, pairs: Sequence[tuple[object, ...]], modality: Modality, name: str) -> None:
        self.items = []
        for clean, noisy in pairs:
            clean_tensor, noisy_tensor = (torch.as_tensor(image).float() for image in (clean, noisy))
            for image, fault in ((noisy_tensor, 1.0), (clean_tensor, 0.0)):
                mask = torch.full((1, *image.shape[-2:]), fault)
                self.items.append(Example(clean_tensor, image, {name: mask}, modality))
        self.next = 0

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, generator: torch.Generator) -> Example:
        item = self.items[self.next % len(self.items)]
        self.next += 1
        return item


def _joined(old: dict[str, Tensor], new: dict[str, Tensor], same_modality: Tensor) -> dict[str, Tensor]:
    """Rehearsed and new rows; ``same_modality`` ``(E,)`` says which old classes may act on the new images."""
    return {
        "features": torch.cat([old["features"].float(), new["features"]]),
        "target": torch.cat([_widen(old["target"].float()), new["target"]]),
        "owner": torch.cat([old["owner"], torch.full((len(new["target"]),), old["target"].shape[1])]),
        "allowed": torch.cat(
            [
                _allow_new(old["allowed"], same_modality),
                torch.cat([same_modality, torch.ones(1, dtype=torch.bool)]).expand_as(new["allowed"]),
            ]
        ),
    }


def _widen(target: Tensor) -> Tensor:
    return torch.cat([target, target.new_zeros(len(target), 1)], 1)


def _allow_new(allowed: Tensor, same_modality: Tensor) -> Tensor:
    """Old examples of the new expert's modality must learn that it is not theirs."""
    concerned = allowed[:, 1:][:, same_modality[1:]].any(1)
    return torch.cat([allowed, concerned[:, None]], 1)
