"""What a bundle says about itself: ``configs/metadata.json``, checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_sasm.errors import BundleError
from monai_sasm.types import Modality

ROLES = ("classifier", "expert", "gate", "pipeline", "refiner", "segmenter")

log = logging.getLogger(__name__)


def read_metadata(root: Path) -> dict[str, Any]:
    """``configs/metadata.json`` of a bundle, with its ``sasm`` section checked.

    Raises:
        BundleError: the file or a required entry is missing, or has a value that is not allowed.
    """
    path = root / "configs" / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; a bundle needs configs/metadata.json") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({type(error).__name__})") from error
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise BundleError(f"{path} is not valid JSON: {error}") from error
    section = metadata.get("sasm") if isinstance(metadata, dict) else None
    if not isinstance(section, dict) or section.get("role") not in ROLES:
        raise BundleError(f"{path} needs a 'sasm' section whose 'role' is one of {ROLES}, got {section!r}")
    modalities = [one.value for one in Modality.known()]
    modality, degradation = section.get("modality"), section.get("degradation")
    if (section["role"] == "expert" or modality is not None) and modality not in modalities:
        raise BundleError(f"{path}: sasm.modality must be one of {modalities}, got {modality!r}")
    if (section["role"] == "expert" or degradation is not None) and not _is_word(degradation):
        raise BundleError(
            f"{path}: sasm.degradation must say what the expert repairs, such as 'noise', got {degradation!r}"
        )
    for flag in ("noise_map", "bfloat16", "label", "default"):
        if not isinstance(section.get(flag, False), bool):
            raise BundleError(f"{path}: sasm.{flag} must be true or false, got {section[flag]!r}")
    if "thinning" in section and not _is_word(section["thinning"]):
        raise BundleError(
            f"{path}: sasm.thinning names the variant for planes across thick slices, configs/NAME.yaml without its "
            f"ending, got {section['thinning']!r}"
        )
    if not _is_range(section.get("range", {})):
        raise BundleError(
            f"{path}: sasm.range takes noise and pixel_mm as [lowest, highest], kernels and body_parts as lists of "
            f"words, got {section['range']!r}"
        )
    return dict(metadata)


def readable_sections(found: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Name -> ``sasm`` section of the bundles whose metadata can be used; the others are left out with a warning.

    Args:
        found: name -> folder, see :func:`monai_sasm.bundles.available`.
    """
    sections = {}
    for name, root in found.items():
        try:
            sections[name] = read_metadata(root)["sasm"]
        except BundleError as error:
            log.warning("bundle left out: %s", error)
    return sections


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_range(value: Any) -> bool:
    """Whether it is an operating range, see :mod:`monai_sasm.restoration.operating_range`."""
    if not isinstance(value, dict) or not set(value) <= {"noise", "pixel_mm", "kernels", "body_parts"}:
        return False
    limits = [value[name] for name in ("noise", "pixel_mm") if name in value]
    words = [value[name] for name in ("kernels", "body_parts") if name in value]
    return all(isinstance(one, list) for one in (*limits, *words)) and (
        all(len(one) == 2 and all(isinstance(side, (int, float)) for side in one) and one[0] < one[1] for one in limits)
        and all(_is_word(word) for one in words for word in one)
    )
