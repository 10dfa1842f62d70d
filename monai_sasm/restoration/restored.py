"""A restored volume with what was done to it, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.commit import guard_target
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import target_for, write
from monai_sasm.io.placing import place, staged
from monai_sasm.io.volume import Volume, files_of
from monai_sasm.restoration.maps import write_maps
from monai_sasm.restoration.plan import Plan


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored volume with what was done to it.

    Args:
        volume: same geometry, header and unit as the input; larger with ``upscale``, and the maps with it.
        plan: the networks and options that made it.
        weights: class name -> ``(N, H, W)`` weight of each pixel in each slice (later passes as ``"name, pass 2"``);
            empty unless ``keep_maps``.
        change: ``(N, H, W)`` restored minus input, in the volume's unit, mean over colours; ``None`` unless
            ``keep_maps``.
        summary: mean weight per expert, median noise estimate before and after in the volume's unit, passes, seconds,
            mean trust.
        trust: ``(N, H, W)`` share of the refiner's change that was used, before its strength; ``None`` unless
            ``keep_maps`` and refined.
        uncertainty: ``(N, H, W)`` standard deviation of what a named expert that draws samples might have restored, in
            the volume's unit; ``None`` unless ``keep_maps`` and such an expert.
        changed: whether any pixel was changed.
    """

    volume: Volume
    plan: Plan
    weights: dict[str, NDArray[np.float32]]
    change: NDArray[np.float32] | None
    summary: dict[str, Any]
    trust: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None
    changed: bool = True

    def __repr__(self) -> str:
        """The image and what was done to it, on one line."""
        maps = ["weights"] * bool(self.weights)
        maps += [name for name in ("change", "trust", "uncertainty") if getattr(self, name) is not None]
        done = {"changed": self.changed, "weights": self.summary.get("weights"), "maps": maps}
        return f"Restored({self.volume!r}, {', '.join(f'{name}={value}' for name, value in done.items())})"

    @property
    def derivation(self) -> Derivation:
        """What was done, as the headers of a result say it; that nothing was, where no pixel was changed."""
        return self.plan.derivation if self.changed else self.plan.derivation.unchanged

    def save(self, path: str | Path, *, overwrite: bool = False, keep_private: bool = False) -> list[Path]:
        """Write the volume, and its maps where ``keep_maps`` was chosen.

        Args:
            path: a folder, in which the result gets the name of its source; or a file name such as ``a/b.nii.gz``.
                A DICOM series becomes a folder of its own.
            overwrite: replace what is there; a source is never replaced.
            keep_private: keep the private tags of DICOM sources, which may hold patient data.

        Returns:
            The files, those of the image first.

        Raises:
            FileExistsError: something is there already and ``overwrite`` is off; nothing was written.
            ValueError: the path is the source, or its suffix is that of another kind of image.
        """
        files, maps = self.save_as(target_for(self.volume, Path(path)), overwrite=overwrite, keep_private=keep_private)
        return [*files, *maps]

    def save_as(
        self, target: Path, *, overwrite: bool = False, keep_private: bool = False
    ) -> tuple[list[Path], list[Path]]:
        """Write to exactly this file, or folder for a DICOM series; the files of the image, and those of its maps.

        The maps are written aside first: one that cannot be written, or would replace something, leaves no half result.
        """
        with staged(target.parent, files_of(self.volume)) as aside:
            maps = [target.with_name(path.name) for path in write_maps(self, aside / target.name)]
            for path in maps:
                guard_target(path, overwrite=overwrite)
            files = write(self.volume, target, self.derivation, overwrite=overwrite, keep_private=keep_private)
            place(aside, target.parent, overwrite=overwrite, ours=lambda _: False)
        return files, maps
