"""What a restoration will do, resolved once: which networks run on an image of one modality, how often, how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from monai_sasm.bundles import Bundle
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.tiling import tiles
from monai_sasm.io.derivation import Derivation, summary_of
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.refinement import refined_derivation
from monai_sasm.types import Modality

_FEWEST, _MOST = 16, 64  # slices of a batch on other devices than a CPU
_AT_ONCE, _BYTES_PER_PIXEL = 5, 1024  # batches in its memory at a time, and what a pixel takes in the widest network


@dataclass(frozen=True)
class Plan:
    """Gate, experts and refiner for images of one modality; made by :meth:`Restorer.plan`.

    Args:
        modality: of the images.
        options: what the user chose.
        gate: gives the mixing weights; ``None`` where one named expert acts everywhere.
        classes: names of the classes of the weights, ``"identity"`` first.
        experts: class index -> expert of this modality; a class without one counts as the identity.
        refiner: ``None`` where nothing is refined.
        passes: how often gate and experts look at the image.
        device: of the networks.
        noise_estimator: image -> noise map.
    """

    modality: Modality
    options: Options
    gate: Bundle | None
    classes: tuple[str, ...]
    experts: Mapping[int, Bundle]
    refiner: Bundle | None
    passes: int
    device: torch.device
    noise_estimator: NoiseEstimator

    @property
    def neighbours(self) -> int:
        """How many slices on each side some expert looks at."""
        return max((expert.neighbours for expert in self.experts.values()), default=0)

    @property
    def scale(self) -> int:
        """How many times higher and wider the result is; 1 unless a refiner's larger photo is kept."""
        return self.refiner.scale if self.refiner is not None and self.options.upscale else 1

    @property
    def precision(self) -> str:
        """``float32``, or ``bfloat16`` where some expert runs in it; see :mod:`monai_sasm.functional.precision`."""
        reduced = any(expert.precision == "bfloat16" for expert in self.experts.values())
        return "bfloat16" if reduced else "float32"

    def batch(self, height: int, width: int) -> int:
        """Slices per network call: a GPU needs many, up to 64, as far as its free memory takes them; on a CPU more than
        one costs memory and gains nothing.
        """
        if self.device.type == "cpu":
            return 1
        if self.device.type != "cuda":
            return _FEWEST
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(_MOST, free // (_AT_ONCE * _BYTES_PER_PIXEL * height * width)))

    @property
    def models(self) -> dict[str, str]:
        """Bundle name -> sha256 of its weights, of all networks that may act."""
        return {bundle.name: bundle.sha256 for bundle in self._used}

    @property
    def _used(self) -> list[Bundle]:
        return [*self.experts.values(), *(one for one in (self.gate, self.refiner) if one is not None)]

    @property
    def derivation(self) -> Derivation:
        """What to write into the headers of the results."""
        from monai_sasm import __version__

        options = self.options
        chosen = {
            "expert": options.expert or "gate",
            "strength": options.strength,
            "top_k": options.top_k,
            "passes": options.passes,
            "sigma": options.sigma,
            "target_noise": options.target_noise,
            "refine": options.refine,
            "self_ensemble": options.self_ensemble if options.self_ensemble > 1 else None,
            "precision": self.precision,
        }
        parameters = {key: value for key, value in chosen.items() if value is not None}
        repairs = tuple(dict.fromkeys(one.degradation for _, one in sorted(self.experts.items()) if one.degradation))
        plain = Derivation(
            "monai_sasm",
            __version__,
            self.models,
            parameters,
            settings={bundle.name: bundle.settings for bundle in self._used},
            summary=summary_of(repairs),
            repairs=repairs,
        )
        if self.refiner is None:
            return plain
        return refined_derivation(plain, self.refiner, self.modality, options.upscale)

    def work_units(self, volume: Volume) -> int:
        """How often restoring ``volume`` calls ``progress``: slices times tiles times passes (at most)."""
        count, _, height, width = volume.slices_shape
        return count * len(tiles(height, width)) * self.passes

    def annotate(self, volume: Volume) -> Volume:
        """``volume`` with a note where a refiner did what its user should be reminded of."""
        if self.refiner is None:
            return volume
        done = self.derivation
        enlarged = (f"enlarged {self.scale} times by {self.refiner.name}",) if self.options.upscale else ()
        return replace(volume, notes=(*volume.notes, *enlarged, *((done.warning,) if done.warning else ())))
