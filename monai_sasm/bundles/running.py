"""The folder of the bundle whose configuration is being run, so that a copy of a bundle runs its own weights.

MONAI hands a configuration no path of its own; of its parsers only the running workflow knows the file. It is therefore
looked for among the callers, and has to own the very parser that asks.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path

from monai_sasm.errors import BundleError


def bundle_root() -> str:
    """Absolute path of the bundle whose configuration is run, for ``bundle_root`` in that configuration.

    It follows the folder of the (first) configuration file that ``monai.bundle run`` or a ``ConfigWorkflow`` was given,
    from any working directory. A parser on its own has no file to follow: set its ``bundle_root``.

    Raises:
        BundleError: no workflow runs this configuration, or its file is not in the ``configs`` folder of a bundle.
    """
    from monai.bundle import ConfigParser, ConfigWorkflow

    parser = None
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if parser is None and isinstance(caller, ConfigParser):
            parser = caller
        elif isinstance(caller, ConfigWorkflow) and caller.__dict__.get("parser") is parser is not None:
            return _bundle_of(Path(os.path.abspath(caller.config_root_path)))
        frame = frame.f_back
    raise BundleError(
        "bundle_root is the folder of the configuration that is run, and here no workflow runs one: set bundle_root to "
        "the bundle's folder (bundle_root=DIR of the run, or parser['bundle_root'] = DIR before anything is resolved)"
    )


def _bundle_of(configs: Path) -> str:
    if configs.name != "configs" or not (configs / "metadata.json").is_file():
        raise BundleError(
            f"bundle_root cannot be told from {configs}, which is not the configs folder of a bundle: name the "
            "bundle's own configuration first, or set bundle_root to its folder"
        )
    return str(configs.parent)
