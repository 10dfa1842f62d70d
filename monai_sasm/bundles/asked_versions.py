"""Does a bundle ask for newer packages than are installed? It is told, and the bundle used: it may run all the same."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monai_sasm import __version__

_OWN_KEYS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
_SECTIONS = ("required_packages_version", "optional_packages_version")

logger = logging.getLogger("monai_sasm")


def newer_than_installed(metadata: Mapping[str, Any]) -> list[str]:
    """What ``metadata.json`` asks for and is installed in an earlier version, as ``monai 1.7 (1.6.1 is installed)``.

    What is not installed at all is left out, for a bundle may do without it: what lacks is named when it is imported.
    """
    asked = {package: metadata[key] for key, package in _OWN_KEYS.items() if key in metadata}
    for section in _SECTIONS:
        given = metadata.get(section)
        asked |= given if isinstance(given, Mapping) else {}
    told = []
    for package, wanted in sorted(asked.items()):
        here = _installed(package)
        if here is not None and _release(here) < _release(str(wanted)):
            told.append(f"{package} {wanted} ({here} is installed)")
    return told


@cache
def tell_newer(root: Path, asked: tuple[str, ...]) -> None:
    """Say once per process that a bundle asks for :func:`newer_than_installed` packages."""
    if asked:
        told = ", ".join(asked)
        logger.warning(
            "the bundle %s asks for newer packages: %s; update them should it not run rightly", root.name, told
        )


def _installed(package: str) -> str | None:
    if re.sub(r"[-_.]+", "-", package).lower() == "monai-sasm":
        return __version__
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):  # ValueError: no name at all
        return None


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a release, without zeros at its end: ``(1, 6)`` of ``1.6.0+cpu``; none of what is no version."""
    found = re.match(r"\s*[vV=~<>]*\s*(\d{1,9}(?:\.\d{1,9})*)", text)
    numbers = [int(one) for one in found[1].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
