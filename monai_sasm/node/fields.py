"""Values from YAML and the command line compared with the types that a dataclass names for its fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

MAX_PORT = 65535
_WORDS = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", Path: "a path"}


def check_fields(kind: type, values: Mapping[str, Any], where: str = "") -> None:
    """Compare values with the annotations of a dataclass.

    Args:
        kind: the dataclass.
        values: name of a field -> value; other names are passed over.
        where: begin of messages, such as ``"pacs: "``.

    Raises:
        ValueError: a value is of another type; the message names the field.
    """
    hints = get_type_hints(kind)
    for name in (name for name in values if name in hints):
        hint, value = hints[name], values[name]
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if not any(_is(value, one) for one in kinds):
            words = " or ".join(_WORDS[one] for one in kinds if one in _WORDS) or "a mapping"
            got = "nothing" if value is None else repr(value)
            raise ValueError(f"{where}{name} must be {words}, got {got}")


def check_port(name: str, port: int, *, least: int) -> None:
    """Raise ``ValueError`` where a port of the field ``name`` is below ``least`` or above 65535."""
    if not least <= port <= MAX_PORT:
        raise ValueError(f"{name} must be from {least} to {MAX_PORT}, got {port}")


def as_list(name: str, value: Any) -> list[str]:
    """A list of texts; plain text is one entry, and nothing is none.

    Raises:
        ValueError: it is neither.
    """
    entries = [] if value is None else [value] if isinstance(value, (str, Path)) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, (str, Path)) for entry in entries):
        raise ValueError(f"{name} must be a list of texts, got {value!r}")
    return [str(entry) for entry in entries]


def as_mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping by text; nothing is an empty one.

    Raises:
        ValueError: it is something else.
    """
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, NAME: VALUE, got {value!r}")
    return {str(key): one for key, one in (value or {}).items()}


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, get_origin(kind) or kind)
