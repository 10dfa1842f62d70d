"""A bundle folder becomes an expert, a gate or a segmenter; a missing piece is named.

Bundles shipped with the package are found by name; a bundle's config may hold code (MONAI's ``$`` expressions), so a
folder from elsewhere is loaded only when the caller hands it over explicitly.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from monai_sasm.errors import BundleError
from monai_sasm.types import Degradation, Modality

if TYPE_CHECKING:
    import torch
    from torch import nn

    from monai_sasm.refine.refiner import Refined, Refiner
    from monai_sasm.types import ImageBatch, NoiseMap

PACKAGE = Path(__file__).parent
PRECISIONS = ("float32", "bfloat16")
ROLES = ("classifier", "expert", "gate", "pipeline", "refiner", "segmenter")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: its network, ready to run, and what its metadata says about it.

    Args:
        name: folder name; for an expert also the name of its gate class.
        root: folder.
        role: one of :data:`ROLES`.
        modality: what it may be applied to; ``None`` for gates and pipelines, which serve all.
        degradation: what an expert repairs.
        noise_map: whether the network takes a noise map as second argument.
        version: the bundle's version.
        sha256: of the file of weights.
        network: in evaluation mode, on its device.
        metadata: the whole ``metadata.json``.
        precision: ``float32``, or ``bfloat16`` to run the network under autocast. Experts add their correction to the
            untouched image in float32, so only the correction is rounded, to about three digits.
    """

    name: str
    root: Path
    role: str
    modality: Modality | None
    degradation: Degradation | None
    noise_map: bool
    version: str
    sha256: str
    network: nn.Module
    metadata: dict[str, Any] = field(repr=False)
    precision: str = "float32"

    def restore(
        self, image: ImageBatch, sigma: NoiseMap | None = None, label: torch.Tensor | None = None
    ) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)`` in working scale; the contract of :class:`experts.expert.Expert`.

        A slice of CT or MR may come with more neighbours than the network looks at, see
        :mod:`monai_sasm.functional.neighbours`."""

        from monai_sasm.functional.neighbours import fit_neighbours

        if self.modality in (Modality.CT, Modality.MR) and image.shape[1] > 1:
            image = fit_neighbours(image, self.neighbours)
        arguments = (sigma,) if self.noise_map else ()
        keywords = {"label": label} if label is not None and self.metadata["sasm"].get("label") else {}
        with self._running(image) as laid_out:
            return self.network(laid_out, *arguments, **keywords).float()

    @property
    def neighbours(self) -> int:
        """How many slices on each side the network looks at beside the one it restores; 0 for most."""
        return int(getattr(self.network, "neighbours", 0))

    @property
    def samples(self) -> bool:
        """Whether the network draws samples, so that it can say by :meth:`uncertainty` how much they differ."""
        return hasattr(self.network, "uncertainty")

    def uncertainty(self, image: ImageBatch, sigma: NoiseMap | None = None) -> NoiseMap:
        """Standard deviation ``(B, 1, H, W)`` of restored images that fit, in working scale; arguments as for
        :meth:`restore`. It takes many times as long as restoring.
        """
        with self._running(image) as laid_out:
            spread: NoiseMap = cast(Any, self.network).uncertainty(laid_out, *((sigma,) if self.noise_map else ()))
            return spread.float()

    def refine(self, anchor: ImageBatch, source: ImageBatch | None = None) -> Refined:
        """Refined images and their trust; for refiners, see :class:`refine.refiner.Refiner`."""
        with self._running(anchor) as laid_out:
            return cast("Refiner", self.network).refine(laid_out, source)

    def enlarge(self, anchor: ImageBatch) -> ImageBatch:
        """Refined images ``sasm.scale`` times as high and wide; for refiners that enlarge."""
        with self._running(anchor) as laid_out:
            return cast(Any, self.network).enlarge(laid_out)

    @property
    def scale(self) -> int:
        """How many times higher and wider :meth:`enlarge` makes an image; 1 for most."""
        return int(self.metadata["sasm"].get("scale", 1))

    def prepare(self) -> None:
        """Have the network load what it keeps outside its bundle, to learn before any work whether it is there."""
        prepare = getattr(self.network, "prepare", None)
        if prepare is not None:
            prepare()

    @contextmanager
    def _running(self, image: ImageBatch) -> Iterator[ImageBatch]:
        import torch

        reduced = self.precision != "float32"
        with torch.inference_mode(), torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=reduced):
            # channels last: oneDNN's convolutions run 1.4 times as fast
            yield image.contiguous(memory_format=torch.channels_last)


def bundles_folder() -> Path:
    """Where the shipped bundles are: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE / "bundled"
    return installed if installed.is_dir() else PACKAGE.parent / "bundles"


def user_folder() -> Path:
    """Where ``sasm bundles add`` puts bundles: ``$SASM_BUNDLES``, else ``~/.local/share/monai_sasm/bundles``."""
    chosen = os.environ.get("SASM_BUNDLES")
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "monai_sasm" / "bundles"


def available(extra: Sequence[Path] = ()) -> dict[str, Path]:
    """Name -> folder of every bundle: shipped, then added by the user, then ``extra``; a later one replaces.

    Args:
        extra: further trusted folders, each a bundle or a folder of bundles.
    """
    found: dict[str, Path] = {}
    for folder in (bundles_folder(), user_folder(), *extra):
        candidates = [folder] if (folder / "configs").is_dir() else sorted(folder.glob("*")) if folder.is_dir() else []
        found |= {path.name: path for path in candidates if (path / "configs" / "metadata.json").is_file()}
    return found


def bundle_root(name: str) -> str:
    """Absolute path of the bundle ``name``, for ``bundle_root`` in its configs (which so run from any directory)."""
    return str(available().get(name, bundles_folder() / name))


def gate_classes(root: str) -> list[str]:
    """Class names of a gate or classifier, from its ``configs/classes.json``; a gate's first is the identity."""
    classes: list[str] = json.loads((Path(root) / "configs" / "classes.json").read_text(encoding="utf-8"))
    return classes


def classes_for(classes: Sequence[str], modality: str, extra: Sequence[Path] = ()) -> list[bool]:
    """Which gate classes may act on images of a modality: the identity, and the experts made for it.

    Args:
        classes: see :func:`gate_classes`.
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``.
        extra: further folders to look the experts up in, see :func:`available`.
    """
    found = available(extra)
    owners = [read_metadata(found[name])["sasm"].get("modality") if name in found else None for name in classes]
    return [index == 0 or owner == Modality(modality).value for index, owner in enumerate(owners)]


def read_metadata(root: Path) -> dict[str, Any]:
    """``configs/metadata.json`` of a bundle, with its ``sasm`` section checked.

    Raises:
        BundleError: the file or a required entry is missing, or has a value that is not allowed.
    """
    path = root / "configs" / "metadata.json"
    try:
        metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; a bundle needs configs/metadata.json") from error
    except json.JSONDecodeError as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from error
    section = metadata.get("sasm")
    if not isinstance(section, dict) or section.get("role") not in ROLES:
        raise BundleError(f"{path} needs a 'sasm' section whose 'role' is one of {ROLES}, got {section!r}")
    if section["role"] == "expert":
        _check_member(path, section, "modality", [member.value for member in Modality])
        _check_member(path, section, "degradation", [member.value for member in Degradation])
    return metadata


def load(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    extra: Sequence[Path] = (),
    precision: str = "float32",
    overlay: str | None = None,
) -> Bundle:
    """Build a bundle's network from ``configs/inference.yaml`` (or ``.json``) and load its weights.

    Args:
        name_or_path: name of an available bundle, or a trusted folder.
        device: where the network goes.
        extra: further folders to look the name up in, see :func:`available`.
        precision: ``float32`` or ``bfloat16``.
        overlay: a variant of the bundle: ``configs/<overlay>.yaml`` is laid over the configuration, and the weights
            are ``models/<overlay>_model.pt``.

    Raises:
        ValueError: another precision.
        BundleError: unknown name, missing file, or weights that do not fit the network.
    """
    import torch
    from monai.bundle import ConfigParser

    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    root = _find(name_or_path, extra)
    metadata = read_metadata(root)
    section = metadata["sasm"]
    config = next((path for path in map(root.joinpath, _INFERENCE_CONFIGS) if path.is_file()), None)
    if config is None:
        raise BundleError(f"{root} has none of {_INFERENCE_CONFIGS}; it cannot be used for inference")
    parser = ConfigParser()
    parser.read_config([str(path) for path in (config, *_overlay(root, overlay))])
    parser["bundle_root"] = str(root)
    network = parser.get_parsed_content("network_def")
    weights = root / "models" / ("model.pt" if overlay is None else f"{overlay}_model.pt")
    if not weights.is_file():
        raise BundleError(f"{weights} is missing; train it with configs/train.yaml or copy the trained file there")
    try:
        network.load_state_dict(_numbers(weights))
    except RuntimeError as error:
        raise BundleError(f"{weights} does not fit the network of {config.name}: {error}") from error
    network = network.eval().requires_grad_(False).to(device)
    if all(weight.ndim <= 4 for weight in network.parameters()):  # convolutions of volumes have no such order
        network = network.to(memory_format=torch.channels_last)
    return Bundle(
        name=root.name,
        root=root,
        role=section["role"],
        modality=Modality(section["modality"]) if section.get("modality") else None,
        degradation=Degradation(section["degradation"]) if section.get("degradation") else None,
        noise_map=bool(section.get("noise_map", False)),
        version=str(metadata.get("version", "0")),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        network=network,
        metadata=metadata,
        precision=precision,
    )


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
    return state


_INFERENCE_CONFIGS = ("configs/inference.yaml", "configs/inference.json")


def _overlay(root: Path, name: str | None) -> list[Path]:
    path = root / "configs" / f"{name}.yaml"
    if name is not None and not path.is_file():
        raise BundleError(f"{path} is missing; the bundle has no variant {name!r}")
    return [] if name is None else [path]


def _find(name_or_path: str | Path, extra: Sequence[Path]) -> Path:
    if isinstance(name_or_path, Path):
        return name_or_path.resolve()
    found = available(extra)
    if name_or_path not in found:
        raise BundleError(f"no bundle named {name_or_path!r}; available: {', '.join(sorted(found)) or 'none'}")
    return found[name_or_path].resolve()


def _check_member(path: Path, section: dict[str, Any], key: str, allowed: list[str]) -> None:
    if section.get(key) not in allowed:
        raise BundleError(f"{path}: sasm.{key} must be one of {allowed}, got {section.get(key)!r}")
