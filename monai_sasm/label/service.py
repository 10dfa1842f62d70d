"""Answers the requests for one server: reads the image, restores and labels it as a model says, writes the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.io.formats import inventory
from monai_sasm.io.volume import Volume
from monai_sasm.label.jobs import Progress, Result, Work
from monai_sasm.label.models import Model
from monai_sasm.label.requests import extension_of, options_of
from monai_sasm.label.results import check_extension, write_image, write_labels
from monai_sasm.label.segmenting import Segmenter
from monai_sasm.restoration.files import open_restorer
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer, torch_device
from monai_sasm.types import Modality


class InferenceService:
    """Networks, loaded when they are first needed and then kept.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        trust: further folders of bundles.
        gate: name of the gate; by default :func:`monai_sasm.bundles.default_gate`.
    """

    def __init__(
        self, device: str = "auto", precision: str = "auto", trust: Sequence[Path] = (), gate: str | None = None
    ) -> None:
        self.device, self.precision, self.trust, self.gate = device, precision, tuple(trust), gate
        self._restorers: dict[str | None, Restorer] = {}
        self._segmenters: dict[Path, Segmenter] = {}

    def prepare(self, model: Model, request: Mapping[str, Any]) -> Work:
        """Check a request and read its image; what it asks for is done when the answer is called.

        Args:
            model: what was asked for.
            request: ``image`` (a file or a folder) and parameters, see :mod:`monai_sasm.label.requests`.

        Raises:
            ValueError: the request or its image is refused; the message says why.
        """
        options, extension = options_of(model, request), extension_of(model, request)
        if options.expert is None:
            options = replace(options, gate=self.gate)
        volume = only_volume(Path(request["image"]), model.modality)
        if model.segmenter is None and not model.modality.profile.is_picture:
            check_extension(extension, model.modality, len(volume.array))

        def work(progress: Progress) -> Result:
            started = time.perf_counter()
            path, report = self._serve(model, volume, options, extension=extension, progress=progress)
            return path, report | {"latencies": {"total": round(time.perf_counter() - started, 2)}}

        return work

    def _serve(
        self, model: Model, volume: Volume, options: Options, *, extension: str | None, progress: Progress
    ) -> Result:
        report: dict[str, Any] = {"label_names": dict(model.labels), "notes": list(volume.notes), "models": {}}
        if model.restores:
            restorer = self._restorer(options)
            units = restorer.plan(volume.modality, options).work_units(volume)
            done = restorer(volume, options, progress=_counting(units, progress), in_place=True)
            made = done.derivation
            volume = done.volume
            report |= {
                "models": dict(made.models),
                "parameters": dict(made.parameters),
                "summary": done.summary,
                "notes": list(volume.notes),
            }
            if model.segmenter is None:
                report |= {"output_type": "image", "unit": volume.unit}
                return write_image(volume, extension, made), report
        segmenter = self._segmenter(model)
        labels, affine = segmenter(volume)
        report["models"] |= segmenter.models
        return write_labels(labels, affine, extension), report | {"output_type": "labels"}

    def _restorer(self, options: Options) -> Restorer:
        if options.expert not in self._restorers:
            needed = Options(expert=options.expert, gate=options.gate)
            self._restorers[options.expert] = open_restorer(
                self.device, self.precision, trust=self.trust, options=needed
            )
        return self._restorers[options.expert]

    def _segmenter(self, model: Model) -> Segmenter:
        if model.segmenter is None:
            raise BundleError(f"{model.name} has no segmenter; ask for one of the segmenters")
        if model.segmenter not in self._segmenters:
            self._segmenters[model.segmenter] = Segmenter(model.segmenter, torch_device(self.device))
        return self._segmenters[model.segmenter]


def only_volume(path: Path, modality: Modality) -> Volume:
    """The one image of a modality in a file, or in a folder of DICOM files.

    Raises:
        RefusedError: there is none, or more than one, or it cannot be read rightly.
    """
    entries = inventory(path, modality)
    usable = [entry for entry in entries if entry.refusal is None and entry.modality is modality]
    if len(usable) == 1:
        return usable[0].load()
    others = {entry.refusal or f"not a {modality.value} image" for entry in entries if entry not in usable}
    reasons = "; ".join(sorted(others))
    raise RefusedError(f"expected one {modality.value} image, found {len(usable)}. {reasons}".strip())


def _counting(units: int, progress: Progress) -> Any:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(min(1.0, done / units))

    return advance
