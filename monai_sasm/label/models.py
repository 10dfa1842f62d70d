"""What the server offers, found among the bundles by their role: restorers, segmenters, and one before the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_sasm.bundles import available, find_gate, read_metadata
from monai_sasm.errors import BundleError
from monai_sasm.types import Modality

log = logging.getLogger(__name__)
RESTORE_FIRST = "restore_then_"  # prefix of a segmenter that sees the restored image


@dataclass(frozen=True)
class Model:
    """One entry of the server's list of models.

    Args:
        name: what clients ask for.
        description: one line for the user.
        modality: of the images it takes.
        restores: whether the image is restored.
        expert: the only expert to apply; ``None`` leaves the choice to the gate.
        choices: experts that a client may name instead of the gate.
        segmenter: folder of the bundle that labels the image; ``None`` where the result is the image.
        labels: name -> value of the labels, without the background.
        channels: images in one input: 4 for the four contrasts of a brain tumour protocol.
    """

    name: str
    description: str
    modality: Modality
    restores: bool = True
    expert: str | None = None
    choices: tuple[str, ...] = ()
    segmenter: Path | None = None
    labels: dict[str, int] = field(default_factory=dict)
    channels: int = 1


def models(trust: Sequence[Path] = (), gate: str | None = None) -> list[Model]:
    """Everything that can be asked for; a bundle without its weights is left out, and the log says so.

    Args:
        trust: further folders of bundles; their configs may run code.
        gate: name of the gate; by default :func:`monai_sasm.bundles.default_gate`.

    Raises:
        BundleError: the gate that was named, or that the user made the default, is not there.
    """
    installed = available(trust)
    usable = {name: (root, metadata) for name, root in sorted(installed.items()) if (metadata := _usable(root))}
    experts: dict[Modality, list[str]] = {modality: [] for modality in Modality.known()}
    for name, (_, metadata) in usable.items():
        if metadata["sasm"]["role"] == "expert":
            experts[Modality(metadata["sasm"]["modality"])].append(name)
    gated = find_gate(installed, gate) in usable
    found = []
    for name, (root, metadata) in usable.items():
        role = metadata["sasm"]["role"]
        description = str(metadata.get("description", name))
        if role == "expert":
            found.append(Model(name, description, Modality(metadata["sasm"]["modality"]), expert=name))
        elif role == "pipeline" and gated:
            found += [_pipeline(name, modality, names) for modality, names in experts.items() if names]
        elif role == "segmenter":
            try:
                segmenter = _segmenter(name, root, metadata)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                log.warning("bundle left out: metadata.json of %s lacks or misstates %s", root.name, error)
                continue
            found.append(segmenter)
            if gated and experts[segmenter.modality]:
                found.append(_restored_first(segmenter, experts[segmenter.modality]))
    return found


def _usable(root: Path) -> dict[str, Any] | None:
    try:
        metadata = read_metadata(root)
    except BundleError as error:
        log.warning("bundle left out: %s", error)
        return None
    if metadata["sasm"]["role"] != "pipeline" and not (root / "models" / "model.pt").is_file():
        log.warning("bundle left out: %s has no models/model.pt", root.name)
        return None
    return metadata


def _pipeline(name: str, modality: Modality, experts: list[str]) -> Model:
    kind = modality.profile.images
    description = f"Gate, experts and mixing for {kind}: {', '.join(experts)}, each where it is needed."
    return Model(f"{name}_{modality.value.lower()}", description, modality, choices=tuple(experts))


def _segmenter(name: str, root: Path, metadata: dict[str, Any]) -> Model:
    data = metadata["network_data_format"]
    # a network of overlapping regions has channels that are no labels: then sasm.labels names the values of its result
    classes: dict[str, str] = metadata["sasm"].get("labels") or data["outputs"]["pred"].get("channel_def", {})
    labels = {label: int(value) for value, label in classes.items() if label.lower() != "background"}
    return Model(
        name,
        str(metadata.get("description", name)),
        Modality(metadata["sasm"]["modality"]),
        restores=False,
        segmenter=root,
        labels=labels,
        channels=int(data["inputs"]["image"]["num_channels"]),
    )


def _restored_first(segmenter: Model, experts: list[str]) -> Model:
    return Model(
        RESTORE_FIRST + segmenter.name,
        f"Restores the image, then: {segmenter.description}",
        segmenter.modality,
        choices=tuple(experts),
        segmenter=segmenter.segmenter,
        labels=segmenter.labels,
        channels=segmenter.channels,
    )
