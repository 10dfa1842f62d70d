"""One row for all commands: the schema catches what is wrong, the documentation names every field, no name gets out."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.row import SCHEMA, ended_by, new_row, row_of
from monai_sasm.errors import reason_of
from monai_sasm.io.formats import inventory
from monai_sasm.restoration.options import Options
from tests.data import CHECKOUT, ct_small
from tests.rows import check_rows, row_schema


@pytest.fixture
def task(tmp_path: Path) -> Task:
    source = tmp_path / "Smith_John" / "slice.dcm"
    source.parent.mkdir()
    source.write_bytes(ct_small().read_bytes())
    return Task("0" * 16, inventory(source)[0], Path("Smith_John/CT"))


def job_of(tmp_path: Path, **fields: Any) -> BatchJob:
    return BatchJob(tmp_path / "Smith_John", tmp_path / "out", Options(), **fields)


def test_a_planned_row_is_right(task: Task, tmp_path: Path) -> None:
    check_rows([row_of(task, job_of(tmp_path)), row_of(task, job_of(tmp_path, identify=True))])


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "sasm.row/2"},
        {"status": "quarantined"},
        {"status": "skipped"},  # without a reason
        {"status": "ok"},  # without models, output and so on
        {"status": "failed", "reason": "why", "job": "7"},
        {"command": "bake"},
        {"time": "yesterday"},
        {"input": {}},
        {"input": {"id": "a", "patient": "Jane"}},
        {"reason": "none needed"},
    ],
)
def test_the_schema_catches_what_is_wrong(task: Task, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_rows([row_of(task, job_of(tmp_path)) | wrong])


def test_every_field_is_explained() -> None:
    text = (CHECKOUT / "docs" / "rows.md").read_text(encoding="utf-8")
    schema = row_schema().schema
    fields = [*schema["properties"]]
    fields += [f"{part}.{name}" for part in ("input", "output") for name in schema["properties"][part]["properties"]]
    assert not [name for name in fields if f"| `{name}` |" not in text]
    assert f"`{SCHEMA}`" in text
    example = json.loads(text.partition("```json\n")[2].partition("```")[0])
    check_rows([example])


def test_without_identify_nobody_is_named(task: Task, tmp_path: Path) -> None:
    errors = [
        ValueError(f"no room for {tmp_path / 'out' / 'Smith_John' / 'CT'}, or Smith_John"),
        OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "Smith_John")),
        FileExistsError(f"{tmp_path / 'out' / 'Smith_John' / 'CT'} exists"),
        KeyError("Smith_John"),
    ]
    rows = [row_of(task, job_of(tmp_path)) | ended_by(error, task, job_of(tmp_path)) for error in errors]
    check_rows(rows)
    assert [(row["status"], row.get("error")) for row in rows] == [
        ("failed", "ValueError"),
        ("failed", "ENOSPC"),
        ("skipped", None),
        ("failed", "KeyError"),
    ]
    assert "Smith" not in json.dumps(rows)
    told = ended_by(errors[0], task, job_of(tmp_path, identify=True))
    assert "Smith_John" in told["reason"]


def test_reasons_are_one_line_and_short_names_are_no_words() -> None:
    assert reason_of(ValueError("a\nb   c")) == "a b c"
    assert reason_of(ValueError("an area of John"), private=("a", "John")) == "an area of ..."
    assert reason_of(OSError(errno.ENOSPC, "No space", "/data/John")) == "[Errno 28] No space: '/data/John'"
    assert reason_of(OSError(errno.ENOSPC, "No space", "/data/John"), private=("John",)) == "No space"
    assert "John" not in reason_of(KeyError("John"))


def test_a_row_of_any_command_starts_alike() -> None:
    check_rows([new_row(command, "0" * 12, id="x") for command in ("restore", "thin", "batch", "node")])
