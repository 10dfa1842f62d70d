"""Every row that a test sees is held against the schema that is documented."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tests.data import CHECKOUT


@cache
def row_schema() -> Any:
    """Validates one row; checks the schema itself first."""
    schema = json.loads((CHECKOUT / "configs" / "row.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """Fail with what is wrong where a row, as JSON, is not as docs/rows.md says."""
    for row in rows:
        plain = json.loads(json.dumps(row, default=str))
        assert not [f"{error.json_path}: {error.message}" for error in row_schema().iter_errors(plain)], plain
