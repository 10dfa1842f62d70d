"""The judge: a frozen segmenter, trained on clean images only, and what it makes of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.context import Context, torch_device

Labels = NDArray[np.integer]
Regions = Mapping[str, NDArray[np.bool_]]
"""Name -> voxels ``(I, J, K)``; regions may lie in one another."""


@dataclass(frozen=True)
class Judge:
    """A segmenter as a function of arrays, prepared as its bundle prepares files.

    Args:
        network: ``(1, C, I, J, K) -> (1, classes, I, J, K)`` scores.
        prepare: MONAI transform of ``{"image": MetaTensor (C, I, J, K)}``; invertible.
        infer: MONAI inferer.
        names: channel of the scores -> region.
        exclusive: one class per voxel (argmax, the first channel is the background), or a yes or no for each channel.
        device: where the network is.
    """

    network: Any
    prepare: Any
    infer: Any
    names: tuple[str, ...]
    exclusive: bool
    device: Any = "cpu"

    def regions(self, image: NDArray[np.float32], affine: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
        """Segment ``(C, I, J, K)``, on its grid.

        Args:
            image: any intensity scale.
            affine: voxel index to RAS mm.
        """
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Invertd

        with torch.inference_mode():
            placed = MetaTensor(torch.from_numpy(np.ascontiguousarray(image)), affine=torch.as_tensor(affine))
            data = self.prepare({"image": placed})
            scores = self.infer(data["image"][None].as_tensor().to(self.device), self.network)[0].float().cpu()
            data["pred"] = MetaTensor(scores)  # a plain tensor would not be inverted
            invert = Invertd("pred", self.prepare, orig_keys="image", nearest_interp=False)
            scores = torch.as_tensor(invert(data)["pred"])
        if self.exclusive:
            winner = scores.argmax(0).numpy()
            return {name: winner == channel for channel, name in enumerate(self.names) if channel > 0}
        return {name: (scores[channel] > 0).numpy() for channel, name in enumerate(self.names)}


def judge(context: Context, bundle: str, names: Sequence[str], *, exclusive: bool, overlay: str | None = None) -> Judge:
    """The segmenter of a bundle, with the preprocessing and inferer of its ``inference.yaml``, less the reading.

    Args:
        context: hands over the network.
        bundle: name.
        names: see :class:`Judge`.
        exclusive: see :class:`Judge`.
        overlay: variant of the bundle.

    Raises:
        BundleError: no such bundle or variant, or no weights.
    """
    from monai.transforms import Compose

    from monai_sasm.bundles import available, inference_parser

    network = context.bundle(bundle, overlay).network
    parser = inference_parser(available()[bundle], overlay)
    reading = ("LoadImaged", "EnsureChannelFirstd")
    steps = [
        step for step in parser.get_parsed_content("preprocessing").transforms if type(step).__name__ not in reading
    ]
    return Judge(
        network,
        Compose(steps),
        parser.get_parsed_content("inferer"),
        names=tuple(names),
        exclusive=exclusive,
        device=torch_device(context.device),
    )


def agreement(found: Regions, truth: Regions, spacing: Sequence[float]) -> dict[str, float]:
    """Dice and 95 % Hausdorff distance of each region and their means.

    Args:
        found: regions of the segmenter.
        truth: regions drawn by people; the same names.
        spacing: size of a voxel along each axis, mm.

    Returns:
        ``Dice`` and ``HD95``, and ``Dice NAME`` and ``HD95 NAME``. A region that is in neither has Dice 1 and distance
        0; one that is in only one of them has Dice 0 and the diagonal of the image as distance.
    """
    scores: dict[str, float] = {}
    for name, region in truth.items():
        scores[f"Dice {name}"] = dice(found[name], region)
        scores[f"HD95 {name}"] = hausdorff_95(found[name], region, spacing)
    means = {kind: float(np.mean([scores[f"{kind} {name}"] for name in truth])) for kind in ("Dice", "HD95")}
    return means | scores


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """``2 |A and B| / (|A| + |B|)``; 1 when both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def hausdorff_95(found: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """The larger of the two directed 95 % percentiles of distances between surfaces, mm (MONAI's definition)."""
    if not found.any() and not truth.any():
        return 0.0
    if not found.any() or not truth.any():
        return float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    import torch
    from monai.metrics import compute_hausdorff_distance

    box = _around(found | truth)
    first, second = (torch.from_numpy(part[box])[None, None] for part in (found, truth))
    return float(compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=spacing))


def _around(region: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box of a region with a margin of one voxel: distances outside it are not asked for."""
    places = np.argwhere(region)
    low, high = np.maximum(places.min(0) - 1, 0), places.max(0) + 2
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
