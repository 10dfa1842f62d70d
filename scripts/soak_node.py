"""Run the DICOM node for long under two senders, with one destination down half of the time, or killed again and again.

    scripts/soak_node.py --minutes 20                 memory and descriptors are printed; must stay flat
    scripts/soak_node.py --minutes 20 --kill          kill -9 at random moments, and a new start
    scripts/soak_node.py --kill --objects 1000        until so many objects have been acknowledged

The node restores with a stand-in that gives new UIDs: what is tried here is everything around the networks. Ends with
code 1 where an object that was acknowledged did not arrive at every destination, or others could read the spool.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import stat
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt

CT = "1.2.840.10008.5.1.4.1.1.2"
SLICES, SIDE = 4, 64
DOWN_SECONDS = 20.0


class Copies:
    """A restorer that gives each file new UIDs."""

    digest = "0" * 64

    def __call__(self, source: Path, derived: Path, progress: Any) -> Any:
        from monai_sasm.node.outcome import Outcome

        written = 0
        for file in sorted(source.glob("*.dcm")):
            dataset = pydicom.dcmread(file)
            dataset.SOPInstanceUID = derived_uid(dataset.SOPInstanceUID)
            dataset.SeriesInstanceUID = derived_uid(dataset.SeriesInstanceUID)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            (derived / "series").mkdir(exist_ok=True)
            dataset.save_as(derived / "series" / file.name, enforce_file_format=True)
            written += 1
        return Outcome(written, ())


class Archive:
    """A destination that counts what it takes and can be switched off and on."""

    def __init__(self, title: str) -> None:
        self.title, self.port, self.taken = title, free_port(), Counter[str]()
        self._server: Any = None

    def start(self) -> None:
        entity = AE(ae_title=self.title)
        entity.add_supported_context(CT)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        self.taken[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0


class Sender(threading.Thread):
    """Sends one series after the other until it is told to stop; sends again what was not acknowledged."""

    def __init__(self, title: str, port: int, pause: float) -> None:
        super().__init__(daemon=True)
        self.title, self.port, self.pause = title, port, pause
        self.acknowledged: set[str] = set()
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            left: list[Dataset] = series()
            while left and not self.ending.is_set():
                left = self._send(left)
            time.sleep(self.pause)

    def _send(self, datasets: list[Dataset]) -> list[Dataset]:
        entity = AE(ae_title=self.title)
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        association = entity.associate("127.0.0.1", self.port, ae_title="SASM")
        left = []
        for dataset in datasets:
            try:
                answer = association.send_c_store(dataset) if association.is_established else Dataset()
            except (RuntimeError, ValueError):
                answer = Dataset()
            if "Status" in answer and answer.Status == 0:
                self.acknowledged.add(str(dataset.SOPInstanceUID))
            else:
                left.append(dataset)
        if association.is_established:
            association.release()
        else:
            time.sleep(0.2)
        return left


def series() -> list[Dataset]:
    """A new CT series; the values are of no interest."""
    study, one = generate_uid(), generate_uid()
    made = []
    for number in range(SLICES):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CT, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = study, one, "CT"
        dataset.PatientID, dataset.PatientName, dataset.InstanceNumber = "SOAK", "Soak^Test", number + 1
        dataset.Rows = dataset.Columns = SIDE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelData = os.urandom(2 * SIDE * SIDE)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.append(dataset)
    return made


def derived_uid(uid: str) -> str:
    """What :class:`Copies` makes of a UID."""
    return str(generate_uid(entropy_srcs=[str(uid), "derived"]))


def free_port() -> int:
    """A port of this machine nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 120.0) -> None:
    """Until somebody listens there: a kill before that tries nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def wait_for_objects(senders: list[Sender], count: int, seconds: float = 30.0) -> None:
    """Until so many more have been acknowledged, however slow the machine: the moment of a kill is one of work."""
    end, goal = time.monotonic() + seconds, count + sum(len(sender.acknowledged) for sender in senders)
    while time.monotonic() < end and sum(len(sender.acknowledged) for sender in senders) < goal:
        time.sleep(0.02)


def serve(spool: Path, port: int, http_port: int, ports: list[int]) -> None:
    """The node, in a process of its own."""
    import logging

    from monai_sasm.node.config import config_from
    from monai_sasm.node.service import Node

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("monai_sasm").setLevel(logging.CRITICAL)
    destinations = {f"d{number}": f"D{number}@127.0.0.1:{each}" for number, each in enumerate(ports)}
    settings = {
        "spool": spool, "allow": ["S0@127.0.0.1", "S1@127.0.0.1"], "destinations": destinations, "port": port,
        "http_port": http_port, "quiet_seconds": 0.5, "interrupted_seconds": 1.0, "retry_seconds": 0.5,
    }  # fmt: skip
    os.umask(0o077)
    with suppress(KeyboardInterrupt):
        Node(config_from(settings), Copies()).run()


def usage(process: int) -> tuple[float, int, int]:
    """Resident MiB, descriptors and threads of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line
    )
    return int(status["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{process}/fd")), int(status["Threads"])


def _uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def exposed(spool: Path) -> int:
    """Files and folders that others can read."""
    if spool.stat().st_mode & 0o077 == 0:
        return 0
    return 1 + sum(bool(stat.S_IMODE(path.lstat().st_mode) & 0o077) for path in spool.rglob("*"))


def main() -> int:
    """Run, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--objects", type=int, default=0, help="end when so many have been acknowledged")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two series of a sender")
    options = parser.parse_args()
    import logging

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    spool = Path(tempfile.mkdtemp(prefix="soak-")) / "spool"
    port, http_port, archives = free_port(), free_port(), [Archive("D0"), Archive("D1")]
    context = multiprocessing.get_context("forkserver")  # the imports take seconds, a fork none
    context.set_forkserver_preload(["__main__", "monai_sasm.node.config", "monai_sasm.node.service"])

    def start() -> BaseProcess:
        process = context.Process(target=serve, args=(spool, port, http_port, [each.port for each in archives]))
        process.start()
        return process

    for archive in archives:
        archive.start()
    node, kills, open_to_others, up = start(), 0, 0, True
    senders = [Sender(f"S{number}", port, options.pause) for number in range(2)]
    for sender in senders:
        sender.start()
    end = time.monotonic() + 60 * options.minutes
    switch = shown = time.monotonic() + DOWN_SECONDS
    while time.monotonic() < end:
        if options.objects and sum(len(sender.acknowledged) for sender in senders) >= options.objects:
            break
        if options.kill:
            wait_for_port(port)
            wait_for_objects(senders, random.randint(0, 2 * SLICES))
        time.sleep(random.uniform(0.1, 1.0))
        open_to_others += exposed(spool) if spool.is_dir() else 0
        if time.monotonic() > switch:
            (archives[1].stop if up else archives[1].start)()
            up, switch = not up, time.monotonic() + DOWN_SECONDS
        if options.kill:
            node.kill()
            node.join()
            kills, node = kills + 1, start()
        if time.monotonic() < shown:
            continue
        shown = time.monotonic() + 30
        sent = sum(len(sender.acknowledged) for sender in senders)
        if options.kill:
            print(f"{sent} objects, {kills} kills", flush=True)
        else:
            memory, descriptors, threads = usage(node.pid or 0)
            print(f"{sent} objects, {memory:.0f} MiB, {descriptors} descriptors, {threads} threads", flush=True)
    for sender in senders:
        sender.ending.set()
        sender.join(timeout=60)
    if not up:
        archives[1].start()
    wanted = {derived_uid(uid) for sender in senders for uid in sender.acknowledged}
    patience = time.monotonic() + 180
    while time.monotonic() < patience and not all(wanted <= set(archive.taken) for archive in archives):
        time.sleep(0.5)
    if not options.kill:
        time.sleep(2)
        memory, descriptors, threads = usage(node.pid or 0)
        print(f"at the end: {memory:.0f} MiB, {descriptors} descriptors, {threads} threads")
    node.terminate()
    node.join(60)
    waiting = {
        str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in spool.glob("outgoing/*/derived/*/*")
    } | {
        derived_uid(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for state in ("incoming/*", "ready/*/source", "quarantine/*/source")
        for path in spool.glob(f"{state}/*.dcm")
    }
    lost = [len(wanted - set(archive.taken) - waiting) for archive in archives]
    twice = [sum(count > 1 for count in archive.taken.values()) for archive in archives]
    print(f"{len(wanted)} objects acknowledged, {kills} kills, lost {lost}, sent again {twice}", end=", ")
    print(f"{len(waiting)} still in the spool, {open_to_others} times exposed")
    return int(any(lost) or open_to_others > 0)


if __name__ == "__main__":
    sys.exit(main())
