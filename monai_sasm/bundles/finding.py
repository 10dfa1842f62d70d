"""Which bundles there are: shipped, added by the user, and trusted for one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped_folder() -> Path:
    """Where the shipped bundles are: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE / "bundled"
    return installed if installed.is_dir() else PACKAGE.parent / "bundles"


def user_folder() -> Path:
    """Where ``sasm bundles add`` puts bundles: ``$SASM_BUNDLES``, else ``~/.local/share/monai_sasm/bundles``."""
    chosen = os.environ.get("SASM_BUNDLES")
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "monai_sasm" / "bundles"


def available(extra: Sequence[str | Path] = ()) -> dict[str, Path]:
    """Name -> folder of every bundle: shipped, then added by the user, then ``extra``; a later one replaces.

    Args:
        extra: further trusted folders, each a bundle or a folder of bundles.
    """
    if isinstance(extra, (str, Path)):  # a string would be taken for a sequence of letters
        raise TypeError(f"further folders come as a list, [{str(extra)!r}], got one alone")
    found: dict[str, Path] = {}
    for folder in (shipped_folder(), user_folder(), *map(Path, extra)):
        candidates = [folder] if (folder / "configs").is_dir() else sorted(folder.glob("*")) if folder.is_dir() else []
        found |= {path.name: path for path in candidates if (path / "configs" / "metadata.json").is_file()}
    return found


def is_downloaded(model: str, revision: str | None = None) -> bool:
    """Whether a model of the Hugging Face hub, ``owner/name``, is in the hub's cache, at a commit if one is named."""
    from monai_sasm.optional import MissingExtraError, require

    try:
        hub = require("huggingface_hub", "a model of the hub", "pip install 'monai-sasm[diffusion]'")
    except MissingExtraError:
        return False
    return isinstance(hub.try_to_load_from_cache(model, "model_index.json", revision=revision), str)
