"""Spatially aware soft mixing: a gate decides what is wrong where, experts restore it, a mix per pixel joins them.

    import monai_sasm as sasm

    restorer = sasm.Restorer(device="auto")
    for image in sasm.open_images("scans"):
        restorer(image, strength=0.8).save("restored")
    sasm.restore("photo.jpg", "dry.jpg")

Names are loaded on first use, so that ``import monai_sasm`` costs neither torch nor MONAI.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_sasm.errors import RefusedError as RefusedError
    from monai_sasm.io.derivation import Derivation as Derivation
    from monai_sasm.io.formats import open_images as open_images
    from monai_sasm.io.formats import save as save
    from monai_sasm.io.volume import Volume as Volume
    from monai_sasm.restoration.files import restore as restore
    from monai_sasm.restoration.options import Options as Options
    from monai_sasm.restoration.restored import Restored as Restored
    from monai_sasm.restoration.restorer import Restorer as Restorer
    from monai_sasm.types import Modality as Modality

__version__ = "0.2.0"

_HOMES = {
    "Derivation": "monai_sasm.io.derivation",
    "Modality": "monai_sasm.types",
    "Options": "monai_sasm.restoration.options",
    "RefusedError": "monai_sasm.errors",
    "Restored": "monai_sasm.restoration.restored",
    "Restorer": "monai_sasm.restoration.restorer",
    "Volume": "monai_sasm.io.volume",
    "open_images": "monai_sasm.io.formats",
    "restore": "monai_sasm.restoration.files",
    "save": "monai_sasm.io.formats",
}

__all__ = [
    "Derivation",
    "Modality",
    "Options",
    "RefusedError",
    "Restored",
    "Restorer",
    "Volume",
    "__version__",
    "open_images",
    "restore",
    "save",
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
