"""Context: what every protocol is handed: data, output, experts, peers on or off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.scoring import Kept

if TYPE_CHECKING:
    from monai_sasm.restoration.restorer import Restorer

Image = NDArray[np.float32]
ImageFunction = Callable[[Image, "float | None"], Image]
"""(image ``(C, H, W)`` in working scale, noise level in that scale or None to have it estimated) -> image."""


@dataclass(frozen=True)
class Context:
    """Everything a protocol needs from outside.

    Args:
        data: data root.
        output: folder of JSON, Markdown and figures.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        limit: use only the first so many images (a quick look, flagged in the table).
        peers: run the methods of others.
        weights: further checkpoints, label -> state dict file (``raindrop-real`` reads ``pair0`` and ``pair1``).
        restorers: expert name -> restorer; taken instead of the shipped bundles when given (tests, trials).
        networks: the same for protocols that call a network's own methods: bundle, or ``bundle/overlay`` -> network.
    """

    data: Path
    output: Path
    device: str = "auto"
    limit: int | None = None
    peers: bool = True
    weights: Mapping[str, Path] = field(default_factory=dict)
    restorers: Mapping[str, ImageFunction] = field(default_factory=dict)
    networks: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def kept(self) -> Kept:
        """Peers' results of earlier runs: ``<output>/peers.json``."""
        return Kept(self.output / "peers.json")

    def expert(self, name: str, weights: Path | None = None) -> ImageFunction:
        """The expert of bundle ``name``, with its shipped weights or those of ``weights``."""
        if weights is None and name in self.restorers:
            return self.restorers[name]
        return bundle_restorer(name, self.device, weights)

    def network(self, name: str, overlay: str | None = None) -> Any:
        """The network of bundle ``name``, ready to run on :attr:`device`, for what is more than one image to another.

        Args:
            name: bundle.
            overlay: variant of the bundle, see :func:`monai_sasm.bundles.load`.

        Raises:
            BundleError: no such bundle or variant, or no weights.
        """
        from monai_sasm.bundles import load
        from monai_sasm.errors import BundleError

        key = name if overlay is None else f"{name}/{overlay}"
        if key in self.networks:
            return self.networks[key]
        if self.networks:
            raise BundleError(f"no network {key!r} among those handed over: {', '.join(sorted(self.networks))}")
        return load(name, torch_device(self.device), overlay=overlay).network

    @cached_property
    def restorer(self) -> Restorer | None:
        """The whole pipeline, or None where no gate is installed or restorers were handed over instead."""
        from monai_sasm.restoration.restorer import Restorer

        if self.restorers or self.networks:
            return None
        restorer = Restorer(self.device)
        return restorer if restorer.gate is not None else None

    def limited(self) -> tuple[str, ...]:
        """The flag that says that a limit was set, if one was."""
        return () if self.limit is None else (f"limited to the first {self.limit} images: not the protocol's number",)


def bundle_restorer(name: str, device: str = "auto", weights: Path | None = None) -> ImageFunction:
    """Wrap a bundle's network as a function of NumPy images."""
    import torch

    from monai_sasm.bundles import load

    place = torch_device(device)
    bundle = load(name, device=place)
    if weights is not None:
        state = torch.load(weights, map_location=place, weights_only=True)
        bundle.network.load_state_dict(state)

    def restore(image: Image, sigma: float | None = None) -> Image:
        batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(place)
        level = None if sigma is None else torch.full_like(batch[:, :1], sigma)
        return bundle.restore(batch, level)[0].float().cpu().numpy()

    return restore


def torch_device(name: str) -> str:
    """The device the house would take, as text."""
    from monai_sasm.restoration import restorer as restorer

    return str(restorer.torch_device(name))


def on_grey(restore: ImageFunction) -> ImageFunction:
    """A photo expert for grey images ``(1, H, W)``: grey is repeated to three channels, the results are averaged."""

    def grey(image: Image, sigma: float | None = None) -> Image:
        if image.shape[0] == 3:
            return restore(image, sigma)
        return restore(np.repeat(image, 3, axis=0), sigma).mean(0, keepdims=True)

    return grey


def self_ensemble(restore: ImageFunction) -> ImageFunction:
    """Mean over the eight flips and quarter turns (Timofte et al. 2016)."""

    def ensemble(image: Image, sigma: float | None = None) -> Image:
        total: Any = 0
        for turns in range(4):
            for flip in (False, True):
                turned = np.rot90(image, turns, axes=(-2, -1))
                turned = turned[..., ::-1] if flip else turned
                result = restore(np.ascontiguousarray(turned), sigma)
                result = result[..., ::-1] if flip else result
                total = total + np.rot90(result, -turns, axes=(-2, -1))
        return (total / 8).astype(np.float32)

    return ensemble
