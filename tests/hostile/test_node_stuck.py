"""What could bring the node to a stop: by hand, by the disk, by a destination, by a setting."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.node import deliver, sender, service
from monai_sasm.node.backoff import MAX_PAUSE, Backoff
from monai_sasm.node.config import peer_from
from monai_sasm.node.progress import Progress
from tests.io.dicom.dicom_cases import uid
from tests.node.test_dicomweb import Server
from tests.node.test_node import SLICES, Archive, Renamer, health, running, send, series
from tests.node.waiting import wait_for

pytest.importorskip("pynetdicom")


def derived(name: str) -> set[str]:
    return {uid("derived", uid(name, number)) for number in range(SLICES)}


def test_a_quarantined_job_that_is_moved_to_ready_whole(tmp_path: Path, archive: Archive) -> None:
    """The recovery that the README names, of a job that a destination had refused: it holds derived files."""
    archive.status = 0xA900
    with running(tmp_path, archive) as (node, rows):
        send(node, series("refused"))
        wait_for(lambda: rows)
        (job,) = node.spool.jobs("quarantine")
        archive.status = 0
        job.folder.rename(node.spool.root / "ready" / job.name)
        send(node, series("other"))
        wait_for(lambda: len(rows) == 3)
        assert {row["status"] for row in rows[1:]} == {"ok"}
        assert set(archive.taken) == derived("refused") | derived("other")


def test_a_part_that_was_set_aside_is_moved_to_ready(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()
    restorer.refuse = lambda dataset: "a localizer" if dataset.InstanceNumber == 1 else None
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, series())
        wait_for(lambda: len(archive.taken) == SLICES - 1 and rows)
        restorer.refuse = lambda dataset: None
        (part,) = node.spool.jobs("quarantine")
        part.folder.rename(node.spool.root / "ready" / part.name)
        wait_for(lambda: len(rows) == 2)
        assert set(archive.taken) == derived("plain")


@pytest.mark.parametrize("name", ["20260101T000000-", "x", "..", "-", "a copy of it"])
def test_strange_folders_stop_nobody(name: str, tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive) as (node, rows):
        if name != "..":
            (node.spool.root / "ready" / name / "source").mkdir(parents=True)
            (node.spool.root / "ready" / name / "source" / "x.dcm").write_bytes(b"x")
        (node.spool.root / "outgoing" / f"{name}2" / "derived").mkdir(parents=True)
        (node.spool.root / "ready" / "a file").write_text("")
        send(node, series())
        wait_for(lambda: set(archive.taken) == derived("plain"))
        wait_for(lambda: [row for row in rows if row["status"] == "ok" and row["output"]["files"] == SLICES])


def test_the_same_job_twice_in_quarantine(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()
    restorer.fail = RefusedError("slices are missing; send them")
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
        (job,) = node.spool.jobs("quarantine")
        shutil.copytree(job.folder, node.spool.root / "ready" / job.name)
        wait_for(lambda: len(rows) == 2)
        assert [len(one.received()) for one in node.spool.jobs("quarantine")] == [SLICES, SLICES]


def test_a_disk_error_on_one_series_delays_that_series(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()

    def refuse(dataset: Any) -> None:
        if dataset.SeriesDescription == "bad":
            raise OSError(errno.EIO, "Input/output error")

    restorer.refuse = refuse
    bad = series("bad")
    for dataset in bad:
        dataset.SeriesDescription = "bad"
    good = series("good")
    for dataset in good:
        dataset.SeriesDescription = "good"
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, bad)
        wait_for(lambda: node.counters.snapshot()["errors"])
        send(node, good)
        wait_for(lambda: set(archive.taken) == derived("good"))
        wait_for(lambda: len(rows) == 2)
        assert {row["status"] for row in rows} == {"ok", "failed"}
        (job,) = node.spool.jobs("quarantine")
        assert len(job.received()) == SLICES, "nothing is lost"


def test_an_error_while_a_series_is_taken_over_delays_that_series(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, archive) as (node, rows):
        promote, broken = node.spool.promote, True

        def promoting(key: str) -> Any:
            if broken and key == bad:
                raise OSError(errno.EIO, "Input/output error")
            return promote(key)

        monkeypatch.setattr(node.spool, "promote", promoting)
        bad = ""
        monkeypatch.setattr(node._arrivals, "_quiet", 1e9)
        send(node, series("bad"))
        (bad,) = node.spool.incoming()
        monkeypatch.setattr(node._arrivals, "_quiet", 0.0)
        send(node, series("good"))
        wait_for(lambda: set(archive.taken) == derived("good"))
        broken = False
        wait_for(lambda: len(rows) == 2)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"token_env": "TOKEN", "user_env": "NAME", "password_env": "WORD"}, "web: .* give one of them"),
        ({"user_env": "NAME"}, "web: user_env and password_env belong together"),
    ],
)
def test_half_or_two_credentials_are_refused_by_every_command(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        peer_from("web", {"url": "https://pacs.example", **settings})


@pytest.mark.parametrize("setting", [{"token_env": "NO_SUCH"}, {"user_env": "HOME", "password_env": "NO_SUCH"}])
def test_secrets_are_looked_for_at_the_start(setting: dict[str, str], tmp_path: Path, archive: Archive) -> None:
    destinations = {"web": {"url": "http://127.0.0.1:1/web", **setting}}
    with pytest.raises(ValueError, match="NO_SUCH is not set"):  # noqa: SIM117
        with running(tmp_path, archive, destinations=destinations):
            pass


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"token_env": "SECRET"}, "line break"),
        ({"user_env": "HOME"}, "belong together"),
        ({"ca_bundle": "/no/such/file"}, "no file of certificates"),
    ],
)
def test_secrets_that_cannot_be_sent(
    setting: dict[str, str], reason: str, tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "two\nlines")
    destinations = {"web": {"url": "http://127.0.0.1:1/web", **setting}}
    with pytest.raises(ValueError, match=reason):  # noqa: SIM117
        with running(tmp_path, archive, destinations=destinations):
            pass


def test_a_secret_that_goes_away_stops_one_destination_only(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "x")
    destinations = {
        "web": {"url": "http://127.0.0.1:1/web", "token_env": "A_TOKEN"},
        "archive": f"ARCHIVE@127.0.0.1:{archive.port}",
    }
    with running(tmp_path, archive, destinations=destinations) as (node, rows):
        monkeypatch.delenv("A_TOKEN")
        send(node, series())
        wait_for(lambda: rows)
        assert rows[0]["status"] == "failed"
        assert "A_TOKEN is not set" in rows[0]["reason"]
        assert set(archive.taken) == derived("plain"), "the other one has it"


def test_a_destination_that_never_answers_delays_no_other(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections, and is silent: DICOM and HTTP."""
    monkeypatch.setattr(deliver, "ANSWER_SECONDS", 4)
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    destinations = {
        "silent": f"SILENT@127.0.0.1:{port}", "web": f"http://127.0.0.1:{port}/web",
        "archive": f"ARCHIVE@127.0.0.1:{archive.port}",
    }  # fmt: skip
    try:
        with running(tmp_path, archive, destinations=destinations) as (node, _):
            started = time.monotonic()
            for name in ("one", "two", "three"):
                send(node, series(name))
            wait_for(lambda: set(archive.taken) == derived("one") | derived("two") | derived("three"))
            assert time.monotonic() - started < 4
            assert len(node.spool.jobs("outgoing")) == 3
            silent.close()
    finally:
        silent.close()


def test_a_destination_that_refuses_does_not_keep_the_series_from_the_others(tmp_path: Path, archive: Archive) -> None:
    refusing = Server()
    refusing.answer = lambda method, path, body: (400, "text/html", b"")
    late = Archive()
    destinations = {
        "web": refusing.url, "archive": f"ARCHIVE@127.0.0.1:{archive.port}", "late": f"ARCHIVE@127.0.0.1:{late.port}",
    }  # fmt: skip
    with running(tmp_path, archive, destinations=destinations) as (node, rows):
        send(node, series())
        wait_for(lambda: len(refusing.requests) > sender.MAX_REFUSALS * SLICES)
        assert not rows, "the late one has it not yet"
        late.start()
        wait_for(lambda: rows)
        assert rows[0]["status"] == "failed"
        assert "web refused objects" in rows[0]["reason"]
        assert len(archive.taken) == len(late.taken) == SLICES
    late.close()
    refusing.close()


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("unparsable"), RecursionError(), OSError(errno.EIO, "x")])
def test_an_error_nobody_foresaw_ends_in_quarantine(
    error: Exception, tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sender.deliver

    def failing(peer: Any, files: Any, *rest: Any) -> None:
        if "bad" in str(files):
            raise error
        real(peer, files, *rest)

    monkeypatch.setattr(sender, "deliver", failing)
    with running(tmp_path, archive) as (node, rows):
        send(node, series("good"))
        wait_for(lambda: rows)
        job = node.spool.root / "outgoing" / "20260101T000000-bad"
        shutil.copytree(tmp_path, job, ignore=lambda *_: ["spool"], dirs_exist_ok=True)
        (job / "source").mkdir(exist_ok=True)
        (job / "derived").mkdir(exist_ok=True)
        from tests.io.dicom.dicom_cases import ct_slice, save

        save(ct_slice(0, series="bad"), job / "derived" / "0.dcm")
        wait_for(lambda: len(rows) == 2)
        assert rows[1]["status"] == "failed"


def test_a_reader_of_the_rows_that_leaves_stops_nobody(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive) as (node, _):

        def gone(row: Any) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        node._report = gone
        send(node, series("one"))
        send(node, series("two"))
        wait_for(lambda: set(archive.taken) == derived("one") | derived("two"))
        wait_for(lambda: not node.spool.jobs("outgoing"))


def test_health_says_what_does_not_get_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()  # not started
    with running(tmp_path, archive, stalled_minutes=1) as (node, _):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["send_failures"])
        assert health(node)[0] == 200
        later = time.monotonic() + 61
        monkeypatch.setattr(node._progress, "_clock", lambda: later)
        status, text = health(node)
        assert status == 503
        assert "sending to archive: no progress for 1 minutes" in json.loads(text)["problems"]
        monkeypatch.undo()
        archive.start()
        wait_for(lambda: health(node)[0] == 200 and not node.spool.jobs("outgoing"))
    archive.close()


def test_health_of_a_restoration_that_hangs(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_FAILURES", 10**6)
    restorer = Renamer()
    restorer.fail = OSError(errno.EIO, "Input/output error")
    with running(tmp_path, archive, restorer, stalled_minutes=1) as (node, _):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["errors"])
        later = time.monotonic() + 130
        monkeypatch.setattr(node._progress, "_clock", lambda: later)
        assert "restoring: no progress for 2 minutes" in json.loads(health(node)[1])["problems"]


def test_pauses_double_for_each_name_by_itself() -> None:
    now = [0.0]
    later = Backoff(10, clock=lambda: now[0])
    assert later.due("a")
    assert [later.failed("a") for _ in range(8)] == [10, 20, 40, 80, 160, 320, 600, MAX_PAUSE]
    assert later.due("b")
    assert not later.due("a")
    now[0] = MAX_PAUSE
    assert later.due("a")
    later.forget("a")
    assert later.failures("a") == 0
    assert later.failed("a") == 10
    often = Backoff(10, 60, clock=lambda: now[0])
    assert [often.failed("a") for _ in range(5)] == [10, 20, 40, 60, 60]
    for _ in range(3000):
        assert later.failed("c") <= MAX_PAUSE


def test_only_what_has_work_can_stall() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    progress.idle("a")
    progress.made("b")
    now[0] = 100
    progress.made("b")
    assert progress.stalled(60) == ["a: no progress for 2 minutes"]
    progress.idle("a")
    assert progress.stalled(60) == []
