"""Context: what every protocol is handed: data, output, bundles, peers on or off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.evaluation.scoring import ResultCache

if TYPE_CHECKING:
    from monai_sasm.bundles import Bundle
    from monai_sasm.restoration.restorer import Restorer


LIMITED = "limited"  # folder below the results for runs on a few images


@dataclass(frozen=True)
class Context:
    """Everything a protocol needs from outside.

    Args:
        data: data root.
        output: folder of JSON, Markdown and figures.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        limit: use only the first so many images (a quick look, flagged in the table).
        peers: run the methods of others.
        weights: further checkpoints, ``LABEL`` or ``EXPERT/LABEL`` -> state dict file (``raindrop-real`` reads
            ``pair0`` and ``pair1``).
        cache_file: where peers' results are kept; ``<output>/peers.json`` by default.
        bundles: name, or ``name/overlay``, -> bundle; instead of the installed ones when given.
    """

    data: Path
    output: Path
    device: str = "auto"
    limit: int | None = None
    peers: bool = True
    weights: Mapping[str, Path] = field(default_factory=dict)
    cache_file: Path | None = None
    bundles: Mapping[str, Bundle] | None = None

    @cached_property
    def cache(self) -> ResultCache:
        """Peers' results of earlier runs."""
        return ResultCache(self.cache_file or self.output / "peers.json")

    @cached_property
    def restorer(self) -> Restorer:
        """Gate, experts and refiners as ``sasm restore`` opens them, or those of :attr:`bundles`."""
        from monai_sasm.restoration.restorer import Restorer

        if self.bundles is None:
            return Restorer(self.device)
        gate, expert, refiner = (
            {name: one for name, one in self.bundles.items() if one.role == role}
            for role in ("gate", "expert", "refiner")
        )
        return Restorer.of(expert, next(iter(gate.values()), None), refiner, device=torch_device(self.device))

    def bundle(self, name: str, overlay: str | None = None) -> Bundle:
        """A bundle, ready to run on :attr:`device`, for what is more than one image to another.

        Args:
            name: of the bundle.
            overlay: variant of the bundle, see :func:`monai_sasm.bundles.load`.

        Raises:
            BundleError: no such bundle or variant, or no weights.
        """
        from monai_sasm.bundles import load
        from monai_sasm.errors import BundleError

        if self.bundles is None:
            return load(name, torch_device(self.device), precision="auto", overlay=overlay)
        key = name if overlay is None else f"{name}/{overlay}"
        if key not in self.bundles:
            raise BundleError(f"no bundle {key!r} among those given: {', '.join(sorted(self.bundles)) or 'none'}")
        return self.bundles[key]

    def weights_of(self, expert: str) -> dict[str, Path]:
        """Label -> file of the further checkpoints of an expert: those labelled for it, and those for any."""
        owned = {key.rpartition("/")[::2]: path for key, path in self.weights.items()}
        return {label: path for (owner, label), path in owned.items() if owner in ("", expert)}

    @property
    def shared(self) -> Path:
        """Folder of what whole runs and those on a few images keep for one another."""
        return self.output.parent if self.output.name == LIMITED else self.output

    def aside(self) -> Context:
        """The same, writing to ``<output>/limited`` where a limit is set: a quick look replaces no numbers of a whole
        run.
        """
        if self.limit is None or self.output.name == LIMITED:
            return self
        kept = self.cache_file or self.output / "peers.json"
        return replace(self, output=self.output / LIMITED, cache_file=kept)

    def limited(self) -> tuple[str, ...]:
        """The flag that says that a limit was set, if one was."""
        return () if self.limit is None else (f"limited to the first {self.limit} images: not the protocol's number",)


def torch_device(name: str) -> Any:
    """The device on which restorers would run, see :func:`monai_sasm.restoration.restorer.torch_device`."""
    from monai_sasm.restoration.restorer import torch_device

    return torch_device(name)
