"""Which bundles there are: shipped, added by the user, and trusted for one call."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from monai_sasm.errors import BundleError

log = logging.getLogger(__name__)
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
    """Name -> folder of every bundle: shipped, then added by the user, then ``extra``.

    A later one takes the place of an earlier one of its name, and a warning says so.

    Args:
        extra: further trusted folders, each a bundle or a folder of bundles.

    Raises:
        BundleError: two different bundles of ``extra`` have one name, or a folder holds none.
    """
    if isinstance(extra, (str, Path)):  # a string would be taken for a sequence of letters
        raise TypeError(f"further folders come as a list, [{str(extra)!r}], got one alone")
    found: dict[str, Path] = {}
    for folder in (shipped_folder(), user_folder()):
        found |= _replacing(found, _bundles(folder))
    trusted: dict[str, Path] = {}
    for folder in map(Path, extra):
        here = _bundles(folder)
        if not here:
            raise BundleError(
                f"no bundle is in the trusted folder {folder}: name one, a folder that holds configs/metadata.json, or "
                "a folder of such"
            )
        for name in trusted.keys() & here.keys():
            if not _same(trusted[name], here[name]):
                raise BundleError(
                    f"two of the trusted bundles are named {name!r}, {trusted[name]} and {here[name]}; rename one, or "
                    "trust one alone"
                )
        trusted |= here
    return found | _replacing(found, trusted)


def beside(folder: Path) -> tuple[Path, ...]:
    """The folder, as ``extra`` of :func:`available`, where bundles are put; nothing while it holds none."""
    return (folder,) if _bundles(folder) else ()


def _bundles(folder: Path) -> dict[str, Path]:
    """Name -> folder of the bundle, or of those in it."""
    candidates = [folder] if (folder / "configs").is_dir() else sorted(folder.glob("*")) if folder.is_dir() else []
    there = [path for path in candidates if (path / "configs" / "metadata.json").is_file()]
    return {path.absolute().resolve().name if path.name in ("", "..") else path.name: path for path in there}


def _replacing(found: dict[str, Path], later: dict[str, Path]) -> dict[str, Path]:
    """``later``, having said which of ``found`` it takes the place of."""
    for name in found.keys() & later.keys():
        if not _same(found[name], later[name]):
            _tell_replaced(name, found[name], later[name])
    return later


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


@cache
def _tell_replaced(name: str, earlier: Path, later: Path) -> None:
    """Once per process; bundles are looked for again and again."""
    log.warning("%s is the bundle %s, in place of %s of that name", name, later, earlier)


def is_downloaded(model: str, revision: str | None = None) -> bool:
    """Whether a model of the Hugging Face hub, ``owner/name``, is in the hub's cache, at a commit if one is named."""
    from monai_sasm.optional import MissingExtraError, require

    try:
        hub = require("huggingface_hub", "a model of the hub", "pip install 'monai-sasm[diffusion]'")
    except MissingExtraError:
        return False
    return isinstance(hub.try_to_load_from_cache(model, "model_index.json", revision=revision), str)
