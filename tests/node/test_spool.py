"""The spool and what decides when a series is complete: no crash loses an object or sends one twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pydicom
import pytest

from monai_sasm.batch.lock import LockedError
from monai_sasm.errors import RefusedError
from monai_sasm.node import sender, spool
from monai_sasm.node.arrivals import Arrivals
from monai_sasm.node.config import config_from
from monai_sasm.node.counters import Counters
from monai_sasm.node.sender import Sender
from monai_sasm.node.spool import MAX_STARTS, Job, Spool
from tests.io.dicom.dicom_cases import STEP, ct_slice, save, uid

SLICES = 3


def objects(folder: Path, **changes: object) -> list[bytes]:
    """The bytes of a small CT series."""
    slices = [ct_slice(number, **changes) for number in range(SLICES)]
    return [save(one, folder / f"{number}.dcm").read_bytes() for number, one in enumerate(slices)]


def keep(spool: Spool, content: bytes) -> str:
    with spool.draft(content) as draft:
        spool.keep(draft)
    return draft.key


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.dcm"))


def derive(job: Job) -> Path:
    """What a restorer leaves: the same files with other UIDs."""
    building = job.folder / "derived.tmp"
    building.mkdir(exist_ok=True)
    for file in job.source.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = uid("derived", dataset.SOPInstanceUID)
        save(dataset, building / "series" / file.name)
    return building


class TestSpool:
    def test_an_object_sent_twice_is_one_file_and_a_corrected_one_replaces_it(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        first, *_ = objects(tmp_path / "a")
        corrected, *_ = objects(tmp_path / "b", SeriesDescription="OTHER")
        key = keep(box, first)
        assert keep(box, first) == key
        assert len(names(box.root / "incoming")) == 1
        assert keep(box, corrected) == key
        (path,) = (box.root / "incoming").rglob("*.dcm")
        assert pydicom.dcmread(path).SeriesDescription == "OTHER"

    def test_an_object_of_another_patient_with_that_uid_replaces_none(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        for folder, patient in (("a", "ONE"), ("b", "TWO"), ("c", "TWO")):
            key = keep(box, objects(tmp_path / folder, PatientID=patient, SeriesDescription=folder)[0])
        kept = [pydicom.dcmread(path) for path in (box.root / "incoming" / key).glob("*.dcm")]
        assert {(one.PatientID, one.SeriesDescription) for one in kept} == {("ONE", "a"), ("TWO", "c")}

    def test_slices_that_an_anonymiser_gave_one_uid_are_all_kept(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        shared = {"SOPInstanceUID": uid("shared")}
        (key,) = {keep(box, one) for one in objects(tmp_path / "a", **shared)}
        (other,) = {keep(box, one) for one in objects(tmp_path / "b", **shared, SeriesDescription="OTHER")}
        echo = save(ct_slice(0, **shared, EchoNumbers="2"), tmp_path / "echo.dcm").read_bytes()
        assert keep(box, echo) == key == other
        kept = [pydicom.dcmread(path) for path in (box.root / "incoming" / key).glob("*.dcm")]
        found = sorted((float(one.ImagePositionPatient[2]), one.SeriesDescription) for one in kept)
        first = found[0][1]
        assert found == sorted([(0.0, first), *((STEP * number, "OTHER") for number in range(SLICES))])

    def test_an_object_that_comes_when_its_series_is_found_complete_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its sender must not be told that the disk failed."""
        box = Spool(tmp_path / "spool", "d")
        first, last, *_ = objects(tmp_path / "a")
        key = keep(box, first)
        taking, sync = Thread(target=box.promote, args=(key,)), spool.sync

        def meanwhile(path: Path) -> None:
            if path.name == key:
                taking.start()
                taking.join(0.3)  # in vain, where it has to wait for us
            sync(path)

        monkeypatch.setattr(spool, "sync", meanwhile)
        assert keep(box, last) == key
        taking.join()
        (job,) = box.jobs("ready")
        assert len(job.received()) == 2

    def test_a_draft_that_is_not_kept_is_gone(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        with box.draft(objects(tmp_path / "a")[0]) as draft:
            assert draft.path.is_file()
        assert not list((box.root / "incoming").iterdir())

    def test_names_and_records_hold_no_uid_and_no_patient(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        (key,) = {keep(box, one) for one in objects(tmp_path / "a")}
        job = box.promote(key)
        assert job is not None
        box.quarantine(job, "a reason")
        for path in box.root.rglob("*"):
            assert "1.2.826" not in path.name
        assert (box.root / "quarantine" / job.name / "reason.json").read_text().count("a reason") == 1

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        box = Spool(tmp_path, "d")
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            Spool(tmp_path, "d")
        box.close()
        Spool(tmp_path, "d").close()

    def test_a_series_that_kills_the_process_is_found_out(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        job = box.promote(keep(box, objects(tmp_path / "a")[0]))
        assert job is not None
        for _ in range(MAX_STARTS):
            box.start(job)
        with pytest.raises(RefusedError, match=f"{MAX_STARTS} times"):
            box.start(job)
        box.stop(job)
        box.start(job)

    def test_what_was_sent_is_known_under_the_same_derivation_only(self, tmp_path: Path) -> None:
        contents = objects(tmp_path / "a")
        for derivation, repeated in (("first", 0), ("first", SLICES), ("other", 0)):
            box = Spool(tmp_path / "spool", derivation)
            (key,) = {keep(box, one) for one in contents}
            job = box.promote(key)
            assert job is not None
            assert box.drop_known(job) == repeated
            box.delivered(job)
            box.close()
        assert not names(tmp_path / "spool")

    def test_one_job_that_cannot_be_deleted_keeps_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        box = Spool(tmp_path / "spool", "d")
        for name in ("1-by-hand", "2-busy", "3-old"):
            source = Job(box.root / "quarantine" / name).source
            source.mkdir(parents=True)
            (source / "a.dcm").write_text("x")
        for name in ("2-busy", "3-old"):
            job = Job(box.root / "quarantine" / name)
            job.folder.rename(box.root / "ready" / name)
            box.quarantine(Job(box.root / "ready" / name), "a reason")
        (box.root / "made" / "aaaa").touch()
        long_ago = spool.time.time() - 2 * 86400
        for path in (box.root / "made" / "aaaa", *(box.root / "quarantine").glob("*/reason.json")):
            os.utime(path, (long_ago, long_ago))
        discard = box.discard

        def busy(job: Job) -> None:
            if job.name == "2-busy":
                raise PermissionError(13, "Permission denied")
            discard(job)

        monkeypatch.setattr(box, "discard", busy)
        assert box.forget(days=1) == ["3-old"]
        assert not list((box.root / "made").iterdir())
        assert [job.name for job in box.jobs("quarantine")] == ["1-by-hand", "2-busy"]
        monkeypatch.setattr(box, "discard", discard)
        assert box.forget(days=1) == ["2-busy"], "the time of what was put there by hand has just begun"
        os.utime(box.root / "quarantine" / "1-by-hand" / "reason.json", (long_ago, long_ago))
        assert box.forget(days=1) == ["1-by-hand"]

    def test_a_job_that_was_moved_is_not_made_again_by_setting_it_aside(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        job = box.promote(keep(box, objects(tmp_path / "a")[0]))
        assert job is not None
        job.folder.rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match="not in ready/ any more"):
            box.quarantine(job, "a reason")
        assert not box.jobs("quarantine")

    def test_objects_that_lie_at_the_wrong_place_of_a_job_survive_a_start(self, tmp_path: Path) -> None:
        box = Spool(tmp_path / "spool", "d")
        stray = box.root / "ready" / "1-by-hand" / "1-by-hand" / "source" / "a.dcm"
        stray.parent.mkdir(parents=True)
        stray.write_text("x")
        (box.root / "ready" / "2-empty" / "derived.tmp").mkdir(parents=True)
        (box.root / "ready" / "2-empty" / "derived.tmp" / "a.dcm").write_text("x")
        box.close()
        (job,) = Spool(tmp_path / "spool", "d").jobs("ready")
        assert job.strays() == [stray]

    def test_a_line_cut_off_by_a_crash_belongs_to_nobody(self, tmp_path: Path) -> None:
        job = Job(tmp_path / "job")
        job.folder.mkdir()
        job.note_sent("pacs", ["1.2", "1.3"])
        with open(job.folder / "sent.log", "ab") as file:
            file.write(b"1.4 pa")
        assert job.sent() == {("pacs", "1.2"), ("pacs", "1.3")}
        job.note_sent("pacs", ["1.5"])
        assert ("pacs", "1.5") in job.sent()
        assert ("pacs", "1.4") not in job.sent()


def _crashing(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process die at the ``after``-th change of the disk."""
    steps = count(1)

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **keywords: Any) -> Any:
            if next(steps) == after:
                os._exit(9)
            return function(*arguments, **keywords)

        return step

    for name in ("rename", "replace", "unlink", "fsync", "mkdir"):
        monkeypatch.setattr(os, name, stepping(getattr(os, name)))
    monkeypatch.setattr(spool.shutil, "rmtree", stepping(spool.shutil.rmtree))


def _work(folder: Path, contents: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node does with a series its sender sends again and again until it is acknowledged, in one thread.

    The destination notes each object it takes in a file of its own.
    """
    taken_file = folder / "taken"

    def take(peer: Any, files: list[Path], calling: str, taken: Callable[[list[str]], None]) -> None:
        for file in files:
            with open(taken_file, "a") as log:
                log.write(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID + "\n")
            taken([str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)])

    monkeypatch.setattr(sender, "deliver", take)
    box = Spool(folder / "spool", "d")
    acknowledged = folder / "acknowledged"
    if not acknowledged.exists():
        for one in contents:
            keep(box, one)
        acknowledged.touch()
    for key in box.incoming():
        box.promote(key)
    for job in box.jobs("ready"):
        box.drop_known(job)
        if not job.received():
            box.discard(job)
            continue
        box.start(job)
        building = derive(job)
        box.stop(job)
        box.restored(job, building)
    settings = {"spool": folder, "destinations": {"pacs": "A@localhost:1"}, "allow": ["*"]}
    pump = Sender(config_from(settings), box, Counters(), lambda job, files: None, box.quarantine)
    while box.jobs("outgoing"):
        pump.send_due()
    box.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_change_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step one process dies; the next one finishes the job. At most the object in flight is taken twice."""
    contents = objects(tmp_path / "source")[:2]
    expected = {uid("derived", uid("plain", number)) for number in range(2)}
    died = twice = 0
    for step in count(1):
        folder = tmp_path / str(step)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            with monkeypatch.context() as patch:
                _crashing(step, patch)
                try:
                    _work(folder, contents, patch)
                except BaseException:
                    os._exit(1)
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), f"step {step} ended with {code}"
        with monkeypatch.context() as patch:
            _work(folder, contents, patch)
        taken = (folder / "taken").read_text().split()
        assert set(taken) == expected, f"lost after a crash at step {step}"
        assert len(taken) <= 2 + 1, f"sent again after a crash at step {step}"
        twice += len(taken) > 2
        box = Spool(folder / "spool", "d")
        assert not names(box.root), f"step {step} left files behind"
        box.close()
        if code == 0:
            break
        died += 1
    assert died > 30, "the crashes must have happened for this to mean anything"
    assert twice <= 2 * 2, "only a crash between taking and noting sends an object again"


def test_a_destination_that_is_down_costs_nothing_until_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Spool(tmp_path / "spool", "d")
    (key,) = {keep(box, one) for one in objects(tmp_path / "a")}
    job = box.promote(key)
    assert job is not None
    box.restored(job, derive(job))
    looked: list[Path] = []
    read = sender.sop_instance
    monkeypatch.setattr(sender, "sop_instance", lambda file: (looked.append(file), read(file))[1])
    settings = {
        "spool": tmp_path, "destinations": {"one": "A@127.0.0.1:1", "two": "A@127.0.0.1:2"}, "allow": ["*"],
        "retry_seconds": 1000,
    }  # fmt: skip
    asked: list[str] = []

    def down(peer: Any, *arguments: Any) -> None:
        asked.append(peer.name)
        raise sender.UnreachableError(f"{peer.name} does not answer")

    monkeypatch.setattr(sender, "deliver", down)
    pump = Sender(config_from(settings), box, Counters(), lambda job, files: None, box.quarantine)
    for _ in range(20):
        assert not pump.send_due()
    assert asked == ["one", "two"]
    assert len(looked) == SLICES
    assert set(pump.unreachable) == {"one", "two"}


class TestArrivals:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def arrivals(self, clock: list[float]) -> Arrivals:
        return Arrivals(10, 60, lambda: clock[0])

    def test_quiet_after_the_last_association(self, arrivals: Arrivals, clock: list[float]) -> None:
        arrivals.arrived("a", 1)
        clock[0] += 1000
        assert arrivals.complete() == [], "its association is still open"
        arrivals.closed(1, broken=False)
        clock[0] += 9
        assert arrivals.complete() == []
        arrivals.arrived("a", 2)
        arrivals.closed(2, broken=False)
        clock[0] += 9
        assert arrivals.complete() == [], "another object came"
        clock[0] += 1
        assert arrivals.complete() == ["a"]
        with arrivals.taking("a"):
            pass
        assert arrivals.complete() == []

    def test_a_broken_association_is_given_time(self, arrivals: Arrivals, clock: list[float]) -> None:
        arrivals.arrived("a", 1)
        arrivals.closed(1, broken=True)
        arrivals.resume("b")
        clock[0] += 59
        assert arrivals.complete() == []
        arrivals.arrived("a", 2)
        arrivals.closed(2, broken=False)
        clock[0] += 10
        assert arrivals.complete() == ["b", "a"], "a came again, b has waited long enough"

    def test_a_failure_to_take_changes_nothing(self, arrivals: Arrivals, clock: list[float]) -> None:
        arrivals.arrived("a", 1)
        arrivals.closed(1, broken=False)
        clock[0] += 10
        with pytest.raises(OSError, match="full"), arrivals.taking("a"):
            raise OSError("full")
        assert arrivals.complete() == ["a"]
