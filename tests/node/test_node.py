"""The node in this process, with a restorer that only renames: who may send, what is dropped, what is set aside."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from monai_sasm.batch import work
from monai_sasm.batch.settings import read_settings
from monai_sasm.errors import RefusedError
from monai_sasm.io.silence import quiet
from monai_sasm.node import config, sender, service
from monai_sasm.node.config import config_from
from monai_sasm.node.outcome import NoMemoryError, Outcome
from monai_sasm.node.restorer import SeriesRestorer
from monai_sasm.node.service import Node
from tests.io.dicom.dicom_cases import CT, ct_slice, file_meta_of, other_object, save, uid
from tests.node.waiting import dicom_in, wait_for
from tests.ports import free_port
from tests.rows import check_rows

pynetdicom = pytest.importorskip("pynetdicom")

STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
SLICES = 4


class Renamer:
    """Gives each file another SOP Instance UID; ``refuse`` or ``skip`` say of one why not, ``fail`` of the whole."""

    digest = "0" * 64

    def __init__(self) -> None:
        self.refuse: Callable[[Dataset], str | None] = lambda dataset: None
        self.skip: Callable[[Dataset], str | None] = lambda dataset: None
        self.fail: Exception | None = None

    def __call__(self, source: Path, derived: Path, progress: Callable[[int], None]) -> Outcome:
        if self.fail is not None:
            raise self.fail
        written, refused, passed = 0, [], []
        for file in sorted(source.glob("*.dcm")):
            dataset = pydicom.dcmread(file)
            if reason := self.refuse(dataset) or self.skip(dataset):
                (refused if self.refuse(dataset) else passed).append(((file,), reason))
                continue
            dataset.SOPInstanceUID = uid("derived", dataset.SOPInstanceUID)
            save(dataset, derived / "series" / file.name)
            written += 1
        return Outcome(written, tuple(refused), tuple(passed))


class Archive:
    """A C-STORE server that notes what it takes, and answers with ``status``."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.status = 0x0000
        self.port = free_port()
        self._server: Any = None

    def start(self) -> None:
        entity = pynetdicom.AE(ae_title="ARCHIVE")
        entity.require_calling_aet = ["SASM"]
        entity.add_supported_context(CT)
        handlers = [(pynetdicom.evt.EVT_C_STORE, self._store)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def _store(self, event: Any) -> int:
        if self.status == 0:
            self.taken.append(str(event.dataset.SOPInstanceUID))
        return self.status


@contextmanager
def running(
    folder: Path, archive: Archive, restorer: Renamer | None = None, **settings: Any
) -> Iterator[tuple[Node, list[dict[str, Any]]]]:
    """A node at work, and the rows it has reported."""
    values = {
        "spool": folder / "spool", "allow": ["SCANNER"],
        "destinations": {"archive": f"ARCHIVE@127.0.0.1:{archive.port}"},
        "port": 0, "http_port": 0, "quiet_seconds": 0.2, "interrupted_seconds": 0.2, "retry_seconds": 0.1,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    node = Node(config_from({**values, **settings}), restorer or Renamer(), rows.append)
    thread = Thread(target=node.run)
    thread.start()
    try:
        yield node, rows
    finally:
        node.stop()
        thread.join()


def send(node: Node, datasets: Sequence[Dataset], title: str = "SCANNER") -> list[int]:
    """C-STORE over one association; the statuses."""
    entity = pynetdicom.AE(ae_title=title)
    for sop_class in {dataset.SOPClassUID for dataset in datasets}:
        entity.add_requested_context(sop_class, pydicom.uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="SASM")
    assert association.is_established
    statuses = []
    for dataset in datasets:
        dataset.file_meta = file_meta_of(dataset)
        statuses.append(int(association.send_c_store(dataset).Status))
    association.release()
    return statuses


def series(name: str = "plain", count: int = SLICES) -> list[Dataset]:
    return [ct_slice(number, series=name) for number in range(count)]


def health(node: Node, path: str = "/healthz") -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{node.http_port}{path}") as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_series_is_sent_once_and_a_late_slice_follows(
    tmp_path: Path, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "monai_sasm")
    with running(tmp_path, archive) as (node, rows):
        assert send(node, series(count=3)) == [0] * 3
        wait_for(lambda: rows)
        assert send(node, series()) == [0] * SLICES, "three known ones and the late one"
        wait_for(lambda: len(rows) == 2)
        assert send(node, series()) == [0] * SLICES
        wait_for(lambda: node.counters.snapshot()["repeated"] == 3 + SLICES)
        assert sorted(archive.taken) == sorted(uid("derived", uid("plain", number)) for number in range(SLICES))
        check_rows(rows)
        assert [(row["status"], row["output"]) for row in rows] == [
            ("ok", {"files": 3, "destinations": ["archive"]}),
            ("ok", {"files": 1, "destinations": ["archive"]}),
        ]
        wait_for(lambda: not dicom_in(tmp_path))
        status, text = health(node, "/metrics")
        assert status == 200
        assert "sasm_node_sent_total 4\n" in text
        assert 'sasm_node_series{state="outgoing"} 0\n' in text
    written = caplog.text + json.dumps(rows)
    assert "objects sent to archive" in written
    assert not [text for text in ("Müller", "SECRET-17", uid("plain"), uid("study")) if text in written]


def test_only_allowed_callers(tmp_path: Path, archive: Archive) -> None:
    allow = ["SCANNER@127.0.0.1", "ELSEWHERE@127.0.0.2"]
    with running(tmp_path, archive, allow=allow) as (node, _):
        answers = {}
        for title, called, address in (
            ("SCANNER", "SASM", "127.0.0.1"),
            ("ELSEWHERE", "SASM", "127.0.0.2"),
            ("ELSEWHERE", "SASM", "127.0.0.1"),
            ("STRANGER", "SASM", "127.0.0.1"),
            ("SCANNER", "OTHER", "127.0.0.1"),
            ("SCANNER", "SASM", "127.0.0.3"),
        ):
            entity = pynetdicom.AE(ae_title=title)
            entity.add_requested_context("1.2.840.10008.1.1")
            association = entity.associate("127.0.0.1", node.port, ae_title=called, bind_address=(address, 0))
            if association.is_established:
                answers[title, called, address] = int(association.send_c_echo().Status)
                association.release()
            else:
                answers[title, called, address] = -1 if association.is_rejected else -2
        assert answers == {
            ("SCANNER", "SASM", "127.0.0.1"): 0x0000,
            ("ELSEWHERE", "SASM", "127.0.0.2"): 0x0000,
            ("ELSEWHERE", "SASM", "127.0.0.1"): -1,
            ("STRANGER", "SASM", "127.0.0.1"): -1,
            ("SCANNER", "OTHER", "127.0.0.1"): -1,
            ("SCANNER", "SASM", "127.0.0.3"): -2,
        }
        assert node.counters.snapshot()["not_authorised"] == 4
        assert not dicom_in(tmp_path)


def test_a_socket_for_both_protocols_knows_callers_by_their_address(tmp_path: Path, archive: Archive) -> None:
    """It sees ``::ffff:127.0.0.1`` where 127.0.0.1 calls."""
    allow = ["SCANNER@127.0.0.1", "OTHER@127.0.0.2"]
    with running(tmp_path, archive, allow=allow, host="::") as (node, _):
        assert send(node, series(count=1)) == [0]
        entity = pynetdicom.AE(ae_title="OTHER")
        entity.add_requested_context("1.2.840.10008.1.1")
        assert entity.associate("127.0.0.1", node.port, ae_title="SASM").is_rejected


@pytest.mark.parametrize(
    ("allowed", "calling", "admitted"),
    [
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("::ffff:a01:203", "10.1.2.3", True),
        ("FD00:0:0::7", "fd00::7", True),
        ("127.0.0.1", "::1", False),
        ("10.1.2.3", "::ffff:10.1.2.4", False),
        ("10.1.2.3", "::10.1.2.3", False),
    ],
)
def test_addresses_are_compared_however_they_are_written(allowed: str, calling: str, admitted: bool) -> None:
    assert config.Caller("SCANNER", allowed).admits("SCANNER", calling) is admitted


def test_reports_and_own_results_are_acknowledged_and_dropped(tmp_path: Path, archive: Archive) -> None:
    own = ct_slice(0)
    item = Dataset()
    item.ManufacturerModelName = "monai_sasm"
    own.ContributingEquipmentSequence = Items([item])
    with running(tmp_path, archive) as (node, _):
        assert send(node, [own, other_object(STRUCTURED_REPORT, "SR")]) == [0, 0]
        counts = node.counters.snapshot()
        assert (counts["ignored_own"], counts["ignored_other"], counts["received"]) == (1, 1, 0)
        assert not dicom_in(tmp_path)


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.3.12.2.1107.5.9.1",  # Siemens CSA Non-Image Storage, in nearly every MR study of a Siemens scanner
        "1.3.46.670589.11.0.0.12.1",  # Philips Private MR Spectrum Storage
        "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image Storage, retired
    ],
)
def test_objects_of_private_and_retired_classes_are_acknowledged_and_dropped(
    sop_class: str, tmp_path: Path, archive: Archive
) -> None:
    """A PACS that routes the study would take their refusal for a failure of all."""
    with running(tmp_path, archive) as (node, rows):
        assert send(node, [*series(), other_object(sop_class, "MR")]) == [0] * (SLICES + 1)
        wait_for(lambda: rows)
        assert node.counters.snapshot()["ignored_other"] == 1
        assert len(archive.taken) == SLICES
        wait_for(lambda: not dicom_in(tmp_path))


def test_other_services_than_storage_are_not_offered(tmp_path: Path, archive: Archive) -> None:
    find, move = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
    with running(tmp_path, archive) as (node, _):
        entity = pynetdicom.AE(ae_title="SCANNER")
        for sop_class in ("1.2.840.10008.1.1", find, move):
            entity.add_requested_context(sop_class)
        association = entity.associate("127.0.0.1", node.port, ae_title="SASM")
        assert sorted(one.abstract_syntax for one in association.rejected_contexts) == [find, move]
        association.release()


def test_what_cannot_be_restored_is_set_aside_with_the_reason(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()
    restorer.fail = RefusedError("slices are missing; send them")
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
        (job,) = node.spool.jobs("quarantine")
        assert json.loads((job.folder / "reason.json").read_text())["reason"] == "slices are missing; send them"
        assert len(dicom_in(job.folder)) == SLICES
        check_rows(rows)
        assert rows[0]["input"]["id"] == job.name
        assert rows[0]["reason"] == "slices are missing; send them"
        restorer.fail = KeyError("Müller")
        send(node, series("second"))
        wait_for(lambda: len(rows) == 2)
        assert "Müller" not in rows[1]["reason"]
        assert "KeyError" in rows[1]["reason"]
        restorer.fail = None
        job.folder.rename(node.spool.root / "ready" / job.name)  # by hand: try it again
        wait_for(lambda: len(archive.taken) == SLICES)


def test_part_of_a_series_is_set_aside(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()
    restorer.refuse = lambda dataset: "a localizer" if dataset.InstanceNumber == 1 else None
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
        assert len(archive.taken) == SLICES - 1
        (part,) = node.spool.jobs("quarantine")
        (file,) = dicom_in(part.folder)
        assert pydicom.dcmread(file).SOPInstanceUID == uid("plain", 0)


def test_what_there_is_nothing_to_restore_in_is_dropped_and_counted(
    tmp_path: Path, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    restorer = Renamer()
    restorer.skip = lambda dataset: "a localizer" if "LOCALIZER" in dataset.ImageType else None
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, [ct_slice(0, series="scout", ImageType=scout)])
        wait_for(lambda: rows)
        check_rows(rows)
        assert (rows[0]["status"], rows[0]["reason"]) == ("skipped", "a localizer")
        send(node, [*series(count=2), ct_slice(2, ImageType=scout)])
        wait_for(lambda: len(rows) == 2)
        assert rows[1]["output"]["files"] == 2
        counts = node.counters.snapshot()
        assert (counts["passed_over"], counts["quarantined"]) == (2, 0)
        wait_for(lambda: not dicom_in(tmp_path))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_batch_and_node_agree_about_what_is_no_fault(tmp_path: Path, toy_restorer: Any) -> None:
    work._restorer.cache_clear()
    source = tmp_path / "source"
    scout = save(ct_slice(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), source / "scout.dcm")
    save(ct_slice(0, series="whole"), source / "whole.dcm")
    lost = save(ct_slice(0, series="lost", PixelData=None), source / "lost.dcm")
    outcome = SeriesRestorer({"device": "cpu"})(source, tmp_path / "derived")
    work._restorer.cache_clear()
    assert outcome.written == 1
    assert [paths for paths, _ in outcome.passed] == [(scout,)]
    assert [paths for paths, _ in outcome.refused] == [(lost,)]


def test_a_job_put_together_wrongly_by_hand_is_set_aside(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive) as (node, rows):
        moved = tmp_path / "1-by-hand"
        moved.mkdir()
        save(series(count=1)[0], moved / "a.dcm")
        moved.rename(node.spool.root / "ready" / moved.name)
        wait_for(lambda: rows)
        assert "source/" in rows[0]["reason"]
        (job,) = node.spool.jobs("quarantine")
        assert len(dicom_in(job.folder)) == 1


def test_a_full_disk_is_said_to_the_sender(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive, min_free_mb=1 << 40) as (node, _):
        assert send(node, series(count=1)) == [0xA700]
        status, text = health(node)
        assert status == 503
        assert "less disk is free" in json.loads(text)["problems"][0]
        assert not dicom_in(tmp_path)


def test_a_failing_disk_during_restoration_is_tried_again(tmp_path: Path, archive: Archive) -> None:
    restorer = Renamer()
    restorer.fail = OSError(28, "No space left on device")
    with running(tmp_path, archive, restorer) as (node, rows):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["errors"] > 4)
        assert not rows
        restorer.fail = None
        wait_for(lambda: len(archive.taken) == SLICES)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), MemoryError()])
def test_want_of_memory_is_tried_again_for_an_hour(
    error: Exception, tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = Renamer()
    restorer.fail = error
    with running(tmp_path, archive, restorer, retry_seconds=0.02) as (node, rows):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["errors"] > service.MAX_FAILURES)
        assert not rows
        restorer.fail = None
        wait_for(lambda: len(archive.taken) == SLICES)
        restorer.fail = error
        monkeypatch.setattr(service, "MAX_SHORTAGE", 0.1)
        send(node, series("huge"))
        wait_for(lambda: len(rows) == 2)
        assert (rows[1]["status"], "not enough memory" in rows[1]["reason"]) == ("failed", True)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS out of memory")])
def test_an_accelerator_without_memory_is_no_fault_of_the_series(
    error: Exception, tmp_path: Path, toy_restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(*given: Any, **named: Any) -> None:
        raise error

    work._restorer.cache_clear()
    monkeypatch.setattr(work, "_written", written)
    save(ct_slice(0), tmp_path / "source" / "one.dcm")
    with pytest.raises(NoMemoryError, match=r"^the accelerator has not enough memory"):
        SeriesRestorer({"device": "cpu"})(tmp_path / "source", tmp_path / "derived")
    work._restorer.cache_clear()


def test_a_derived_file_that_is_damaged_blocks_nobody(tmp_path: Path) -> None:
    archive = Archive()
    with running(tmp_path, archive) as (node, _):
        send(node, series("damaged"))
        wait_for(lambda: node.spool.jobs("outgoing"))
        (job,) = node.spool.jobs("outgoing")
    file = job.files()[0]
    file.write_bytes(file.read_bytes()[:200])
    archive.start()
    try:
        with running(tmp_path, archive) as (node, rows):
            send(node, series("sound"))
            wait_for(lambda: len(rows) == 2)
        assert [row["status"] for row in rows] == ["failed", "ok"]
        assert "is damaged" in rows[0]["reason"]
    finally:
        archive.close()


def test_a_destination_that_is_down_gets_everything_later(tmp_path: Path) -> None:
    archive = Archive()
    with running(tmp_path, archive) as (node, rows):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["send_failures"] > 1)
        status, text = health(node)
        assert status == 200, "the node itself is well"
        assert json.loads(text)["unreachable"] == {"archive": "archive does not answer"}
    assert not rows
    archive.start()
    try:
        with running(tmp_path, archive) as (node, rows):
            wait_for(lambda: rows)
            assert len(archive.taken) == len(set(archive.taken)) == SLICES
            assert json.loads(health(node)[1])["unreachable"] == {}
    finally:
        archive.close()


def test_a_destination_out_of_resources_is_asked_again(tmp_path: Path, archive: Archive) -> None:
    archive.status = 0xA700
    with running(tmp_path, archive) as (node, rows):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["send_failures"] > 3)
        archive.status = 0
        wait_for(lambda: rows)
        assert rows[0]["status"] == "ok"


@pytest.mark.parametrize("status", [0x0110, 0x0124, 0xCABC])
def test_a_destination_in_trouble_is_asked_again_for_a_day(
    status: int, tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.status = status
    with running(tmp_path, archive, retry_seconds=0.02) as (node, rows):
        send(node, series())
        wait_for(lambda: node.counters.snapshot()["send_failures"] > 2 * sender.MAX_REFUSALS)
        assert not rows
        archive.status = 0
        wait_for(lambda: rows)
        assert rows[0]["status"] == "ok"
        assert len(archive.taken) == SLICES
        archive.status = status
        monkeypatch.setattr(sender, "MAX_TROUBLE", 0.1)
        send(node, series("never"))
        wait_for(lambda: len(rows) == 2)
        assert rows[1]["status"] == "failed"
        assert f"{status:04X}" in rows[1]["reason"]


def test_a_series_at_which_a_destination_breaks_down_blocks_nobody(tmp_path: Path, archive: Archive) -> None:
    """Some archives hang up on one object, each time: those behind it must not wait for ever."""
    poison, store = uid("derived", uid("poison", 0)), archive._store

    def breaking(event: Any) -> int:
        if event.dataset.SOPInstanceUID == poison:
            event.assoc.abort()
        return store(event)

    archive.close()
    archive._store = breaking  # type: ignore[method-assign]
    archive.start()
    with running(tmp_path, archive, retry_seconds=0.5) as (node, rows):
        send(node, series("poison", 1))
        wait_for(lambda: node.counters.snapshot()["send_failures"])
        send(node, series("good", 2))
        wait_for(lambda: rows)
        assert (rows[0]["status"], rows[0]["output"]["files"]) == ("ok", 2)
        (left,) = node.spool.jobs("outgoing")
        assert len(left.files()) == 1, "nothing is lost"


def test_a_destination_that_refuses_for_good_blocks_nobody(tmp_path: Path, archive: Archive) -> None:
    archive.status = 0xA900
    with running(tmp_path, archive) as (node, rows):
        send(node, series("refused"))
        wait_for(lambda: rows)
        assert rows[0]["status"] == "failed"
        assert "A900" in rows[0]["reason"]
        (job,) = node.spool.jobs("quarantine")
        assert len(job.files()) == SLICES, "the derived files are kept"
        archive.status = 0
        send(node, series("taken"))
        wait_for(lambda: len(rows) == 2)
        assert rows[1]["status"] == "ok"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allow": []}, "who may send"),
        ({"destinations": {}}, "needs a destination"),
        ({"send_to": ["nowhere"]}, "nowhere"),
        ({"destinations": {}, "send_to": ["PACS@host:104"]}, "destinations={'NAME': 'AE@HOST:PORT'}"),
        ({"destinations": {"pacs": "somewhere"}}, "AE@HOST:PORT"),
        ({"destinations": {"pacs": {"ae_title": "A"}}}, "destination has"),
        ({"ae_title": "LONGER THAN SIXTEEN"}, "16 ASCII"),
        ({"quiet": 3}, "unknown setting quiet"),
        ({"spool": None}, "what is in flight"),
        ({"retry_seconds": -1}, "negative"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    good = {"spool": "spool", "destinations": {"pacs": "PACS@pacs.example:104"}, "allow": ["CT1"]}
    assert config_from(good).port == 11112
    assert config_from(good).host == "127.0.0.1"
    with pytest.raises(ValueError, match=message):
        config_from({**good, **settings})


def test_the_example_of_a_configuration_is_right(tmp_path: Path) -> None:
    text = str(config.__doc__).partition("::")[2]
    (tmp_path / "node.yaml").write_text(textwrap.dedent(text))
    read = config.config_from(read_settings(tmp_path / "node.yaml"))
    assert [caller.host for caller in read.allow] == ["127.0.0.1", "10.1.2.3"]
    assert [peer.name for peer in read.destinations] == ["pacs"]
    assert read.restore["strength"] == 0.8


def test_a_port_that_is_taken_is_named(tmp_path: Path, archive: Archive) -> None:
    with pytest.raises(OSError, match=f"port {archive.port} of 127.0.0.1 cannot be listened on"):  # noqa: SIM117
        with running(tmp_path, archive, port=archive.port):
            pass
    with running(tmp_path, archive) as (node, _):
        assert health(node)[0] == 200, "the spool was let go"


def test_peers_are_read_in_every_spelling() -> None:
    settings = {
        "spool": "spool",
        "allow": ["*"],
        "destinations": {
            "a": "PACS@[::1]:104",
            "b": {"ae_title": "PACS", "host": "pacs", "port": 104},
            "c": {"url": "https://pacs/dicom-web", "token_env": "TOKEN"},
            "d": "http://pacs/dicom-web",
        },
        "send_to": ["c", "a"],
    }
    first, second = config_from(settings).destinations
    assert (first.name, getattr(first, "token_env", None)) == ("c", "TOKEN")
    assert (second.name, getattr(second, "host", None), getattr(second, "port", None)) == ("a", "::1", 104)
    assert config_from({**settings, "send_to": ["a", "c", "a"]}).destinations == (second, first), "once each"


def test_no_thread_logs_what_callers_send(
    tmp_path: Path, archive: Archive, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pynetdicom", "pydicom"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    image = ct_slice(0)
    with quiet():
        image.SOPInstanceUID = UID("Doe.John.1950", validation_mode=0)
    with caplog.at_level(logging.DEBUG), running(tmp_path, archive) as (node, _):
        send(node, [image])
    assert not [record.getMessage() for record in caplog.records if "Doe.John" in record.getMessage()]
