"""Examples for the gate: images with known faults in known places, and what every expert makes of them.

Faults come from the degradation models, which give their masks for free, or from measured pairs. Experts are frozen,
so their outputs are computed once and kept (as float16) beside the example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from monai_sasm.bundles import Bundle, available, load
from monai_sasm.datasets.crops import CropDataset
from monai_sasm.datasets.draws import Draws, share
from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.degradations.mask import region_labels
from monai_sasm.gate.display import to_display
from monai_sasm.gate.mobilenet import STRIDE
from monai_sasm.types import Modality

FAINT = 0.05  # a fault whose mask is at most this is none


@dataclass(frozen=True)
class Example:
    """One image for the gate.

    Args:
        clean: ``(C, H, W)``, working scale.
        degraded: same shape.
        faults: class name -> where and how much, ``(1, H, W)`` in [0, 1], in the order in which the faults happened.
        modality: of the image.
        spread: class name -> pixels by which its target grows beyond what was changed visibly.
    """

    clean: torch.Tensor
    degraded: torch.Tensor
    faults: Mapping[str, torch.Tensor]
    modality: Modality
    spread: Mapping[str, int] = field(default_factory=dict)


class Source(Protocol):
    """Draws examples of one modality."""

    def draw(self, generator: torch.Generator) -> Example:
        """One random example."""


class DegradedSource:
    """Clean images spoiled on the fly, by any subset of the given faults, everywhere or in smooth random regions.

    Args:
        images: clean images ``(C, H, W)``, see :mod:`monai_sasm.datasets.images`.
        modality: their modality.
        faults: class name -> degradation, in the order in which they happen to an image (a raindrop is photographed
            before the sensor adds its noise).
        size: side of the crop in pixels.
        clean_share: share of examples without any fault.
        region_share: among the others, share whose faults fill only random regions.
        scale: factor from working scale to the unit of the degradations (1000 where they work in HU).
        tolerated: what is done to every example, the clean ones too, and does not count as a fault: the noise of a
            normal image.
        spread: class name -> pixels by which its target grows: the veil around a real drop reaches further than the
            drop that was drawn, and its expert does no harm there.
        min_std: crops that vary less are drawn again.
        grey: share of examples that are grey, with the same fault in every channel: scans and black-and-white photos.
        seed: seed of the crops.
    """

    def __init__(
        self,
        images: Sequence[NDArray[Any]],
        modality: str,
        faults: Mapping[str, DegradationModel],
        size: int = 224,
        clean_share: float = 0.25,
        region_share: float = 0.5,
        scale: float = 1.0,
        min_std: float = 0.0,
        tolerated: DegradationModel | None = None,
        spread: Mapping[str, int] | None = None,
        grey: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.crops = CropDataset(images, size, length=1, min_std=min_std, seed=seed)
        self.modality, self.faults, self.size = Modality(modality), dict(faults), size
        self.clean_share, self.region_share, self.scale = clean_share, region_share, scale
        self.tolerated, self.spread, self.grey = tolerated, dict(spread or {}), grey

    def draw(self, generator: torch.Generator) -> Example:
        """One crop with its faults."""
        clean = self.crops[0]["image"]
        grey = self.grey > 0 and float(torch.rand(1, generator=generator)) < self.grey
        if grey:
            clean = clean.mean(0, keepdim=True).expand_as(clean)
        if self.tolerated is not None:
            clean = _spoil(self.tolerated, clean[None] * self.scale, generator)[0][0] / self.scale
            clean = clean[:1].expand_as(clean) if grey else clean
        masks = {name: torch.zeros(1, self.size, self.size) for name in self.faults}
        if float(torch.rand(1, generator=generator)) < self.clean_share:
            return Example(clean, clean, masks, self.modality)
        chosen = self._choose(generator)
        regions = self._regions(len(chosen), generator)
        image = clean[None] * self.scale
        for position, name in enumerate(chosen):
            spoiled, mask = _spoil(self.faults[name], image, generator)
            if grey:
                spoiled = spoiled[:, :1].expand_as(spoiled)
            where = regions[:, position : position + 1]
            image = image + where * (spoiled - image)
            masks[name] = (where * mask)[0]
        return Example(clean, image[0] / self.scale, masks, self.modality, self.spread)

    def _choose(self, generator: torch.Generator) -> list[str]:
        names = list(self.faults)
        picked = [name for name in names if float(torch.rand(1, generator=generator)) < 0.6]
        return picked or [names[int(torch.randint(len(names), (1,), generator=generator))]]

    def _regions(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``(1, count, H, W)``: where each fault is let through; overlapping, with a clean rest."""
        if float(torch.rand(1, generator=generator)) >= self.region_share:
            return torch.ones(1, count, self.size, self.size)
        number = max(3, count + 1)
        labels = region_labels((1, 1, self.size, self.size), number, generator)
        partition = F.one_hot(labels[:, 0], number).movedim(-1, 1).float()  # (1, number, H, W)
        if float(torch.rand(1, generator=generator)) < 0.5:  # let the faults overlap in the last region
            partition = partition + partition[:, -1:]
        return partition[:, :count].clamp(0, 1)


class PairedSource:
    """Measured pairs: half of the examples are clean, half degraded; the noise ``noisy - clean`` is scaled.

    Patients and protocols differ in the noise of a normal image, and a few pairs do not show how far. A clean example
    therefore holds a little of its pair's noise, and a degraded one more or less than all of it.

    Args:
        pairs: ``(clean, noisy)`` arrays ``(C, H, W)``.
        modality: of the images.
        fault: class of the fault in the noisy images.
        tolerated: largest share of the noise that still counts as clean, 0 to 1.
        faulty: smallest and largest share of the noise that counts as the fault.
        size: side of the crop in pixels.
        min_std: crops that vary less are drawn again.
        grey: share of examples that are made grey.
        seed: seed of the crops.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[NDArray[Any], ...]],
        modality: str,
        fault: str,
        size: int = 224,
        min_std: float = 0.0,
        tolerated: float = 0.0,
        faulty: tuple[float, float] = (1.0, 1.0),
        grey: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= tolerated < faulty[0] <= faulty[1]:
            raise ValueError(f"needed: 0 <= tolerated < faulty range, got tolerated={tolerated}, faulty={faulty}")
        self.tolerated, self.faulty, self.grey = tolerated, faulty, grey
        self.crops = CropDataset(pairs, size, length=1, keys=("clean", "noisy"), min_std=min_std, seed=seed)
        self.modality, self.fault, self.size = Modality(modality), fault, size

    def draw(self, generator: torch.Generator) -> Example:
        """One crop, clean or degraded."""
        crop = self.crops[0]
        if self.grey and float(torch.rand(1, generator=generator)) < self.grey:
            crop = {key: image.mean(0, keepdim=True).expand_as(image) for key, image in crop.items()}
        faulty = float(torch.rand(1, generator=generator)) < 0.5
        low, high = self.faulty if faulty else (0.0, self.tolerated)
        share = low + (high - low) * float(torch.rand(1, generator=generator))
        degraded = crop["clean"] + share * (crop["noisy"] - crop["clean"])
        mask = torch.full((1, self.size, self.size), float(faulty))
        return Example(crop["clean"] if faulty else degraded, degraded, {self.fault: mask}, self.modality)


def _spoil(
    model: DegradationModel, image: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """``image`` ``(1, C, H, W)`` degraded by a fresh draw, and the mask of that draw."""
    params = model.draw((1, image.shape[1], image.shape[2], image.shape[3]), generator)
    return model.apply(image, params), params.mask


class GateBank(Dataset[dict[str, torch.Tensor]]):
    """Examples with expert outputs, in memory, ready for the gate.

    Args:
        sources: where examples come from.
        counts: how many from each source, over all processes of a distributed run.
        classes: the gate's classes; the first is the identity.
        experts: class name -> frozen expert, for the mixing loss; may lack some.
        noise_estimator: image -> noise map, as used at run time.
        seed: seed of the draws; the same seed gives the same bank, another one in each process of a distributed run.
        augment: flip at random when an item is asked for.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        counts: Sequence[int],
        classes: Sequence[str],
        experts: Mapping[str, Bundle],
        noise_estimator: Callable[[torch.Tensor], torch.Tensor],
        seed: int = 0,
        augment: bool = True,
    ) -> None:
        if len(sources) != len(counts):
            raise ValueError(f"one count per source is needed, got {len(counts)} counts for {len(sources)} sources")
        self.classes, self.experts, self.noise_estimator, self.augment = (
            tuple(classes),
            experts,
            noise_estimator,
            augment,
        )
        self.draws = Draws(seed)
        shares = [share(count) if count else 0 for count in counts]  # none is none, in every process
        drawn = [source for source, part in zip(sources, shares, strict=True) for _ in range(part)]
        self.items = [
            self._prepare(source.draw(self.draws.generator)) for source in tqdm(drawn, "gate examples", disable=None)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """``display`` (3, H, W), ``sigma`` (1, H, W), ``target`` (E, H/8, W/8) soft labels, ``allowed`` (E,) and, for
        the mixing loss, ``error`` (3, H, W) = degraded - clean and ``corrections`` (E, 3, H, W) of each class."""
        item = self.items[index]
        corrections = torch.zeros(len(self.classes), *item["error"].shape)
        for position, correction in zip(item["acting"].tolist(), item["outputs"], strict=True):
            corrections[position] = correction
        full = {key: item[key].float() for key in ("display", "sigma", "target", "error")} | {
            "corrections": corrections
        }
        if self.augment:
            dims = [dim for dim in (-2, -1) if float(torch.rand(1, generator=self.draws.generator)) < 0.5]
            whole = [dim for dim in dims if full["display"].shape[dim] % STRIDE == 0]  # else blocks would be cut anew
            full = {key: value.flip(whole) for key, value in full.items()}
        return full | {"allowed": item["allowed"]}

    def _prepare(self, example: Example) -> dict[str, torch.Tensor]:
        unknown = sorted(set(example.faults) - set(self.classes[1:]))
        if unknown:
            raise ValueError(f"faults must be classes of the gate {self.classes[1:]}, got {', '.join(unknown)}")
        degraded = example.degraded[None].float()
        sigma = self.noise_estimator(degraded)
        display, shown_sigma = to_display(degraded, sigma, example.modality)
        acting = [
            position
            for position, name in enumerate(self.classes)
            if name in self.experts and self.experts[name].modality is example.modality
        ]
        outputs = [self.experts[self.classes[position]].restore(degraded, sigma) - degraded for position in acting]
        allowed = torch.zeros(len(self.classes), dtype=torch.bool)
        allowed[[0, *acting, *(self.classes.index(name) for name in example.faults)]] = True
        shape = (3, *degraded.shape[-2:])
        return {
            "display": display[0].half(),
            "sigma": shown_sigma[0].half(),
            "target": self._target(example).half(),
            "allowed": allowed,
            "error": (example.degraded - example.clean).expand(shape).half(),
            "acting": torch.tensor(acting, dtype=torch.long),
            "outputs": torch.stack([output[0].expand(shape) for output in outputs]).half()
            if outputs
            else torch.zeros(0, *shape),
        }

    def _target(self, example: Example) -> torch.Tensor:
        """Share of each class in each 8x8 block, ``(E, H/8, W/8)``.

        A half-transparent drop is a whole fault: its expert, not the gate, knows how much of the picture shows through.
        Where two faults lie on one pixel the later one is repaired first: noise was added to the drop, and the second
        pass removes the drop from a picture without noise.
        """
        target = torch.zeros(len(self.classes), *example.degraded.shape[-2:])
        rest = torch.ones(example.degraded.shape[-2:])
        changed = (example.degraded - example.clean).abs().amax(0) > 0
        for name, mask in reversed(list(example.faults.items())):
            present = ((mask[0] > FAINT) & changed).float()
            reach = example.spread.get(name, 0)
            if reach:
                present = F.max_pool2d(present[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
            share = present * rest
            target[self.classes.index(name)] = share
            rest = rest - share
        target[0] = rest
        return F.avg_pool2d(target[None], STRIDE, ceil_mode=True)[0]


def frozen_experts(classes: Sequence[str], device: str = "cpu") -> dict[str, Bundle]:
    """The expert bundles behind the classes; a class whose bundle has no weights yet only gets supervision."""
    found = available()
    trained = [name for name in classes[1:] if name in found and (found[name] / "models" / "model.pt").is_file()]
    return {name: load(found[name], device) for name in trained}
