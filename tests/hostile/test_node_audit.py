"""The audit trail says what happened and to whom nothing; what is too old goes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.node import audit
from monai_sasm.node.audit import Audit
from monai_sasm.node.config import config_from
from tests.io.dicom.dicom_cases import uid
from tests.node.test_node import SLICES, Archive, Renamer, running, send, series
from tests.node.waiting import wait_for

pytest.importorskip("pynetdicom")


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("identify", [False, True])
def test_who_sent_what_and_what_became_of_it(identify: bool, tmp_path: Path, archive: Archive) -> None:
    trail = tmp_path / "audit.log"
    restorer = Renamer()
    settings = {"audit": str(trail), "audit_identify": identify}
    with running(tmp_path, archive, restorer, **settings) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
        restorer.fail = RefusedError("slices are missing; send them")
        send(node, series("second"))
        wait_for(lambda: len(rows) == 2)
    found = events(trail)
    assert [one["event"] for one in found] == ["received", "restored", "sent", "received", "set aside"]
    received, restored, sent = found[:3]
    assert (received["caller"], received["address"], received["objects"]) == ("SCANNER", "127.0.0.1", SLICES)
    assert received["series"] == restored["series"] == sent["series"]
    assert (sent["destinations"], sent["objects"]) == (["archive"], SLICES)
    assert found[4]["reason"] == "slices are missing; send them"
    text = trail.read_text()
    assert (uid("plain") in text) == identify
    assert not [word for word in ("Müller", "SECRET-17") if word in text]
    if os.name != "nt":
        assert stat.S_IMODE(trail.stat().st_mode) == 0o600


def test_files_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BYTES", 1000)
    monkeypatch.setattr(audit, "FILES", 3)
    trail = Audit(tmp_path / "audit.log")
    for number in range(200):
        trail.note("sent", job=str(number))
    trail.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    assert all(path.stat().st_size <= 1000 for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    last = [one["job"] for path in [files[3], files[2], files[1], files[0]] for one in events(path)]
    assert last == [str(number) for number in range(200 - len(last), 200)]


def test_a_trail_that_cannot_be_written_is_named_and_the_spool_let_go(tmp_path: Path, archive: Archive) -> None:
    trail = str(tmp_path / "missing" / "audit.log")
    with pytest.raises(OSError, match=r"audit: .*No such file or directory; make its folder") as told:  # noqa: SIM117
        with running(tmp_path, archive, audit=trail):
            pass
    with running(tmp_path, archive):
        assert told.value.__traceback__ is not None, "which keeps what was begun alive"


def test_a_trail_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "audit.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        Audit(tmp_path / "audit.log")


def test_what_is_too_old_goes(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()
    restorer.fail = RefusedError("slices are missing; send them")
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, series("old"))
        send(node, series("new"))
        wait_for(lambda: len(rows) == 2)
        old, new = node.spool.jobs("quarantine")
        (node.spool.root / "made" / "x").touch()
        for path in (old.folder / "reason.json", node.spool.root / "made" / "x"):
            os.utime(path, (0, 0))
    with running(tmp_path, archive, restorer, audit=str(tmp_path / "log"), keep_days=30) as (node, _):
        wait_for(lambda: len(node.spool.jobs("quarantine")) == 1)
        assert node.spool.jobs("quarantine")[0].name == new.name
        wait_for(lambda: (tmp_path / "log").read_text())
        assert not list((node.spool.root / "made").iterdir())
    assert [(one["event"], one["job"]) for one in events(tmp_path / "log")] == [("deleted", old.name)]
    with pytest.raises(ValueError, match="keep_days"):
        config_from({"spool": "s", "allow": ["A"], "destinations": {"a": "A@h:1"}, "keep_days": 0})
