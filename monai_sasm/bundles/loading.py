"""From a bundle's folder to its network with its weights; a missing piece is named.

A bundle's config may hold code (MONAI's ``$`` expressions), so a folder from elsewhere is loaded only when the caller
hands it over explicitly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.bundles.asked_versions import newer_than_installed, tell_newer
from monai_sasm.bundles.bundle import Bundle
from monai_sasm.bundles.finding import available, shipped_folder
from monai_sasm.bundles.metadata import read_metadata
from monai_sasm.bundles.network import plain_network
from monai_sasm.bundles.shipped import compare
from monai_sasm.errors import BundleError, reason_of
from monai_sasm.optional import MissingExtraError
from monai_sasm.types import Modality

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser


def load(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    extra: Sequence[str | Path] = (),
    precision: str = "float32",
    overlay: str | None = None,
) -> Bundle:
    """Build a bundle's network from ``configs/inference.yaml`` (or ``.json``) and load its weights.

    Args:
        name_or_path: name of an available bundle, or a trusted folder.
        device: where the network goes.
        extra: further folders to look the name up in, see :func:`available`.
        precision: ``auto``, ``float32`` or ``bfloat16``, see :mod:`monai_sasm.functional.precision`.
        overlay: a variant of the bundle: ``configs/<overlay>.yaml`` is laid over the configuration, and the weights
            are ``models/<overlay>_model.pt``.

    Raises:
        ValueError: another precision.
        BundleError: unknown name, missing file, or weights that do not fit the network.
    """
    import torch

    from monai_sasm.functional.misfit import misfit
    from monai_sasm.functional.precision import resolve_precision

    wanted = resolve_precision(precision, device)
    root = _find(name_or_path, extra)
    metadata = read_metadata(root)
    shipped = root.parent == shipped_folder().resolve()
    if not shipped:  # those of this version are tested with all that it allows
        tell_newer(root, tuple(newer_than_installed(metadata)))
    section = metadata["sasm"]
    if precision == "auto" and not section.get("bfloat16", False):
        wanted = "float32"  # it may round the image itself
    network: Any = plain_network(_config(root), root) if overlay is None else None
    if not isinstance(network, torch.nn.Module):
        network = _built(inference_parser(root, overlay), root)
    weights = root / "models" / ("model.pt" if overlay is None else f"{overlay}_model.pt")
    if not weights.is_file():
        raise BundleError(f"{weights} is missing; train it with configs/train.yaml or copy the trained file there")
    state = _numbers(weights)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise BundleError(
            f"{weights} does not fit the network of {root.name}: {misfit(network, state)}; put the weights of this "
            f"network there, or give {_config(root)} the network_def that they were trained with"
        ) from None  # torch's error lists every weight
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if shipped:
        compare(weights, digest)
    network = network.eval().requires_grad_(False).to(device)
    if all(weight.ndim <= 4 for weight in network.parameters()):  # convolutions of volumes have no such order
        network = network.to(memory_format=torch.channels_last)
    return Bundle(
        name=root.name,
        root=root,
        role=section["role"],
        modality=Modality(section["modality"]) if section.get("modality") else None,
        degradation=section.get("degradation"),
        noise_map=bool(section.get("noise_map", False)),
        version=str(metadata.get("version", "0")),
        sha256=digest,
        network=network,
        metadata=metadata,
        precision=wanted,
        config=_config_digest(root, overlay),
    )


def _config_digest(root: Path, overlay: str | None) -> str:
    """sha256 of the files that describe what is run, in their order."""
    files = [_config(root), *_overlay(root, overlay), root / "configs" / "classes.json"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def inference_parser(root: Path, overlay: str | None = None) -> ConfigParser:
    """The inference configuration of a trusted bundle, nothing of it resolved yet, with its ``bundle_root``.

    Raises:
        BundleError: it is missing or no configuration, or there is no such overlay.
    """
    from monai.bundle import ConfigParser
    from yaml import YAMLError

    config = _config(root)
    files = [str(path) for path in (config, *_overlay(root, overlay))]
    parser = ConfigParser()
    try:
        parser.read_config(files)
        parser["bundle_root"] = str(root)
    except (ValueError, TypeError, AttributeError, RecursionError, YAMLError) as error:
        raise BundleError(f"{config} is no configuration of a bundle: {error}") from error
    return parser


def _built(parser: ConfigParser, root: Path) -> Any:
    """The network that a configuration describes.

    Raises:
        BundleError: it describes none.
        MissingExtraError: a library is missing.
    """
    from torch import nn

    try:
        network = parser.get_parsed_content("network_def")
    except MissingExtraError:
        raise
    except Exception as error:  # whatever a configuration of somebody else's provokes
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ImportError) and "pip install" in (reason := reason_of(cause)):
                raise MissingExtraError(reason) from error  # MONAI's networks want theirs when they are built
            cause = cause.__cause__
        raise BundleError(f"{_config(root)}: network_def cannot be built ({type(error).__name__}): {error}") from error
    if not isinstance(network, nn.Module):
        raise BundleError(f"{_config(root)}: network_def is a {type(network).__name__}, not a network")
    return network


def _numbers(weights: Path) -> dict[str, Any]:
    """A state dict from disk; a file that would run code on the way is refused, and so is one that is damaged."""
    import pickle

    import torch

    try:
        state: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BundleError(f"{weights} holds more than numbers, or is damaged; nothing of it was run") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{weights} cannot be read ({type(error).__name__}): get it again") from error
    if not isinstance(state, dict):
        raise BundleError(f"{weights} must hold a network's state_dict, got a {type(state).__name__}")
    return state


_INFERENCE_CONFIGS = ("configs/inference.yaml", "configs/inference.json")


def _config(root: Path) -> Path:
    config = next((path for path in map(root.joinpath, _INFERENCE_CONFIGS) if path.is_file()), None)
    if config is None:
        raise BundleError(f"{root} has none of {_INFERENCE_CONFIGS}; it cannot be used for inference")
    return config


def _overlay(root: Path, name: str | None) -> list[Path]:
    path = root / "configs" / f"{name}.yaml"
    if name is not None and not path.is_file():
        raise BundleError(f"{path} is missing; the bundle has no variant {name!r}")
    return [] if name is None else [path]


def _find(name_or_path: str | Path, extra: Sequence[str | Path]) -> Path:
    if isinstance(name_or_path, Path):
        return name_or_path.resolve()
    found = available(extra)
    if name_or_path not in found:
        raise BundleError(f"no bundle named {name_or_path!r}; available: {', '.join(sorted(found)) or 'none'}")
    return found[name_or_path].resolve()
