"""The network of a bundle's configuration, without importing MONAI where the configuration does not need it.

Importing MONAI takes several seconds, most of what the first image waits for. Most networks need no more of its
configuration language than components (``_target_``) and references (``@key``); these are resolved here, the others by
MONAI's ``ConfigParser``.
"""

from __future__ import annotations

from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn


class _UnsupportedError(Exception):
    """The configuration uses more of MONAI's language than is understood here."""


def plain_network(config: Path, root: Path) -> nn.Module | None:
    """The component ``network_def`` of a trusted configuration; ``None`` where only MONAI can build it.

    Args:
        config: YAML or JSON file.
        root: what ``@bundle_root`` stands for.
    """
    import yaml

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        return cast("nn.Module", _Resolver({**content, "bundle_root": str(root)}).value(content["network_def"]))
    except Exception:  # whatever is wrong, MONAI's parser names it
        return None


class _Resolver:
    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.resolved: dict[str, Any] = {}

    def value(self, item: Any) -> Any:
        if isinstance(item, dict):
            return self._component(item) if "_target_" in item else {k: self.value(v) for k, v in item.items()}
        if isinstance(item, list):
            return [self.value(one) for one in item]
        if not isinstance(item, str) or item[:1] not in ("@", "$", "%"):
            return item
        name = item[1:]
        if item[0] != "@" or name not in self.content:  # an expression, a macro, a path into a component
            raise _UnsupportedError(item)
        if name not in self.resolved:
            self.resolved[name] = self.value(self.content[name])
        return self.resolved[name]

    def _component(self, item: dict[str, Any]) -> Any:
        target, arguments = item["_target_"], {key: value for key, value in item.items() if key != "_target_"}
        if target.split(".")[0] == "monai" or any(key.startswith("_") for key in arguments):
            raise _UnsupportedError(target)
        made_by: Any = locate(target)
        return made_by(**{key: self.value(value) for key, value in arguments.items()})
