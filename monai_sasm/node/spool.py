"""The spool: everything in flight as files, its state told by the folder it lies in, so that a crash loses nothing.

::

    incoming/SERIES/*.dcm        being received; an object is acknowledged only once it lies here, synced to disk
    ready/JOB/source/*.dcm       complete, waiting to be restored
    outgoing/JOB/derived/...     restored, being sent; ``sent.log`` names what each destination has taken
    quarantine/JOB/reason.json   not restored or not taken, with the reason; moved back to ready/ or outgoing/ by hand,
                                 a job is tried again
    ledger/DERIVATION/SERIES     which objects have been restored and sent with these models and options
    made/SERIES                  an empty file for each series that was made here: it is not restored when it comes back

A state changes by one rename. Names are hashes of UIDs; the files themselves hold patient data. Files are named after
their SOP Instance UID and their content, so that an object sent twice is one file, and a corrected one is another; it
takes the place of the first where both tell the same image of the same patient: some anonymisers give one UID to all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock

from monai_sasm.batch.lock import exclusive
from monai_sasm.errors import RefusedError
from monai_sasm.io.commit import replacing, sync, sync_all
from monai_sasm.io.dicom.header import Header, read_header
from monai_sasm.io.nofollow import make_folder, owner_here

STATES = ("incoming", "ready", "outgoing", "quarantine", "done")
MAX_STARTS = 3
"""So often may the process die while it restores one series, before that series is set aside."""
BUILDING = "derived.tmp"
"""Folder in a job, for derived files that are being made."""
_LOST = "-"  # before a line of what was taken and is not kept

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draft:
    """An object on disk that is not yet part of a series."""

    path: Path
    header: Header
    content: str

    @property
    def key(self) -> str:
        """Name of its series in the spool."""
        header = self.header
        return _series_key(header) if header.series else _hash("object", self.content)

    @property
    def name(self) -> str:
        """Name of its file in the spool."""
        return f"{_hash(self.header.sop_instance)}-{self.content[:20]}.dcm"


@dataclass(frozen=True)
class Job:
    """One complete series, or the part of it that came together."""

    folder: Path

    @property
    def name(self) -> str:
        """``<time>-<series key>``: jobs sort by time."""
        return self.folder.name

    @property
    def key(self) -> str:
        """Key of the series; of a part that was set aside another one, or the ledger would take it for done."""
        return self.name.partition("-")[2]

    @property
    def source(self) -> Path:
        """Folder of what was received."""
        return self.folder / "source"

    @property
    def derived(self) -> Path:
        """Folder of what is to be sent; it is there only when it is whole."""
        return self.folder / "derived"

    def received(self) -> set[str]:
        """File names of what was received; none where the job has just been moved on by another thread."""
        try:
            return set(os.listdir(self.source))
        except FileNotFoundError:
            return set()

    def strays(self) -> list[Path]:
        """Objects that lie where nobody looks for them, in a job that was put together by hand."""
        known = (self.source, self.derived, self.folder / BUILDING)
        return [path for path in self.folder.rglob("*.dcm") if not any(map(path.is_relative_to, known))]

    def files(self) -> list[Path]:
        """What is to be sent."""
        return sorted(self.derived.rglob("*.dcm"))

    def sent(self) -> set[tuple[str, str]]:
        """(destination, SOP Instance UID) of what has been taken."""
        found: set[tuple[str, str]] = set()
        for line in _lines(self.folder / "sent.log"):
            uid, _, name = line.removeprefix(_LOST).partition(" ")
            (found.discard if line.startswith(_LOST) else found.add)((name, uid))
        return found

    def note_sent(self, destination: str, uids: Iterable[str]) -> None:
        """Note what a destination has taken; on disk when this returns."""
        _append(self.folder / "sent.log", [f"{uid} {destination}" for uid in uids])

    def note_lost(self, destination: str, uids: Iterable[str]) -> None:
        """Note what a destination has taken and does not keep: it is sent again."""
        _append(self.folder / "sent.log", [f"{_LOST}{uid} {destination}" for uid in uids])


class Spool:
    """See the module. One process at a time.

    Args:
        root: its folder; created where missing, readable for its owner only.
        derivation: digest of models and options; the ledger is kept per derivation.

    Raises:
        LockedError: another process uses the folder.
        RefusedError: another user owns it, or others can read what is in it.
    """

    def __init__(self, root: Path, derivation: str) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_private(root)
        self._exclusive = ExitStack()
        self._exclusive.enter_context(exclusive(root, root / "lock"))
        for folder in (*STATES, "made", "ledger"):
            make_folder(root / folder)
        self._ledger = root / "ledger" / derivation[:16]
        make_folder(self._ledger)
        self._lock = Lock()
        self._clean_up()

    def close(self) -> None:
        """Let another process use it."""
        self._exclusive.close()

    def free_mb(self) -> int:
        """Free disk where the spool lies, MiB."""
        return shutil.disk_usage(self.root).free >> 20

    def incoming(self) -> list[str]:
        """Keys of the series being received."""
        return sorted(path.name for path in (self.root / "incoming").iterdir() if path.is_dir())

    def jobs(self, state: str) -> list[Job]:
        """Jobs in a state, the oldest first."""
        return [Job(path) for path in sorted((self.root / state).iterdir()) if path.is_dir()]

    @contextmanager
    def draft(self, content: bytes) -> Iterator[Draft]:
        """Write an object to disk and look at its header; unless kept, it is gone when the block ends."""
        path = self.root / "incoming" / f".{secrets.token_hex(8)}.tmp"
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            header = read_header(path) or Header(path, broken="it is no DICOM object")
            yield Draft(path, header, hashlib.sha256(content).hexdigest())
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    def keep(self, draft: Draft) -> None:
        """Make an object part of its series; it survives a crash when this returns."""
        folder = self.root / "incoming" / draft.key
        with self._lock:
            folder.mkdir(exist_ok=True)
            os.replace(draft.path, folder / draft.name)
            for older in folder.glob(f"{draft.name.partition('-')[0]}-*.dcm"):
                # the same instance with other content: the later one counts
                if older.name != draft.name and _image(read_header(older)) == _image(draft.header):
                    older.unlink()
            sync(folder)  # while it lies there: a series that is found complete is moved
        sync(folder.parent)

    def promote(self, key: str) -> Job | None:
        """incoming -> ready; ``None`` when nothing of the series is there."""
        arrived = self.root / "incoming" / key
        job = Job(self.root / "ready" / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}-{key}")
        with self._lock:
            if not arrived.is_dir():
                return None
            job.folder.mkdir()
            os.rename(arrived, job.source)
        sync(job.folder)
        sync(job.folder.parent)
        return job

    def drop_known(self, job: Job) -> int:
        """Take out of a job in ready what was restored and sent before, or is on its way; how many objects that is."""
        known: set[str] = set()
        # first these, then the ledger: a job delivered in between is in one of them
        for other in self.jobs("outgoing"):
            known |= other.received() if other.key == job.key else set()
        known |= set(_lines(self._ledger / job.key))
        repeated = job.received() & known
        for name in repeated:
            (job.source / name).unlink()
        return len(repeated)

    def made(self, header: Header) -> bool:
        """Whether the series of an object was made here, whatever an archive has done to its other attributes."""
        return (self.root / "made" / _series_key(header)).exists()

    def start(self, job: Job) -> None:
        """Count a start of the restoration, so that a series that kills the process is found out.

        Raises:
            RefusedError: it has been started too often.
        """
        record = job.folder / "starts"
        if len(_lines(record)) >= MAX_STARTS:
            raise RefusedError(f"the process ended {MAX_STARTS} times while it restored this series")
        _append(record, [datetime.now(timezone.utc).isoformat()])

    def stop(self, job: Job) -> None:
        """The restoration has ended without killing the process."""
        (job.folder / "starts").unlink(missing_ok=True)

    def set_aside(self, job: Job, files: Iterable[Path], reason: str) -> None:
        """Copy part of a job to quarantine; doing so again changes nothing."""
        part = Job(self.root / "quarantine" / f"{job.name}-{_hash(reason)[:8]}")
        part.source.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, part.source / file.name)
        _write_reason(part, reason)
        sync_all(part.folder)  # the originals go when the rest has been sent
        sync(part.folder.parent)

    def restored(self, job: Job, building: Path) -> None:
        """ready -> outgoing, with the derived files in ``building``, a folder within the job's."""
        for series in {_series_key(header) for path in building.rglob("*.dcm") if (header := read_header(path))}:
            if series != job.key:
                (self.root / "made" / series).touch(0o600)
        sync(self.root / "made")
        sync_all(building)
        os.rename(building, job.derived)
        sync(job.folder)
        self._move(job, "outgoing")

    def send_again(self, job: Job) -> None:
        """ready -> outgoing, of a job that holds what is to be sent."""
        self._move(job, "outgoing")

    def delivered(self, job: Job) -> None:
        """Everything has been sent: note it in the ledger, then forget the files."""
        _append(self._ledger / job.key, sorted(job.received()))
        self.discard(job)

    def discard(self, job: Job) -> None:
        """Delete a job; a crash half-way leaves nothing that would be worked on."""
        gone = self._move(job, "done")
        shutil.rmtree(gone.folder)

    def forget(self, days: float) -> list[str]:
        """Delete what has been in quarantine, and what is known of series that were sent, for longer; names of jobs.

        The time of a job without ``reason.json``, put there by hand, begins when it is first seen here. What cannot be
        deleted keeps nothing else.
        """
        before = time.time() - 86400 * days
        gone = []
        for job in self.jobs("quarantine"):
            with _told(job.name):
                if not (job.folder / "reason.json").exists():
                    _write_reason(job, "put into quarantine by hand")
                elif (job.folder / "reason.json").stat().st_mtime < before:
                    self.discard(job)
                    gone.append(job.name)
        for path in [*(self.root / "made").iterdir(), *(self.root / "ledger").glob("*/*")]:
            with _told(path.name):
                if path.stat().st_mtime < before:
                    path.unlink()
        return gone

    def quarantine(self, job: Job, reason: str) -> None:
        """Any state -> quarantine.

        Raises:
            FileNotFoundError: it has been moved by hand.
        """
        if not job.folder.is_dir():
            raise FileNotFoundError(f"{job.name} is not in {job.folder.parent.name}/ any more")
        (job.folder / "starts").unlink(missing_ok=True)
        _write_reason(job, reason)
        self._move(job, "quarantine")

    def _move(self, job: Job, state: str) -> Job:
        target = self.root / state / job.name
        number = 1
        while state == "quarantine" and os.path.lexists(target):  # a copy of it was made by hand
            number += 1
            target = target.with_name(f"{job.name}-{number}")
        previous = job.folder.parent
        os.rename(job.folder, target)
        sync(target.parent)
        sync(previous)
        return Job(target)

    def _clean_up(self) -> None:
        """What a crash left between two states."""
        for draft in (self.root / "incoming").glob(".*.tmp"):
            draft.unlink()
        for job in self.jobs("done"):
            shutil.rmtree(job.folder)
        for job in self.jobs("ready"):
            if job.derived.is_dir():
                self._move(job, "outgoing")
            elif not job.source.is_dir() and not job.strays():
                shutil.rmtree(job.folder)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Tell of an error of the disk, and go on."""
    try:
        yield
    except OSError as error:
        logger.warning("%s could not be deleted: %s", name, error.strerror or type(error).__name__)


def _write_reason(job: Job, reason: str) -> None:
    record = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "reason": reason}
    with replacing(job.folder / "reason.json") as file:
        file.write(json.dumps(record, ensure_ascii=False).encode())


def _check_private(root: Path) -> None:
    """Patient data will lie there: for the eyes of the user only who runs the node.

    Raises:
        RefusedError: another user owns it, or others can read what is in it.
    """
    if os.name == "nt":
        return
    found = root.stat()
    if found.st_uid != owner_here(root):
        raise RefusedError(f"another user owns {root}; choose another folder for the spool")
    if found.st_mode & 0o077:
        if any(root.iterdir()):
            raise RefusedError(f"others can read {root}, which will hold patient data: chmod -R go= {root}")
        root.chmod(0o700)


def _series_key(header: Header) -> str:
    return _hash("series", header.study, header.series)


def _image(header: Header | None) -> tuple[object, ...] | None:
    """What tells images of one SOP Instance UID apart, of which some anonymisers give all slices the same."""
    if header is None:
        return None
    grid = (header.position, header.orientation, header.spacing, header.rows, header.columns, header.frames)
    kind = (header.image_type, header.component, header.temporal, header.echo, header.variants)
    return (header.patient, header.instance, *grid, *kind)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _lines(path: Path) -> list[str]:
    """Lines of a record; what a crash cut off belongs to no line."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()


def _append(path: Path, lines: Iterable[str]) -> None:
    with open(path, "ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")  # a crash cut the last line off
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)
