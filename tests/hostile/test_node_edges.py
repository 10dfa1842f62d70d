"""The node's ports and its folder, against callers and users who should stay outside."""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.header import read_header
from monai_sasm.node import acceptor
from monai_sasm.node.connections import Connections
from monai_sasm.node.spool import Spool
from tests.io.dicom.dicom_cases import CT, ct_slice, file_meta_of, save, uid
from tests.node.test_node import SLICES, Archive, Renamer, health, running, send, series
from tests.node.waiting import wait_for

pynetdicom = pytest.importorskip("pynetdicom")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the node's edges are those of a Unix system")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def connect(
    port: int, count: int, stack: ExitStack, source: str = "127.0.0.1", said: bytes = b""
) -> list[socket.socket]:
    """Connections that say ``said`` and then nothing."""
    made = []
    for _ in range(count):
        one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5, source_address=(source, 0)))
        if said:
            one.sendall(said)
        made.append(one)
    return made


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("said", [b"", b"\x01\x00\x00\x00\x10\x00half a request"])
def test_silent_connections_keep_nobody_out(source: str, said: bytes, tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive) as (node, rows), ExitStack() as stack:
        before = descriptors()
        connect(node.port, 200, stack, source, said)
        started = time.monotonic()
        assert send(node, series()) == [0] * SLICES
        assert time.monotonic() - started < 5
        wait_for(lambda: rows)
        assert descriptors() - before - 200 < 2 * acceptor.MAX_PER_HOST + 30


def test_the_silent_are_hung_up_on(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "GREETING_SECONDS", 1.0)
    with running(tmp_path, archive) as (node, _), ExitStack() as stack:
        (silent,) = connect(node.port, 1, stack)
        silent.settimeout(5)
        assert silent.recv(1) == b""


def test_half_open_requests_keep_nobody_from_the_health(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive) as (node, _), ExitStack() as stack:
        assert node.http_port is not None
        before = descriptors()
        connect(node.http_port, 300, stack, said=b"GET /healthz HTTP/1.1\r\nX: ")
        assert health(node)[0] == 200
        assert descriptors() - before - 300 < 60


def test_health_is_answered_on_an_address_of_its_own(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive, host="127.0.0.2", http_host="127.0.0.1") as (node, _):
        assert health(node)[0] == 200
        assert node.http_port is not None
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", node.http_port), 5)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", node.port), 5)


def big(mebibytes: int) -> Any:
    """A CT object of so many MiB."""
    dataset = ct_slice(0)
    dataset.PixelData = bytes(mebibytes << 20)
    dataset.file_meta = file_meta_of(dataset)
    return dataset


def push(node: Any, dataset: Any, title: str = "SCANNER", source: str = "127.0.0.1") -> int | None:
    """The status of one C-STORE; ``None`` where the association is refused or broken off."""
    entity = pynetdicom.AE(ae_title=title)
    entity.add_requested_context(CT, pydicom.uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="SASM", bind_address=(source, 0))
    if not association.is_established:
        return None
    try:
        answer = association.send_c_store(dataset)
        return int(answer.Status) if "Status" in answer else None
    except RuntimeError:
        return None
    finally:
        association.abort()


def test_objects_that_are_too_long_are_refused_before_they_are_held(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive, max_object_mb=1) as (node, _):
        assert push(node, big(8)) is None
        wait_for(lambda: node.counters.snapshot()["too_large"] == 1)
        assert send(node, series("after")) == [0] * SLICES
        assert node.counters.snapshot()["received"] == SLICES


@pytest.mark.parametrize("flags", [1, 3], ids=["never ends", "ends again and again"])
def test_a_command_that_is_too_long_is_not_held(flags: int, tmp_path: Path, archive: Archive) -> None:
    """After a whole C-STORE-RQ, whose object does not come."""
    head = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0002, CT.encode() + b"\0"), (0x0100, b"\1\0"), (0x0110, b"\1\0"),
            (0x0700, b"\0\0"), (0x0800, b"\1\0"), (0x1000, b"1.2.3.4\0"),
        )
    )  # fmt: skip
    with running(tmp_path, archive) as (node, _):
        entity = pynetdicom.AE(ae_title="SCANNER")
        entity.add_requested_context(CT, pydicom.uid.ImplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", node.port, ae_title="SASM")
        assert association.is_established
        connection = association.dul.socket.socket
        number = association.accepted_contexts[0].context_id

        def item(data: bytes, flags: int) -> bytes:
            value = struct.pack(">LBB", len(data) + 2, number, flags) + data
            return struct.pack(">BBL", 4, 0, len(value)) + value

        connection.sendall(item(head, 3))
        more = struct.pack("<HHL", 0, 0x5110, 8000) + bytes(8000)
        sent = 0
        with suppress(OSError):
            while sent < 32 << 20:
                connection.sendall(item(more, flags))
                sent += len(more)
        association.abort()
        assert sent < 32 << 20
        wait_for(lambda: node.counters.snapshot()["too_large"] == 1)
        assert send(node, series(count=1)) == [0]


def test_all_objects_that_come_in_at_once_are_bounded() -> None:
    limits = acceptor.Limits(100)
    assert all(limits.add(number, 100, last=False) for number in range(acceptor.MAX_TOGETHER))
    assert not limits.add(99, 1, last=False)
    limits.forget(99)
    assert limits.add(0, 0, last=True)
    assert limits.add(99, 100, last=False)
    assert not limits.add(99, 1, last=False)


@pytest.mark.parametrize(
    ("title", "source"), [("SCANNER", "127.0.0.3"), ("PACS", "127.0.0.1"), ("STRANGER", "127.0.0.1")]
)
def test_a_wrong_address_sends_nothing(title: str, source: str, tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive, allow=["SCANNER@127.0.0.1", "PACS@127.0.0.2"]) as (node, _):
        assert push(node, big(1), title, source) is None
        assert node.counters.snapshot()["received"] == 0
        assert node.counters.snapshot()["not_authorised"] == 1
        assert push(node, big(1), "PACS", "127.0.0.2") == 0


def test_a_pdu_that_says_it_is_huge_is_not_read(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive) as (node, _), ExitStack() as stack:
        (one,) = connect(node.port, 1, stack, said=b"\x01\x00\xff\xff\xff\xff")
        one.settimeout(10)
        with suppress(ConnectionError):
            for _ in range(64):
                one.sendall(bytes(1 << 20))
            assert one.recv(1) == b""
        assert send(node, series(count=1)) == [0]


class TestConnections:
    @pytest.fixture
    def pairs(self) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
        made = [socket.socketpair() for _ in range(8)]
        yield made
        for pair in made:
            for one in pair:
                one.close()

    def test_the_oldest_silent_one_gives_way(self, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
        now = [0.0]
        connections = Connections(4, 2, 10, lambda: now[0])
        for number in range(2):
            now[0] += 1
            assert connections.admit(pairs[number][0], ("a", number))
        connections.greet(("a", 0))
        assert connections.admit(pairs[2][0], ("a", 2))
        assert pairs[1][1].recv(1) == b"", "the silent one is hung up on"
        connections.greet(("a", 2))
        assert not connections.admit(pairs[3][0], ("a", 3)), "both have greeted"
        assert connections.admit(pairs[4][0], ("b", 4))
        connections.forget(("a", 0))
        assert connections.admit(pairs[5][0], ("a", 5))
        now[0] += 11
        connections.reap()
        assert pairs[5][1].recv(1) == b""
        assert pairs[4][1].recv(1) == b""


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in [folder, *folder.rglob("*")]}


def test_nobody_else_can_read_the_spool(tmp_path: Path, archive: Archive) -> None:
    (tmp_path / "spool").mkdir(mode=0o755)
    (tmp_path / "spool").chmod(0o755)
    old = os.umask(0)
    try:
        restorer = Renamer()
        restorer.refuse = lambda dataset: "a localizer" if dataset.InstanceNumber == 1 else None
        with running(tmp_path, archive, restorer) as (node, _):
            assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
            archive.status = 0xA700
            send(node, series())
            wait_for(lambda: node.spool.jobs("outgoing") and node.counters.snapshot()["send_failures"])
            assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
            (draft,) = node.spool.jobs("outgoing")
            assert {stat.S_IMODE(path.stat().st_mode) for path in draft.source.iterdir()} == {0o600}
    finally:
        os.umask(old)


def test_a_spool_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Spool(tmp_path / "spool", "d").close()
    (tmp_path / "spool").chmod(0o750)
    with pytest.raises(RefusedError, match="others can read"):
        Spool(tmp_path / "spool", "d")
    (tmp_path / "spool").chmod(0o700)
    Spool(tmp_path / "spool", "d").close()


def test_a_spool_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_sasm.node.spool.owner_here", lambda folder: os.getuid() + 1)
    with pytest.raises(RefusedError, match="another user owns"):
        Spool(tmp_path / "spool", "d")


@pytest.mark.parametrize("folder", ["incoming", "ready", "outgoing", "ledger", "made", "lock"])
def test_a_spool_follows_no_links(folder: str, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool" / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((RefusedError, OSError)):
        Spool(tmp_path / "spool", "d")
    assert not list((tmp_path / "elsewhere").iterdir())


class NewSeries(Renamer):
    """Gives the derived files a series of their own, as the real one does, and no other mark."""

    def __call__(self, source: Path, derived: Path, progress: Any) -> Any:
        outcome = super().__call__(source, derived, progress)
        for file in derived.rglob("*.dcm"):
            dataset = pydicom.dcmread(file)
            dataset.SeriesInstanceUID = uid("derived", dataset.SeriesInstanceUID)
            save(dataset, file)
        return outcome


def test_own_results_are_known_without_any_mark_in_them(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, archive, NewSeries()) as (node, rows):
        send(node, series())
        wait_for(lambda: rows)
    own = series()
    for dataset in own:
        dataset.SOPInstanceUID = uid("derived", dataset.SOPInstanceUID)
        dataset.SeriesInstanceUID = uid("derived", dataset.SeriesInstanceUID)
    with running(tmp_path, archive, NewSeries()) as (node, _):  # after a restart, too
        assert send(node, own) == [0] * SLICES
        counts = node.counters.snapshot()
        assert (counts["ignored_own"], counts["received"]) == (SLICES, 0)


@pytest.mark.parametrize("mark", ["equipment", "description"])
def test_each_mark_is_enough(mark: str, tmp_path: Path, archive: Archive) -> None:
    own = ct_slice(0)
    if mark == "equipment":
        item = pydicom.Dataset()
        item.ManufacturerModelName = "monai_sasm"
        own.ContributingEquipmentSequence = [item]
    else:
        own.DerivationDescription = "image restoration by monai_sasm 0.2.0; models: x"
    header = read_header(save(own, tmp_path / "own.dcm"))
    assert header is not None
    assert header.derived_here
    with running(tmp_path, archive) as (node, _):
        assert send(node, [own]) == [0]
        assert node.counters.snapshot()["ignored_own"] == 1
