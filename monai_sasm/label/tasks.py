"""A model as MONAI Label knows it: a task with a type, labels, parameters, and a result file."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from monai_sasm.label.jobs import Jobs
from monai_sasm.label.models import Model
from monai_sasm.label.requests import parameters
from monai_sasm.label.service import InferenceService


class ModelTask(InferTask):
    """Restores, labels, or restores and labels one image.

    A segmenter is an ordinary segmentation task, which 3D Slicer's MONAI Label module lists. An image is of the type
    that module does not list, because it would take it for labels; our own module does.

    Args:
        model: what it does.
        service: does it.
        jobs: one image at a time.
    """

    def __init__(self, model: Model, service: InferenceService, jobs: Jobs) -> None:
        kind = InferType.SEGMENTATION if model.segmenter else InferType.OTHERS
        super().__init__(kind, dict(model.labels), 3, model.description, parameters(model))
        self.model, self.service, self.jobs = model, service, jobs

    def info(self) -> dict[str, Any]:
        """MONAI Label's entries, and what kind of image comes in and goes out."""
        return super().info() | {
            "output_type": "labels" if self.model.segmenter else "image",
            "modality": self.model.modality.value,
            "unit": self.model.modality.profile.unit,
        }

    def is_valid(self) -> bool:
        """Models are made of bundles that are complete."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Answer a request; with ``background`` only start to, see :class:`monai_sasm.label.app.SasmApp`."""
        work = self.service.prepare(self.model, request)
        if request.get("background"):
            job = self.jobs.start(work)
            return None, {"job": job} | self.jobs.state(job)
        path, report = self.jobs.run(work)
        return str(path), report
