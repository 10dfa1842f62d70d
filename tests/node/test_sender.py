"""From the spool to the destinations: nothing that was received leaves it before it is restored and sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.node import sender
from monai_sasm.node.config import config_from
from monai_sasm.node.counters import Counters
from monai_sasm.node.sender import DestinationQueue, Sender
from monai_sasm.node.spool import Job, Spool
from tests.node.test_spool import SLICES, derive, keep, names, objects


class Bench:
    """A spool with two destinations; ``refuses`` names (destination, job) that are refused for good."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool", "d")
        self.taken: list[tuple[str, str]] = []
        self.delivered: list[tuple[str, int]] = []
        self.reasons: dict[str, str] = {}
        self.refuses: set[tuple[str, str]] = set()
        self.during: Callable[[str, str], None] = lambda peer, job: None
        monkeypatch.setattr(sender, "deliver", self._deliver)
        settings = {
            "spool": folder, "destinations": {"a": "A@127.0.0.1:1", "b": "B@127.0.0.1:2"}, "allow": ["*"],
            "retry_seconds": 0,
        }  # fmt: skip
        self.sender = Sender(
            config_from(settings),
            self.spool,
            Counters(),
            lambda job, files: self.delivered.append((job.name, files)),
            self._set_aside,
        )
        self.a, self.b = self.sender.queues

    def job(self, name: str) -> Job:
        """A job in ``outgoing``."""
        (key,) = {keep(self.spool, one) for one in objects(self.folder / name, SeriesInstanceUID=f"1.2.{len(name)}")}
        job = self.spool.promote(key)
        assert job is not None
        self.spool.restored(job, derive(job))
        return self.spool.jobs("outgoing")[-1]

    def send(self, *queues: DestinationQueue, times: int = 3) -> None:
        for _ in range(times):
            for queue in queues or (self.a, self.b):
                queue.send_due()

    def _deliver(self, peer: Any, files: Sequence[Path], calling: str, taken: Callable[[list[str]], None]) -> None:
        if not files:
            return
        job = files[0].parents[2].name
        self.during(peer.name, job)
        if (peer.name, job) in self.refuses:
            raise sender.NotTakenError(f"{peer.name} refuses")
        self.taken += [(peer.name, file.name) for file in files]
        taken([sender.sop_instance(file) for file in files])

    def _set_aside(self, job: Job, reason: str) -> None:
        self.reasons[job.name] = reason
        self.spool.quarantine(job, reason)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def ledger(bench: Bench) -> list[str]:
    return [line for path in (bench.spool.root / "ledger").rglob("*") if path.is_file() for line in path.open()]


def test_a_job_set_aside_while_another_queue_works_is_sent_when_it_is_moved_back(bench: Bench) -> None:
    first, second = bench.job("1"), bench.job("22")
    bench.refuses = {("b", first.name), ("a", second.name)}
    bench.send(bench.b, times=1)  # it has the second one
    bench.refuses = {("a", second.name)}

    def meanwhile(peer: str, job: str) -> None:
        bench.during = lambda peer, job: None
        bench.send(bench.a)  # its thread sets the second one aside, of which the other queue still knows

    bench.during = meanwhile
    bench.send(bench.b, times=1)
    assert bench.reasons == {second.name: "a refused objects 3 times: a refuses"}
    assert bench.delivered == [(first.name, SLICES)]
    bench.refuses = set()
    (aside,) = bench.spool.jobs("quarantine")
    aside.folder.rename(second.folder)
    bench.send()
    assert bench.delivered == [(first.name, SLICES), (second.name, SLICES)]
    assert sorted(bench.taken.count(one) for one in set(bench.taken)) == [1] * 4 * SLICES
    assert len(ledger(bench)) == 2 * SLICES


def test_a_job_that_leaves_and_returns_within_a_pass_is_sent_as_it_lies_there(bench: Bench) -> None:
    """What a queue remembers is of the job as it was: here it comes back with other derived files."""
    job = bench.job("1")
    bench.refuses = {("a", job.name)}
    bench.send(bench.b, times=1)
    assert bench.b.has_ended(job)
    (job.folder / "sent.log").unlink()
    bench.refuses = set()
    bench.send(bench.a, times=1)
    assert job.folder.is_dir(), "what b had is not noted any more: it is no proof"
    assert not bench.delivered
    bench.send()
    assert bench.delivered == [(job.name, SLICES)]
    assert [peer for peer, _ in bench.taken] == ["b"] * SLICES + ["a"] * SLICES + ["b"] * SLICES


def test_a_job_with_nothing_to_send_is_set_aside_and_keeps_what_was_received(bench: Bench) -> None:
    """A series that could not be restored, moved to outgoing/ instead of ready/."""
    (key,) = {keep(bench.spool, one) for one in objects(bench.folder / "1")}
    job = bench.spool.promote(key)
    assert job is not None
    job.folder.rename(bench.spool.root / "outgoing" / job.name)
    bench.send()
    assert not bench.delivered
    assert "move its job to ready/" in bench.reasons[job.name]
    (aside,) = bench.spool.jobs("quarantine")
    assert len(names(aside.source)) == SLICES
    assert not ledger(bench)


def test_what_was_known_of_a_job_moved_by_hand_is_forgotten(bench: Bench) -> None:
    job = bench.job("1")
    bench.refuses = {("a", job.name), ("b", job.name)}
    bench.send(times=1)
    assert bench.sender.known == {job.name}
    job.folder.rename(bench.folder / "elsewhere")
    bench.send(bench.a, times=1)
    assert bench.sender.known == set()
