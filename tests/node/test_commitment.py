"""Storage commitment: a job is sent when its destination has said that it keeps every object, and not before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from monai_sasm.batch.settings import read_settings
from monai_sasm.node import commitment
from monai_sasm.node.commitment import SOP_CLASS, SOP_INSTANCE
from monai_sasm.node.config import DicomPeer, config_from
from monai_sasm.node.deliver import NotTakenError, TroubleError
from tests.data import CHECKOUT
from tests.io.dicom.dicom_cases import CT, ct_slice, mr_slice, uid
from tests.node.orthanc import TITLE, running_orthanc
from tests.node.test_node import SLICES, Archive, running, send, series
from tests.node.waiting import dicom_in, wait_for
from tests.ports import free_port

DERIVED = [uid("derived", uid("plain", number)) for number in range(SLICES)]


class Committing(Archive):
    """Answers requests for storage commitment; ``says`` makes the report of a request, or ``None`` for silence."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.status = 0x0000
        self.action_status = 0x0000
        self.says: Callable[[Dataset], Dataset | None] = all_kept
        self.node_port: int | None = None
        """Where to report to; over the association of the request where it is not known."""
        self.answers: list[int] = []
        self.threads: list[Thread] = []

    def start(self) -> None:
        entity = AE(ae_title="ARCHIVE")
        entity.add_supported_context(CT)
        entity.add_supported_context(SOP_CLASS)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def close(self) -> None:
        for thread in self.threads:
            thread.join()
        super().close()

    def _action(self, event: Any) -> tuple[int, None]:
        request = event.action_information
        self.asked.append([str(item.ReferencedSOPInstanceUID) for item in request.ReferencedSOPSequence])
        report = self.says(request) if self.action_status == 0 else None
        if report is not None:
            self.threads.append(Thread(target=self._report, args=[report, event.assoc]))
            self.threads[-1].start()
        return self.action_status, None

    def _report(self, report: Dataset, association: Any) -> None:
        time.sleep(0.2)  # until the request is answered
        if self.node_port is not None:
            entity = AE(ae_title="ARCHIVE")
            entity.add_requested_context(SOP_CLASS)
            role = build_role(SOP_CLASS, scp_role=True)
            association = entity.associate("127.0.0.1", self.node_port, ae_title="SASM", ext_neg=[role])
            assert association.is_established
        kind = 2 if "FailedSOPSequence" in report else 1
        status, _ = association.send_n_event_report(report, kind, SOP_CLASS, SOP_INSTANCE)
        self.answers.append(int(status.Status))
        if self.node_port is not None:
            association.release()


def all_kept(request: Dataset) -> Dataset:
    """The report that all is kept."""
    report = Dataset()
    report.TransactionUID, report.ReferencedSOPSequence = request.TransactionUID, request.ReferencedSOPSequence
    return report


def first_lost(request: Dataset) -> Dataset:
    """The report that one object is not there, PS3.4 section J.3.3."""
    report = all_kept(request)
    lost = report.ReferencedSOPSequence[0]
    lost.FailureReason = 0x0112
    report.FailedSOPSequence, report.ReferencedSOPSequence = [lost], list(report.ReferencedSOPSequence)[1:]
    return report


def first_unnamed(request: Dataset) -> Dataset:
    """A report that says nothing of one object."""
    report = all_kept(request)
    report.ReferencedSOPSequence = list(report.ReferencedSOPSequence)[1:]
    return report


def another_transaction(request: Dataset) -> Dataset:
    """A report on something that was never asked."""
    report = all_kept(request)
    report.TransactionUID = uid("guessed")
    return report


def unreadable(request: Dataset) -> Dataset:
    """A report without a transaction."""
    report = all_kept(request)
    del report.TransactionUID
    return report


@pytest.fixture
def committing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Committing]:
    monkeypatch.setattr(commitment, "HOLD_SECONDS", 0.5)
    server = Committing()
    server.start()
    yield server
    server.close()


def settings(archive: Committing, seconds: float = 30) -> dict[str, Any]:
    peer = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port, "commit_seconds": seconds}
    return {"destinations": {"archive": peer}, "allow": ["SCANNER", "ARCHIVE@127.0.0.1"]}


@pytest.mark.parametrize("own_association", [False, True])
def test_a_job_is_sent_when_all_of_it_is_committed(
    own_association: bool, tmp_path: Path, committing: Committing
) -> None:
    silent = True
    committing.says = lambda request: None if silent else all_kept(request)
    with running(tmp_path, committing, **settings(committing, 3)) as (node, rows):
        committing.node_port = node.port if own_association else None
        send(node, series())
        wait_for(lambda: committing.asked)
        time.sleep(0.5)
        assert not rows, "it has taken all, and has not committed"
        assert node.spool.jobs("outgoing")
        silent = False
        wait_for(lambda: rows)
        assert rows[0]["status"] == "ok"
        assert [sorted(one) for one in committing.asked] == [sorted(DERIVED)] * 2
        assert sorted(committing.taken) == sorted(DERIVED), "what was taken is not sent again only because it was late"
        assert node.counters.snapshot()["committed"] == SLICES
        wait_for(lambda: committing.answers == [0])
        wait_for(lambda: not dicom_in(tmp_path))


@pytest.mark.parametrize("report", [first_lost, first_unnamed])
def test_what_is_not_kept_is_sent_again(
    report: Callable[[Dataset], Dataset], tmp_path: Path, committing: Committing
) -> None:
    committing.says = lambda request: (report if len(committing.asked) == 1 else all_kept)(request)
    with running(tmp_path, committing, **settings(committing)) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
        assert rows[0]["status"] == "ok"
        again = committing.asked[0][0]
        assert sorted(committing.taken) == sorted([*DERIVED, again])
        assert node.counters.snapshot()["send_failures"] == 1


@pytest.mark.parametrize(
    ("says", "status", "reason"),
    [
        (first_lost, 0, "commits to 3 of 4 objects (reason 0112)"),
        (lambda request: None, 0, "has not reported storage commitment within 0.8 s"),
        (another_transaction, 0, "has not reported"),
        (unreadable, 0, "has not reported"),
        (all_kept, 0x0122, "refuses storage commitment (status 0122)"),
    ],
)
def test_without_commitment_a_job_is_set_aside_after_some_attempts(
    says: Callable[[Dataset], Dataset | None], status: int, reason: str, tmp_path: Path, committing: Committing
) -> None:
    committing.says, committing.action_status = says, status
    with running(tmp_path, committing, **settings(committing, 0.8)) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
        assert len(committing.asked) == 3
        assert rows[0]["status"] == "failed"
        assert reason in rows[0]["reason"]
        (job,) = node.spool.jobs("quarantine")
        assert len(job.files()) == SLICES


@pytest.mark.parametrize(("reason", "kind"), [(0x0112, NotTakenError), (0x0110, TroubleError), (0x0213, TroubleError)])
def test_what_a_destination_in_trouble_does_not_commit_to(reason: int, kind: type, tmp_path: Path) -> None:
    transaction = commitment.Transaction("1.2", 1.0)
    transaction.reported.set()
    transaction.reasons = (reason,)
    with pytest.raises(NotTakenError, match="commits to 0 of 1 objects") as raised:
        commitment.check(transaction, DicomPeer("pacs", "PACS", "127.0.0.1", 104), {tmp_path: "1.2.3"})
    assert raised.type is kind


def test_a_destination_that_knows_no_storage_commitment(tmp_path: Path) -> None:
    archive = Archive()
    archive.start()
    peer = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port, "commit_seconds": 5}
    try:
        with running(tmp_path, archive, destinations={"archive": peer}) as (node, rows):
            send(node, series())
            wait_for(lambda: rows)
            assert rows[0]["status"] == "failed"
            assert "accepts none of the SOP classes" in rows[0]["reason"]
    finally:
        archive.close()


def test_a_late_report_delays_no_other_job(tmp_path: Path, committing: Committing) -> None:
    committing.says = lambda request: None if len(committing.asked) == 1 else all_kept(request)
    with running(tmp_path, committing, **settings(committing)) as (node, rows):
        send(node, series("waits"))
        wait_for(lambda: committing.asked)
        send(node, series("goes on"))
        wait_for(lambda: rows)
        assert rows[0]["status"] == "ok"
        assert len(node.spool.jobs("outgoing")) == 1


def test_what_a_crash_left_is_asked_again(tmp_path: Path, committing: Committing) -> None:
    committing.says = lambda request: None
    with running(tmp_path, committing, **settings(committing)) as (node, rows):
        send(node, series())
        wait_for(lambda: committing.asked)
    assert not rows
    committing.says = all_kept
    with running(tmp_path, committing, **settings(committing)) as (_, rows):
        wait_for(lambda: rows)
    assert rows[0]["status"] == "ok"
    assert sorted(committing.taken) == sorted(DERIVED)


def test_a_series_nobody_takes_delays_no_other(tmp_path: Path) -> None:
    """Of a destination that accepts CT only, an MR series must not look like one that is down."""
    archive = Archive()
    archive.start()
    try:
        with running(tmp_path, archive, retry_seconds=0.3) as (node, rows):
            send(node, [mr_slice(0)])
            wait_for(lambda: node.counters.snapshot()["send_failures"])
            send(node, [ct_slice(0, series="taken")])
            wait_for(lambda: archive.taken)
            wait_for(lambda: len(rows) == 2)
        assert sorted(row["status"] for row in rows) == ["failed", "ok"]
    finally:
        archive.close()


def test_orthanc_commits_over_an_association_of_its_own(tmp_path: Path, committing: Committing) -> None:
    port = free_port()
    with running_orthanc(tmp_path / "orthanc", {"sasm": ("SASM", port)}) as server:
        peer = {"ae_title": TITLE, "host": "127.0.0.1", "port": server.dicom_port, "commit_seconds": 60}
        allow = ["SCANNER", f"{TITLE}@127.0.0.1"]
        with running(tmp_path, committing, destinations={"pacs": peer}, allow=allow, port=port) as (node, rows):
            send(node, series())
            wait_for(lambda: rows)
            assert rows[0]["status"] == "ok"
            assert node.counters.snapshot()["committed"] == SLICES
            assert node.counters.snapshot()["send_failures"] == 0
        kept = {one["MainDicomTags"]["SOPInstanceUID"] for one in server.rest("/instances?expand")}
        assert kept == set(DERIVED)


def test_how_long_is_a_length_of_time() -> None:
    peer = {"ae_title": "A", "host": "h", "port": 104}
    base = {"spool": "s", "allow": ["X"]}
    assert config_from({**base, "destinations": {"a": peer}}).destinations[0].commit_seconds is None  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="commit_seconds must be above 0"):
        config_from({**base, "destinations": {"a": {**peer, "commit_seconds": 0}}})
    with pytest.raises(ValueError, match="a destination has"):
        config_from({**base, "destinations": {"a": {"url": "https://a/b", "commit_seconds": 5}}})


def test_the_example_of_the_manual_is_right(tmp_path: Path) -> None:
    text = (CHECKOUT / "docs" / "archive.md").read_text(encoding="utf-8")
    (tmp_path / "node.yaml").write_text(
        "spool: " + text.partition("```yaml\nspool: ")[2].partition("```")[0], encoding="utf-8"
    )
    read = config_from(read_settings(tmp_path / "node.yaml"))
    (peer,) = read.destinations
    assert getattr(peer, "commit_seconds", None) == 600
    assert any(caller.admits("PACS", "10.1.2.9") for caller in read.allow)
