"""Are the weights of a shipped bundle those that were shipped? ``scripts/list_weights.py`` makes the list."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path

LIST = Path(__file__).with_name("shipped_weights.json")

logger = logging.getLogger("monai_sasm")


@cache
def shipped_weights() -> dict[str, str]:
    """``BUNDLE/FILE`` -> sha256 of every file of weights that this version came with."""
    found: dict[str, str] = json.loads(LIST.read_text(encoding="utf-8"))
    return found


def compare(weights: Path, digest: str) -> bool:
    """Whether weights are those that were shipped under their name; where they are not, it is said in the log.

    Weights that were trained anew in their place are used all the same, and named by their hash in every result.

    Args:
        weights: ``BUNDLE/models/FILE``.
        digest: its sha256.
    """
    name = f"{weights.parent.parent.name}/{weights.name}"
    same = shipped_weights().get(name, digest) == digest
    if not same:
        logger.warning(
            "the weights of %s are not those that this version came with: trained anew, or damaged, or somebody else's",
            name,
        )
    return same
