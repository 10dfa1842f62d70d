"""The configuration that is being run: the folder of its bundle, and settings of it that change nothing.

MONAI hands a configuration no path of its own; of its parsers only the running workflow knows the file. It is therefore
looked for among the callers, and has to own the very parser that asks.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_sasm.bundles.metadata import read_metadata
from monai_sasm.errors import BundleError

logger = logging.getLogger(__name__)
_OF_MONAI = {"initialize", "run", "finalize", "imports"}


def bundle_root() -> str:
    """Absolute path of the bundle whose configuration is run, for ``bundle_root`` in that configuration.

    It follows the folder of the (first) configuration file that ``monai.bundle run`` or a ``ConfigWorkflow`` was given,
    from any working directory. A parser on its own has no file to follow: set its ``bundle_root``.

    Raises:
        BundleError: no workflow runs this configuration, or its file is not in the ``configs`` folder of a bundle.
    """
    workflow = _workflow()
    if workflow is not None:
        return _bundle_of(_configs(workflow))
    raise BundleError(
        "bundle_root is the folder of the configuration that is run, and here no workflow runs one: set bundle_root to "
        "the bundle's folder (bundle_root=DIR of the run, or parser['bundle_root'] = DIR before anything is resolved)"
    )


def running_section() -> dict[str, Any]:
    """The ``sasm`` section of the metadata of the bundle whose configuration is run.

    Empty where no workflow runs one, or where its folder or its metadata are of another kind.
    """
    workflow = _workflow()
    if workflow is None:
        return {}
    given = workflow.parser.get("bundle_root")
    chosen = isinstance(given, str) and not given.startswith(("$", "@"))
    try:
        section: dict[str, Any] = read_metadata(Path(given if chosen else _bundle_of(_configs(workflow))))["sasm"]
    except BundleError:
        return {}
    return section


def check_modality(modality: str) -> None:
    """Refuse to read images of a modality in the configuration of an expert for another one.

    It would be shown, or learn from, values in another scale than those it is applied to.

    Raises:
        BundleError: the metadata of the bundle that is run name another modality.
    """
    section = running_section()
    if section.get("role") == "expert" and section["modality"] != modality:
        raise BundleError(
            f"this configuration reads {modality}, and sasm.modality of the bundle's metadata is "
            f"{section['modality']}: name that modality in the configuration, too; pairs of any are read by "
            "monai_sasm.datasets.images.paired"
        )


def warn_of_unused() -> None:
    """Say which settings of the configuration that is run have no effect: misspelt ones, and those of another recipe.

    Where no workflow runs it, nothing is said.
    """
    workflow = _workflow()
    for key in unused(workflow.parser.get()) if workflow is not None else ():
        logger.warning("nothing in this configuration refers to %s: it has no effect", key)


def unused(config: Mapping[str, Any]) -> list[str]:
    """Settings, plain values at the top, that no part of ``config`` refers to; ``null`` and empty ones are none."""
    references = "\n".join(text for part in config.values() for text in _texts(part))
    return [
        key
        for key, value in config.items()
        if key not in _OF_MONAI | {"_meta_"}
        and value not in (None, "", [], {})
        and _plain(value)
        and not re.search(rf"@{re.escape(key)}(?!\w)", references)
    ]


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping | list):
        for inner in part.values() if isinstance(part, Mapping) else part:
            yield from _texts(inner)


def _plain(value: Any) -> bool:
    """Whether nothing in it is made or computed."""
    made = isinstance(value, Mapping) and "_target_" in value
    return not made and not any(text.startswith(("$", "@")) for text in _texts(value))


def _workflow() -> Any:
    """The ``ConfigWorkflow`` among the callers that owns the parser among them; ``None`` without."""
    from monai.bundle import ConfigParser, ConfigWorkflow

    parser = None
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if parser is None and isinstance(caller, ConfigParser):
            parser = caller
        elif isinstance(caller, ConfigWorkflow) and caller.__dict__.get("parser") is parser is not None:
            return caller
        frame = frame.f_back
    return None


def _configs(workflow: Any) -> Path:
    return Path(os.path.abspath(workflow.config_root_path))


def _bundle_of(configs: Path) -> str:
    if configs.name != "configs" or not (configs / "metadata.json").is_file():
        raise BundleError(
            f"bundle_root cannot be told from {configs}, which is not the configs folder of a bundle: name the "
            "bundle's own configuration first, or set bundle_root to its folder"
        )
    return str(configs.parent)
