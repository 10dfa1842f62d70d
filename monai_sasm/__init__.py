"""Spatially aware soft mixing: a gate decides what is wrong where, experts restore it, a mix per pixel joins them.

Names are loaded on first use, so that ``import monai_sasm`` costs neither torch nor MONAI. The functions themselves
live where their names say: ``from monai_sasm.restoration.restore import restore``, ``from monai_sasm.io.formats
import open_images``."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Degradation": "monai_sasm.types",
    "Derivation": "monai_sasm.io.derivation",
    "Restorer": "monai_sasm.restoration.restorer",
    "Modality": "monai_sasm.types",
    "Options": "monai_sasm.restoration.restore",
    "RefusedError": "monai_sasm.errors",
    "Restored": "monai_sasm.restoration.restore",
    "Volume": "monai_sasm.io.volume",
    "load_restorer": "monai_sasm.restoration.restorer",
}

__all__ = [
    "Degradation",
    "Derivation",
    "Modality",
    "Options",
    "RefusedError",
    "Restored",
    "Restorer",
    "Volume",
    "load_restorer",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
