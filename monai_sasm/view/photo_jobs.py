"""Painted areas of a photo filled, or the photo enlarged, by the bundle that does both."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.formats import write
from monai_sasm.io.volume import Volume
from monai_sasm.view.studies import Study

if TYPE_CHECKING:
    from torch import Tensor

    from monai_sasm.bundles import Bundle
    from monai_sasm.functional.tiling import Tile
    from monai_sasm.restoration.restorer import Restorer

ENHANCER = "enhance_photo_diffusion"
FACTORS = (2, 4)
MAX_PIXELS = 16_000_000  # of an enlarged photo; a larger one takes many minutes, and no page shows it
_LARGE_TILE, _LARGE_HALO = 192, 32  # pixels of the small photo, as in superres.yaml


class Enlarging(Study):
    """A photo before, enlarged by bicubic interpolation, and after, by a network; ``choices["expert"]`` is its name.

    The part that is looked at comes first, as the preview of the whole: enlarged there, and interpolated elsewhere.

    Args:
        base: the study of the photo.
        factor: one of :data:`FACTORS`.
        view: what is looked at, (top, left, bottom, right) in pixels of the photo as stored; all of it if left out.
    """

    def __init__(self, base: Study, factor: int, view: tuple[float, float, float, float] | None = None) -> None:
        super().__init__(base.image, {"expert": f"enlarge-{factor}"})
        self._base, self._factor, self._view = base, factor, view
        self._parts: dict[tuple[int, int], NDArray[np.float32]] = {}  # first pixel of a tile -> what it became

    @property
    def reduction(self) -> int:
        """2, which here says only that there is a preview, where tiles lie outside the view."""
        every = self._tiles()
        return 2 if self._view and 0 < len([one for one in every if self._seen(one)]) < len(every) else 1

    def first_look(self) -> Volume:
        """The preview is as large as the whole."""
        return self.volume

    def read(self) -> Volume:
        """The photo, enlarged by interpolation.

        Raises:
            RefusedError: it would be too large.
        """
        import torch

        from monai_sasm.degradations.downsampling import upsample

        small = self._base.volume
        if small.array[0].size * self._factor**2 > MAX_PIXELS:
            raise RefusedError(
                f"photos are enlarged here up to {MAX_PIXELS / 1e6:g} million pixels; crop it, or use the bundle "
                f"{ENHANCER} on the command line"
            )
        large = upsample(torch.from_numpy(small.array)[None], self._factor)[0].clamp(0, 1).numpy()
        return small.enlarged(large)

    def target(self, output: Path) -> Path:
        """Beside the restored photo."""
        target = super().target(output)
        return target.with_name(f"{target.stem}_x{self._factor}{target.suffix}")

    def command(self, output: Path, strength: float) -> str:
        """`sasm enlarge`."""
        path = self.image.entry.paths[0]
        source = path.name if self.image.uploaded else str(path)
        return shlex.join(["sasm", "enlarge", source, "-o", str(output), "--factor", str(self._factor)])

    def prepare(self, restorer: Restorer) -> None:
        """Load the network."""
        if self.one is None:
            every, bundle = self._tiles(), restorer.expert(ENHANCER)
            seen = [one for one in every if self._seen(one)]
            what = f"enlarged {self._factor} times"
            self.preview = PhotoJob(self.volume, bundle, partial(self._enlarge, seen), what=what, units=len(seen))
            self.one = PhotoJob(self.volume, bundle, partial(self._enlarge, every), what=what, units=len(every))

    def _tiles(self) -> list[Tile]:
        from monai_sasm.functional.tiling import tiles

        height, width = self._base.volume.array.shape[1:]
        return tiles(height, width, tile=_LARGE_TILE, halo=_LARGE_HALO)

    def _seen(self, tile: Tile) -> bool:
        if self._view is None:
            return True
        (rows, columns), (top, left, bottom, right) = tile.core, self._view
        return rows.start < bottom and rows.stop > top and columns.start < right and columns.stop > left

    def _enlarge(
        self, which: list[Tile], bundle: Bundle, progress: Callable[[int], None] | None
    ) -> NDArray[np.float32]:
        """Tile by tile; what was done before somebody else was served is kept."""
        import torch

        from monai_sasm.functional.tiling import cut
        from monai_sasm.restoration.inferers import EnlargingInferer

        inferer = EnlargingInferer(self._factor)
        small = torch.from_numpy(self._base.volume.array)[None].to(bundle.device)
        result = self.volume.array.copy()
        for tile in which:
            place = tile.core[0].start, tile.core[1].start
            if place not in self._parts:
                with torch.inference_mode():
                    window = inferer(cut(small, tile.window), bundle.network)
                self._parts[place] = cut(window, self._times(tile.inner))[0].cpu().numpy().copy()
            rows, columns = self._times(tile.core)
            result[:, rows, columns] = self._parts[place]
            if progress is not None:
                progress(1)
        if len(which) == len(self._tiles()):
            self._parts.clear()
        return result

    def _times(self, where: tuple[slice, slice]) -> tuple[slice, slice]:
        rows, columns = (slice(self._factor * one.start, self._factor * one.stop) for one in where)
        return rows, columns


class Filling(Study):
    """A photo before and after its painted area was filled.

    Args:
        base: the study of the photo.
        known: ``(H, W)`` in stored order, ``False`` where it is painted over.
        name: by which the page calls it.
    """

    def __init__(self, base: Study, known: NDArray[np.bool_], name: str) -> None:
        super().__init__(base.image, {"expert": name})
        self._base, self._known = base, known

    @property
    def reduction(self) -> int:
        """No preview."""
        return 1

    def read(self) -> Volume:
        """The photo."""
        return self._base.volume

    def target(self, output: Path) -> Path:
        """Beside the restored photo."""
        target = super().target(output)
        return target.with_name(f"{target.stem}_filled{target.suffix}")

    def command(self, output: Path, strength: float) -> str:
        """Raises ValueError: there is none."""
        raise ValueError("what was painted by hand has no command line; save it here")

    def prepare(self, restorer: Restorer) -> None:
        """Load the network."""
        from monai_sasm.functional.tiling import tiles

        if self.one is None:
            height, width = self.volume.array.shape[1:]
            units = len(tiles(height, width))
            self.one = PhotoJob(self.volume, restorer.expert(ENHANCER), self._fill, what="completed", units=units)

    def _fill(self, bundle: Bundle, progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        import torch

        from monai_sasm.recipes.inference import tiling
        from monai_sasm.restoration.inferers import InpaintingInferer

        inferer = InpaintingInferer(tiles=tiling())
        known = torch.from_numpy(self._known.astype(np.float32))[None, None].to(bundle.device)
        photo = torch.from_numpy(self.volume.array)[None].to(bundle.device)
        network = _Told(bundle.network, lambda: progress and progress(1))
        with torch.inference_mode():
            return inferer(photo, network, known)[0].cpu().numpy()


class PhotoJob:
    """What :class:`monai_sasm.restoration.on_demand.OnDemand` is for restoring, for one photo.

    Args:
        before: what it is compared with.
        bundle: whose network runs.
        run: gives the result ``(c, H, W)``.
        what: was done, for headers.
        units: how often ``run`` tells of its progress.
    """

    def __init__(
        self,
        before: Volume,
        bundle: Bundle,
        run: Callable[[Bundle, Callable[[int], None] | None], NDArray[np.float32]],
        *,
        what: str,
        units: int,
    ) -> None:
        self.volume, self.units, self._bundle, self._run, self._what = before, units, bundle, run, what
        self._after: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return 1

    @property
    def done(self) -> list[int]:
        """``[0]`` when it is."""
        return [] if self._after is None else [0]

    def restore(self, index: int, progress: Callable[[int], None] | None = None) -> None:
        """Run the network."""
        self._after = self._run(self._bundle, progress)

    def change(self, index: int, strength: float = 1.0) -> NDArray[np.float32]:
        """What is added, ``(c, H, W)``."""
        if self._after is None:
            raise KeyError(index)
        return np.float32(strength) * (self._after - self.volume.array)

    def weights(self, index: int) -> dict[str, NDArray[np.uint8]]:
        """None: one network acts."""
        return {}

    def uncertainty(self, index: int) -> None:
        """Unknown."""
        return

    def notes(self, *indices: int) -> list[str]:
        """None."""
        return []

    def save(self, target: Path, strength: float, *, overwrite: bool = False) -> None:
        """Write the result; at strength 1 it is what the bundle writes."""
        from monai_sasm.restoration.pictures import picture_derivation

        parameters: dict[str, object] = {"expert": self._bundle.name} | (
            {"strength": strength} if strength != 1 else {}
        )
        derivation = picture_derivation(self._bundle, self._what, parameters)
        if strength == 1 and self._after is not None:  # to the last bit
            after = self._after
        else:
            after = self.volume.array + self.change(0, strength)
        write(self.volume.with_array(after), target, derivation, overwrite=overwrite)


class _Told:
    """A network that says when a tile is done, and passes over tiles in which nothing is to be filled."""

    def __init__(self, network: object, told: Callable[[], object]) -> None:
        self._network, self._told = network, told

    def inpaint(self, image: Tensor, known: Tensor, **options: object) -> Tensor:
        """As the network's; a tile that is known everywhere comes back as it is, as it would from there."""
        filled = image if bool((known > 0.5).all()) else self._network.inpaint(image, known, **options)  # type: ignore[attr-defined]
        self._told()
        return filled
