"""MONAI inferers that MONAI lacks: 2-D networks on stacks of slices and on photos of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from monai_sasm.functional.grey import to_grey
from monai_sasm.functional.neighbours import fit_neighbours, run_on_slices
from monai_sasm.functional.precision import reduced_precision
from monai_sasm.functional.tiling import Tile, tiled
from monai_sasm.restoration.coherence import coherent_distance
from monai_sasm.restoration.dispatch import gate_weights
from monai_sasm.restoration.shelter import run_sheltered, sheltered
from monai_sasm.transforms.slice_meta import slice_distance, slices_close, told_axis
from monai_sasm.types import Modality

Tiling = Callable[[int, int], Iterable[Tile]]


class SliceInferer(Inferer):
    """Runs a 2-D network on every slice, a few at a time, and large slices in tiles.

    MONAI's ``SliceInferer`` blends overlapping windows one slice at a time; here slices form the batch, and tiles are
    cut with a halo that is thrown away, so that no seam needs blending.

    Args:
        channels: 1 for CT and MR: every slice and time point is an image of its own. 3 for photos; grey ones are
            repeated to three channels and the result averaged.
        chunk: slices per network call.
        tiles: (height, width) -> tiles, see :func:`monai_sasm.functional.tiling.tiles`; ``None`` runs whole slices.
        neighbours: slices on each side that the network is shown where slices are close, see
            :mod:`monai_sasm.functional.neighbours`.
        precision: of the network, see :mod:`monai_sasm.functional.precision`.
        modality: of images that are no pictures: padding, constant background and values out of range are kept from the
            network and come back as they were, see :mod:`monai_sasm.restoration.shelter`. ``None`` shows all there is.
        noise_estimator: image -> noise map, for a network that takes one and has no ``noise_estimator`` of its own.
    """

    def __init__(
        self,
        channels: int = 1,
        chunk: int = 4,
        tiles: Tiling | None = None,
        neighbours: int = 0,
        precision: str = "float32",
        modality: Modality | None = None,
        noise_estimator: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if channels not in (1, 3) or chunk < 1 or neighbours < 0:
            raise ValueError(
                "channels must be 1 or 3, chunk at least 1 and neighbours not negative, "
                f"got channels={channels}, chunk={chunk}, neighbours={neighbours}"
            )
        self.channels, self.chunk, self.tiles, self.neighbours = channels, chunk, tiles, neighbours
        self.precision, self.modality, self.noise_estimator = precision, modality, noise_estimator

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Restore ``inputs`` ``(B, C, H, W)``, or ``(1, C, *spatial)`` with three spatial axes.

        The metadata tell which axis counts the slices (:mod:`monai_sasm.transforms.slice_meta`), else the last does.
        Shape and metadata are kept.
        """
        stack, restack = self._stack(inputs)
        near = self.neighbours if inputs.ndim == 5 and slices_close(inputs) else 0
        length = inputs.shape[2 + _slice_axis(inputs)] if near else 1
        run = partial(self._restore, network=partial(network, *args, **kwargs) if args or kwargs else network)
        slices = run_on_slices(run, stack, batch=self.chunk, neighbours=near, length=length)
        output = restack(torch.stack(list(slices)))
        return MetaTensor(output, meta=inputs.meta) if isinstance(inputs, MetaTensor) else output

    def _stack(self, inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Slices ``(N, c, H, W)`` and the way back to the shape of ``inputs``."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        if plain.ndim == 4:
            slices = plain if self.channels == 3 else plain.flatten(0, 1)[:, None]
            return slices, lambda result: result.reshape(plain.shape)
        if plain.ndim != 5 or len(plain) != 1 or self.channels == 3:
            raise ValueError(
                f"expected photos (B, C, H, W), or one volume (1, C, *spatial) with channels=1 and batch_size 1; "
                f"got {tuple(plain.shape)} with channels={self.channels}"
            )
        axis = _slice_axis(inputs) + 2
        moved = plain.movedim(axis, 2)  # (1, C, N, H, W)
        slices = moved.reshape(-1, 1, *moved.shape[3:])
        return slices, lambda result: result.reshape(moved.shape).movedim(2, axis)

    def _restore(self, images: Tensor, network: Callable[..., Tensor]) -> Tensor:
        own = getattr(network, "noise_estimator", None)
        if self.modality is not None and not self.modality.profile.is_picture:
            estimator = self.noise_estimator if own is None else own

            def run(shown: Tensor, seen: Tensor) -> Tensor:
                return self._tiled(network, shown, *(() if estimator is None else (estimator(seen),)))

            return run_sheltered(images, self.modality, run)
        grey = self.channels == 3 and images.shape[1] == 1
        shown = images.expand(-1, 3, -1, -1) if grey else images
        given = () if self.noise_estimator is None or own is not None else (self.noise_estimator(shown),)
        restored = self._tiled(network, shown, *given)
        return to_grey(restored) if grey else restored

    def _tiled(self, network: Callable[..., Tensor], *images: Tensor) -> Tensor:
        with reduced_precision(self.precision, images[0].device):
            result = tiled(network, *images, tiling=self.tiles)
        if result.dtype in (torch.bfloat16, torch.float16) and self.modality is not None:
            raise ValueError(
                f"the network gives images back in {result.dtype}, which rounds them to three digits: let it add a "
                "correction to the image in float32, or set precision to float32"
            )
        if result.shape[1] != self.channels:
            raise ValueError(f"the network must give images of {self.channels} channels, got {result.shape[1]}")
        return result.float()


class PipelineInferer(SliceInferer):
    """Runs gate, experts and mixing on a volume, so that no organ flickers, or on photos.

    The metadata tell the distance of slices (:mod:`monai_sasm.transforms.slice_meta`); else each is judged alone.

    Args:
        channels: see :class:`SliceInferer`.
        neighbours: likewise.
    """

    def __init__(self, channels: int = 1, neighbours: int = 0) -> None:
        super().__init__(channels, chunk=1, neighbours=neighbours)

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``network`` is a :class:`monai_sasm.restoration.network.Pipeline`; for the rest see :class:`SliceInferer`."""
        distance, coherent = _slice_distance(inputs), None
        if distance is not None:
            stack, _ = self._stack(inputs)
            coherent = network.coherent_weights(stack, count=inputs.shape[2 + _slice_axis(inputs)], distance=distance)
        if coherent is None:
            return super().__call__(inputs, network, *args, **kwargs)
        places = count()

        def run(slab: Tensor) -> Tensor:
            return network(slab, weights=coherent(next(places), fit_neighbours(slab, 0)))

        return super().__call__(inputs, run)


class WeightInferer(Inferer):
    """Runs a gate on every slice and gives mixing weights on the image's own grid.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``.
        noise_estimator: image -> noise map ``(B, 1, H, W)``, working scale.
        allowed: one entry per class, see :func:`monai_sasm.bundles.classes_for`.
        temperature: see :func:`monai_sasm.gate.routing.route`.
        floor: likewise.
    """

    def __init__(
        self,
        modality: str,
        noise_estimator: Callable[[Tensor], Tensor],
        allowed: Sequence[bool],
        temperature: float = 1.0,
        floor: float = 0.05,
    ) -> None:
        super().__init__()
        self.modality, self.noise_estimator = Modality(modality), noise_estimator
        self.allowed, self.temperature, self.floor = torch.tensor(allowed), temperature, floor

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Weights ``(1, E, T, *spatial)`` of one image ``(1, C, *spatial)`` in working scale.

        ``T`` is the number of time points (``C``) of CT and MR, and 1 for photos. The metadata tell
        which axis counts the slices (:mod:`monai_sasm.transforms.slice_meta`), else the last does.
        """
        photo = self.modality.profile.is_picture
        if len(inputs) != 1 or inputs.ndim not in (4, 5) or (inputs.ndim == 5 and photo):
            raise ValueError(
                "expected one photo (1, C, H, W) or one volume (1, C, *spatial) with two or three spatial axes; "
                f"got {tuple(inputs.shape)} for {self.modality.value}"
            )
        image = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs)[0]
        axis = 1 + _slice_axis(inputs)
        moved = image[None] if photo else image[:, None] if image.ndim == 3 else image.movedim(axis, 1)  # (T, N, H, W)
        slices = moved if photo else moved.reshape(-1, 1, *moved.shape[2:])
        weights = torch.cat([self._weights(one[None], network) for one in slices])
        if image.ndim == 3:
            return weights.movedim(0, 1)[None]
        grid = weights.reshape(*moved.shape[:2], *weights.shape[1:])  # (T, N, E, H, W)
        return grid.movedim(2, 0).movedim(2, axis + 1)[None]

    def _weights(self, image: Tensor, network: Callable[..., Tensor]) -> Tensor:
        """``(1, E, H, W)`` of one slice ``(1, C, H, W)``, of what a gate is shown in a restoration."""
        if not self.modality.profile.is_picture:
            image = sheltered(image, self.modality.profile).seen
        return gate_weights(
            image,
            self.noise_estimator(image),
            network,
            modality=self.modality,
            allowed=self.allowed,
            temperature=self.temperature,
            floor=self.floor,
        )


class ClassifyInferer(Inferer):
    """A classifier's scores ``(B, classes)`` instead of its image: calls ``network.classify``."""

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``inputs``: photos ``(B, 3, H, W)`` in [0, 1], or grey ones ``(B, 1, H, W)``."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        scores: Tensor = network.classify(plain.expand(-1, 3, -1, -1))
        return scores


def _slice_axis(inputs: Tensor) -> int:
    axis = told_axis(inputs)
    return 2 if axis is None else axis


def _slice_distance(inputs: Tensor) -> float | None:
    """mm, ``None`` where weights are not to be coherent."""
    return coherent_distance(slice_distance(inputs)) if inputs.ndim == 5 else None


class EnlargingInferer(Inferer):
    """Enlarges photos with a network's ``superresolve``, large ones in tiles.

    Args:
        factor: 2 or 4.
        steps: steps of sampling.
        eta: share of fresh noise per step.
        tiles: (height, width) of the small photo -> tiles, see :func:`monai_sasm.functional.tiling.tiles`; ``None``
            runs whole photos.
    """

    def __init__(
        self,
        factor: int = 4,
        steps: int | None = None,
        eta: float | None = None,
        tiles: Tiling | None = None,
    ) -> None:
        super().__init__()
        self.factor, self.steps, self.eta, self.tiles = factor, steps, eta, tiles

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``inputs`` ``(B, C, h, w)`` with 1 or 3 channels -> ``(B, C, h * factor, w * factor)``."""

        def enlarge(image: Tensor) -> Tensor:
            return network.superresolve(image, self.factor, steps=self.steps, eta=self.eta)

        return _in_colour(inputs, lambda image: tiled(enlarge, image, tiling=self.tiles, scale=self.factor))


class InpaintingInferer(Inferer):
    """Completes photos with a network's ``inpaint``, large ones in tiles.

    Args:
        steps: steps of sampling.
        eta: share of fresh noise per step.
        tiles: (height, width) -> tiles, see :func:`monai_sasm.functional.tiling.tiles`; ``None`` runs whole photos.
    """

    def __init__(
        self,
        steps: int | None = None,
        eta: float | None = None,
        tiles: Tiling | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.eta, self.tiles = steps, eta, tiles

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``inputs`` ``(B, C, H, W)`` with 1 or 3 channels and known pixels ``(B, 1, H, W)`` -> completed photos."""
        known = args[0] if args else kwargs["known"]

        def complete(image: Tensor, mask: Tensor) -> Tensor:
            return network.inpaint(image, mask, steps=self.steps, eta=self.eta)

        plain = known.as_tensor() if isinstance(known, MetaTensor) else known
        filled = _in_colour(inputs, lambda image: tiled(complete, image, plain, tiling=self.tiles))
        return torch.where(plain > 0.5, inputs, filled)  # the mean of three equal channels may differ in the last bit


def _in_colour(inputs: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """``run`` on photos with three channels; grey ones are repeated and the result averaged."""
    plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
    grey = plain.shape[1] == 1
    result = run(plain.expand(-1, 3, -1, -1) if grey else plain)
    result = to_grey(result) if grey else result
    return MetaTensor(result, meta=inputs.meta) if isinstance(inputs, MetaTensor) else result
