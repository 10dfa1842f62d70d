"""What a request says: options of the restoration, the expert to use, the file to answer with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monai_sasm.label.models import Model
from monai_sasm.label.results import check_extension
from monai_sasm.restoration.options import Options
from monai_sasm.types import Modality

GATE = "gate"  # the choice of experts by the gate, among the names of experts
_PARAMETERS: dict[str, Callable[[Any], Any]] = {
    "strength": float, "sigma": float, "target_noise": float, "top_k": int, "passes": int, "refine": float,
    "self_ensemble": int,
}  # fmt: skip


def parameters(model: Model) -> dict[str, Any]:
    """Parameters that a client may change, with their defaults; viewers show them as a form.

    An empty ``sigma`` is estimated from the image; ``target_noise`` is the noise that shall remain,
    if not empty. A list is a choice, its first entry the default.
    """
    if not model.restores:
        return {}
    shown: dict[str, Any] = {"strength": 1.0, "sigma": "", "target_noise": ""}
    if model.modality.profile.is_picture and model.expert is None:
        shown["refine"] = 0.0
    if model.choices:
        shown["expert"] = [GATE, *model.choices]
    return shown


def options_of(model: Model, request: Mapping[str, Any]) -> Options:
    """Options of the restoration; what the request leaves out or empty takes its default.

    Raises:
        ValueError: a value is no number, out of its range, or an expert that this model does not have.
    """
    values = {}
    for name, kind in _PARAMETERS.items():
        given = request.get(name)
        if given in (None, ""):
            continue
        try:
            values[name] = kind(given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be a number, got {given!r}") from error
    return Options(expert=model.expert or _chosen(model, request.get("expert")), **values)


def extension_of(model: Model, request: Mapping[str, Any]) -> str | None:
    """Ending of the file to answer with; ``None`` leaves it to the writer.

    The type that a request asks for (``result_dtype``, which 3D Slicer always sets to uint8) is not looked at: images
    are float32, labels uint8.

    Raises:
        ValueError: such files are not written.
    """
    extension = str(request.get("result_extension") or "").lower() or None
    check_extension(extension, Modality.MR if model.segmenter else model.modality)
    return extension


def _chosen(model: Model, given: Any) -> str | None:
    name = given[0] if isinstance(given, (list, tuple)) and given else given
    if name in (None, "", [], GATE):
        return None
    if name not in model.choices:
        raise ValueError(f"expert must be one of {', '.join((GATE, *model.choices))}, got {name!r}")
    return str(name)
