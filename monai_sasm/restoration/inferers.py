"""MONAI inferers that MONAI lacks: 2-D networks on stacks of slices and on photos of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from monai_sasm.functional.neighbours import slabs, taken


class SliceInferer(Inferer):
    """Runs a 2-D network on every slice, a few at a time, and large slices in tiles.

    MONAI's ``SliceInferer`` blends overlapping windows one slice at a time; here slices form the batch, and tiles are
    cut with a halo that is thrown away, so that no seam needs blending.

    Args:
        channels: 1 for CT and MR: every slice and time point is an image of its own. 3 for photos; grey ones are
            repeated to three channels and the result averaged.
        chunk: slices per network call.
        tiles: (height, width) -> tiles with ``core``, ``window`` and ``inner``, see
            :func:`monai_sasm.functional.tiling.tiles`; ``None`` runs whole slices.
        neighbours: slices on each side that the network is shown where ``inputs.meta["slices_close"]``, see
            :mod:`monai_sasm.functional.neighbours`.
    """

    def __init__(
        self,
        channels: int = 1,
        chunk: int = 4,
        tiles: Callable[[int, int], Iterable[Any]] | None = None,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        if channels not in (1, 3) or chunk < 1 or neighbours < 0:
            raise ValueError(
                "channels must be 1 or 3, chunk at least 1 and neighbours not negative, "
                f"got channels={channels}, chunk={chunk}, neighbours={neighbours}"
            )
        self.channels, self.chunk, self.tiles, self.neighbours = channels, chunk, tiles, neighbours

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Restore ``inputs`` ``(B, C, H, W)``, or ``(1, C, *spatial)`` with three spatial axes.

        The axis that counts the slices is ``inputs.meta["slice_axis"]`` (0, 1 or 2), the last one without it.
        Shape and metadata are kept.
        """
        stack, restack = self._stack(inputs)
        result = torch.empty_like(stack)
        near = self.neighbours if _slices_close(inputs) else 0
        around = slabs(stack, near, inputs.shape[2 + _slice_axis(inputs)] if near else 1)
        for start in range(0, len(stack), self.chunk):
            part = slice(start, start + self.chunk)
            result[part] = self._restore(taken(around, self.chunk), network, *args, **kwargs)
        output = restack(result)
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

    def _restore(self, images: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        grey = self.channels == 3 and images.shape[1] == 1
        images = images.expand(-1, 3, -1, -1) if grey else images
        if self.tiles is None:
            restored = network(images, *args, **kwargs)
        else:
            restored = torch.empty_like(images[:, : self.channels])
            for tile in self.tiles(*images.shape[-2:]):
                (rows, columns), (top, left), (inner_rows, inner_columns) = tile.window, tile.core, tile.inner
                window = network(images[..., rows, columns], *args, **kwargs)
                restored[..., top, left] = window[..., inner_rows, inner_columns]
        return restored.mean(1, keepdim=True) if grey else restored


class ClassifyInferer(Inferer):
    """A classifier's scores ``(B, classes)`` instead of its image: calls ``network.classify``."""

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``inputs``: photos ``(B, 3, H, W)`` in [0, 1], or grey ones ``(B, 1, H, W)``."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        scores: Tensor = network.classify(plain.expand(-1, 3, -1, -1))
        return scores


def _slice_axis(inputs: Tensor) -> int:
    meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
    axis = meta.get("slice_axis", 2)  # a batch's metadata are collated: one number per volume
    return int(torch.as_tensor(axis).flatten()[0])


def _slices_close(inputs: Tensor) -> bool:
    meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
    return inputs.ndim == 5 and bool(torch.as_tensor(meta.get("slices_close", False)).flatten()[0])


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
        tiles: Callable[[int, int], Iterable[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.factor, self.steps, self.eta, self.tiles = factor, steps, eta, tiles

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``inputs`` ``(B, C, h, w)`` with 1 or 3 channels -> ``(B, C, h * factor, w * factor)``."""

        def enlarge(image: Tensor) -> Tensor:
            return network.superresolve(image, self.factor, steps=self.steps, eta=self.eta)

        return _in_colour(inputs, lambda image: _tiled(enlarge, self.tiles, self.factor, image))


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
        tiles: Callable[[int, int], Iterable[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.eta, self.tiles = steps, eta, tiles

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``inputs`` ``(B, C, H, W)`` with 1 or 3 channels and known pixels ``(B, 1, H, W)`` -> completed photos."""
        known = args[0] if args else kwargs["known"]

        def complete(image: Tensor, mask: Tensor) -> Tensor:
            return network.inpaint(image, mask, steps=self.steps, eta=self.eta)

        plain = known.as_tensor() if isinstance(known, MetaTensor) else known
        filled = _in_colour(inputs, lambda image: _tiled(complete, self.tiles, 1, image, plain))
        return torch.where(plain > 0.5, inputs, filled)  # the mean of three equal channels may differ in the last bit


def _in_colour(inputs: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """``run`` on photos with three channels; grey ones are repeated and the result averaged."""
    plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
    grey = plain.shape[1] == 1
    result = run(plain.expand(-1, 3, -1, -1) if grey else plain)
    result = result.mean(1, keepdim=True) if grey else result
    return MetaTensor(result, meta=inputs.meta) if isinstance(inputs, MetaTensor) else result


def _tiled(
    run: Callable[..., Tensor], tiles: Callable[[int, int], Iterable[Any]] | None, factor: int, *images: Tensor
) -> Tensor:
    """``run`` on aligned images tile by tile; its result is ``factor`` times as high and wide."""
    if tiles is None:
        return run(*images)

    def times(where: slice) -> slice:
        return slice(where.start * factor, where.stop * factor)

    height, width = images[0].shape[-2:]
    result = images[0].new_empty(*images[0].shape[:2], height * factor, width * factor)
    for tile in tiles(height, width):
        (rows, columns), (inner_rows, inner_columns) = tile.window, tile.inner
        window = run(*(image[..., rows, columns] for image in images))
        top, left = map(times, tile.core)
        result[..., top, left] = window[..., times(inner_rows), times(inner_columns)]
    return result
