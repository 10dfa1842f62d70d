"""The one place where optional or fragile libraries are imported, with what to install when one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

_TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept_alive: list[object] = []  # a torch Library forgets its definitions when it is garbage-collected


class MissingExtraError(ImportError):
    """An optional library is not installed; the message says what to type."""


def require(module: str, feature: str, install: str) -> ModuleType:
    """Import ``module`` or say which ``feature`` wanted it and how to ``install`` it.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{feature} needs {module!r}, which is not installed: {install}") from error


def matplotlib(feature: str) -> ModuleType:
    """matplotlib, asked for before ``feature`` measures anything: it draws last.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("matplotlib", feature, "pip install 'monai-sasm[evaluate]'")


def torchvision() -> ModuleType:
    """torchvision, also beside a torch build its compiled operators do not match.

    The PyPI wheel of torchvision is linked against CUDA; next to a CPU-only torch its extension cannot be loaded and
    ``import torchvision`` fails because the schemas of two operators are missing. Networks and transforms use
    neither, so defining the schemas is enough; calling ``nms`` itself would still raise.
    """
    try:
        return importlib.import_module("torchvision")
    except (RuntimeError, ImportError) as error:
        if "torchvision::nms" not in str(error):
            raise MissingExtraError(
                "this needs 'torchvision', which is not installed: pip install torchvision"
            ) from error
        import sys

        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in _TORCHVISION_SCHEMAS:
            library.define(schema)
        _kept_alive.append(library)
        return importlib.import_module("torchvision")


def diffusers() -> ModuleType:
    """diffusers, which imports torchvision through transformers where that is installed (see :func:`torchvision`).

    Raises:
        MissingExtraError: it is not installed.
    """
    torchvision()
    return require("diffusers", "this diffusion model", "pip install 'monai-sasm[diffusion]'")
