"""Settings in YAML files that users write."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; an empty one has none.

    Raises:
        ValueError: the file is no YAML mapping; the message names it.
    """
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path.name} must hold a mapping of settings, got a {type(settings).__name__}")
    return settings
