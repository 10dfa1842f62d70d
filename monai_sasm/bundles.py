"""A bundle folder becomes an expert, a gate or a segmenter."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def bundles_folder() -> Path:
    """Where the shipped bundles are: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE / "bundled"
    return installed if installed.is_dir() else PACKAGE.parent / "bundles"


def bundle_root(name: str) -> str:
    """Absolute path of the shipped bundle ``name``, for ``bundle_root`` in its configs."""
    return str(bundles_folder() / name)
