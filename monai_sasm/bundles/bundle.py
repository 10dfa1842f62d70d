"""A loaded bundle: a network ready to run, and what its metadata say about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.types import Modality

if TYPE_CHECKING:
    import torch
    from torch import nn

    from monai_sasm.refine.refiner import Refined, Refiner
    from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: its network, ready to run, and what its metadata says about it.

    Args:
        name: folder name; for an expert also the name of its gate class.
        root: folder.
        role: one of :data:`monai_sasm.bundles.metadata.ROLES`.
        modality: what it may be applied to; ``None`` for gates and pipelines, which serve all.
        degradation: what an expert repairs, in its own words: ``low-dose``, ``motion``, ...
        noise_map: whether the network takes a noise map as second argument.
        version: the bundle's version.
        sha256: of the file of weights.
        network: in evaluation mode, on its device.
        metadata: the whole ``metadata.json``.
        precision: ``float32``, or ``bfloat16`` to run the network under autocast. Experts add their correction to the
            untouched image in float32, so only the correction is rounded, to about three digits.
        config: sha256 of the files that describe the network, and of the classes of a gate.
    """

    name: str
    root: Path
    role: str
    modality: Modality | None
    degradation: str | None
    noise_map: bool
    version: str
    sha256: str
    network: nn.Module = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    precision: str = "float32"
    config: str = ""

    @property
    def settings(self) -> str:
        """Hexadecimal sha256 of what, beside the weights, decides what the network does: its configuration and the
        ``sasm`` section of its metadata (temperature, noise map, range, ...)."""
        section = json.dumps(self.metadata.get("sasm", {}), sort_keys=True, default=str)
        return hashlib.sha256(f"{self.config} {section}".encode()).hexdigest()

    def restore(
        self, image: ImageBatch, sigma: NoiseMap | None = None, label: torch.Tensor | None = None
    ) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)`` in working scale; the contract of :class:`experts.expert.Expert`.

        A slice of CT or MR may come with more neighbours than the network looks at, see
        :mod:`monai_sasm.functional.neighbours`.

        Raises:
            BundleError: the network fails, or gives back something else than an image of that shape, or values that are
                not finite.
        """
        from monai_sasm.functional.neighbours import fit_neighbours

        if self.modality is not None and self.modality.profile.channels == 1 and image.shape[1] > 1:
            image = fit_neighbours(image, self.neighbours)
        arguments = (sigma,) if self.noise_map else ()
        keywords = {"label": label} if label is not None and self.metadata["sasm"].get("label") else {}
        with self._running(image) as laid_out:
            return self._result(laid_out, *arguments, **keywords)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.network.parameters()).device

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
        :meth:`restore`. It takes many times as long as restoring, and is always in float32: small spreads of large
        values do not survive rounding.
        """
        with self._running(image, "float32") as laid_out:
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

    def _result(self, image: ImageBatch, *arguments: Any, **keywords: Any) -> ImageBatch:
        """What the network makes of an image, in float32. A network may be anybody's: a larger or another result must
        not be cut or broadcast to the image further on."""
        import torch

        try:
            result = self.network(image, *arguments, **keywords)
        except (BundleError, RefusedError):
            raise
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if "memory" in str(error):  # no fault of the network
                raise
            given = "(image, sigma)" if self.noise_map else "(image), for sasm.noise_map of its metadata is not true"
            raise BundleError(
                f"{self.name} fails on an image {tuple(image.shape)} ({type(error).__name__}): {error}; its "
                f"network_def is called with {given}"
            ) from error
        grey = self.modality is not None and self.modality.profile.channels == 1
        wanted = (len(image), 1 if grey else image.shape[1], *image.shape[-2:])
        if not isinstance(result, torch.Tensor) or result.shape != wanted:
            came = tuple(result.shape) if isinstance(result, torch.Tensor) else f"a {type(result).__name__}"
            raise BundleError(
                f"{self.name} must give an image back in its shape {wanted}, got {came}; mend its network_def"
            )
        if result.dtype != torch.float32 and self.metadata["sasm"].get("bfloat16"):
            raise BundleError(
                f"{self.name} gives its image back in {result.dtype}, which rounds it to three digits: let its network "
                "add a correction to the image in float32, or make sasm.bfloat16 of its metadata false"
            )
        # of a GPU the answer would have to be waited for; what is saved is looked at again
        if result.device.type == "cpu" and not torch.isfinite(result).all() and torch.isfinite(image).all():
            raise BundleError(f"{self.name} makes NaN or infinite values of a finite image; train its weights anew")
        return result.float()

    @contextmanager
    def _running(self, image: ImageBatch, precision: str | None = None) -> Iterator[ImageBatch]:
        import torch

        from monai_sasm.functional.precision import reduced_precision

        with torch.inference_mode(), reduced_precision(precision or self.precision, image.device):
            # channels last: oneDNN's convolutions run 1.4 times as fast
            yield image.contiguous(memory_format=torch.channels_last)
