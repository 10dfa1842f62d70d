"""A new expert joins: only the last, linear layer of the gate is fitted again, in seconds.

The trunk and everything up to :meth:`SpatialGate.features` stay as they are. Old classes are remembered by rehearsal:
feature vectors of the training examples with their soft targets, kept beside the gate's weights. New classes bring
example images. The head is then a multinomial logistic regression, a convex problem that L-BFGS solves exactly.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
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
    load,
    read_metadata,
    user_folder,
)
from monai_sasm.datasets.draws import process
from monai_sasm.datasets.images import paired
from monai_sasm.errors import BundleError
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.training.gate_bank import Example, GateBank
from monai_sasm.types import Modality

REHEARSAL_FILE = "rehearsal_features.pt"  # longer than model.pt: MONAI Label loads the shortest name in models/
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
    start = (weight * std).detach().float()
    fitted = start.clone().requires_grad_()
    offset = (bias + weight @ mean).detach().float().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([fitted, offset], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = (inputs @ fitted.T + offset).masked_fill(forbidden, -1e4)
        value = -(target * torch.log_softmax(logits, 1)).sum(1).mean() + DECAY * (fitted - start).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    new_weight = (fitted / std).detach()
    return new_weight.float(), (offset - new_weight @ mean).detach().float()


def add_bundle(
    folder: Path, examples: Path, destination: Path | None = None, steps: int = 300, gate_name: str | None = None
) -> Path:
    """Register an expert bundle and extend a gate by it: from a head that is fitted anew it knows when to call it.

    The gate that is extended stays as it is. The extended one has the suffix ``_extended`` and names the other in its
    metadata (``sasm.extends``); a gate that is itself an extended one is replaced. Where the default gate was extended,
    the extended one becomes the default, see :func:`monai_sasm.bundles.choose_default_gate`.

    Args:
        folder: the expert bundle; its name becomes the class name. Its config may run code.
        examples: pairs in ``<examples>/{clean,noisy}`` (same file names): what the expert repairs, and the same
            images without the fault.
        destination: where the bundle and the extended gate are put; by default the user's bundle folder, the only
            one that can choose the default gate.
        steps: most iterations of the fit.
        gate_name: which gate to extend; by default that of :func:`monai_sasm.bundles.default_gate`.

    Returns:
        Folder of the extended gate.

    Raises:
        BundleError: the folder is no expert, or the gate lacks its rehearsal file.
        FileExistsError: a bundle of that name is already there, or another extension of that gate.
    """
    folder, destination = Path(folder).resolve(), destination or user_folder()
    role = read_metadata(folder)["sasm"]["role"]
    if role != "expert":
        raise BundleError(f"{folder} has role {role!r}; only bundles with role 'expert' can be added")
    target = destination / folder.name
    if target.exists() or folder.name in available():
        raise FileExistsError(f"a bundle named {folder.name!r} exists already; remove it or rename the new one")
    installed = available((destination,))
    base = find_gate(installed, gate_name)
    if base is None:
        raise BundleError("no gate bundle is installed; name one by gate_name='NAME'")
    gate_root = installed[base]
    extended = _extended_name(base, gate_root, destination)
    rehearsal_path = gate_root / "models" / REHEARSAL_FILE
    if not rehearsal_path.is_file():
        raise BundleError(f"{rehearsal_path} is missing; without it a new head would forget the old classes")
    expert, network = load(folder), load(gate_root).network
    if expert.modality is None or not isinstance(network, SpatialGate):
        raise BundleError(f"{folder.name} must name its modality, and {base} must be a SpatialGate")
    old = torch.load(rehearsal_path, map_location="cpu", weights_only=True)
    classes = (*network.classes, folder.name)
    same_modality = torch.tensor(classes_for(network.classes, expert.modality.value, (destination,)))
    source = _Examples(paired([examples], expert.modality.value), expert.modality, folder.name)
    estimator = network.noise_estimator or NoiseEstimator()
    bank = GateBank([source], [len(source)], classes, {}, estimator, augment=False)
    new = collect(network, bank, count=max(len(old["allowed"]) // len(network.classes), 1000))
    rows = _joined(old, new, same_modality)
    weight = torch.cat([network.head.weight[..., 0, 0], torch.zeros(1, network.head.in_channels)]).detach()
    bias = torch.cat([_bias(network), torch.zeros(1)])
    weight, bias = fit_head(rows, weight, bias, steps)
    _publish(folder, gate_root, destination / extended, classes, network, weight, bias, rows)
    if destination.resolve() == user_folder().resolve() and base == default_gate():
        choose_default_gate(extended)
    logger.info("added %s; %s tells %d classes apart", folder.name, extended, len(classes))
    return destination / extended


def _extended_name(base: str, root: Path, destination: Path) -> str:
    """Name of the extended gate; an extension is extended further in place, but never lost for another one."""
    if "extends" in read_metadata(root)["sasm"]:
        return base
    name = base + EXTENDED
    if (destination / name).exists():
        raise FileExistsError(f"{destination / name} exists already; extend it (gate_name='{name}'), or remove it")
    return name


def _bias(network: SpatialGate) -> Tensor:
    bias = network.head.bias
    return torch.zeros(network.head.out_channels) if bias is None else bias.detach()


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


def _publish(
    folder: Path,
    gate_root: Path,
    final: Path,
    classes: Sequence[str],
    network: SpatialGate,
    weight: Tensor,
    bias: Tensor,
    rows: dict[str, Tensor],
) -> None:
    """Write the expert and the new gate beside each other; complete folders are moved into place at the end."""
    destination = final.parent
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination) as temporary:
        work = Path(temporary) / final.name
        shutil.copytree(gate_root, work)
        state = {key: _half(value) for key, value in network.state_dict().items()}
        # float32: the weight of a feature that hardly varies may be too large for float16
        state |= {"head.weight": weight[..., None, None].contiguous(), "head.bias": bias}
        torch.save(state, work / "models" / "model.pt")
        torch.save({key: _half(value) for key, value in rows.items()}, work / "models" / REHEARSAL_FILE)
        (work / "configs" / "classes.json").write_text(json.dumps(list(classes), indent=2) + "\n", encoding="utf-8")
        metadata = read_metadata(work)
        metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = len(classes)
        metadata["sasm"].setdefault("extends", gate_root.name)
        (work / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        expert = Path(temporary) / folder.name
        shutil.copytree(folder, expert)
        expert.rename(destination / folder.name)
        if final.exists():
            final.rename(Path(temporary) / "previous")
        work.rename(final)


def _half(value: Tensor) -> Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
