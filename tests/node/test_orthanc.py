"""The node beside a real PACS: Orthanc pushes a series, and it comes back restored by C-STORE and by STOW-RS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pydicom
import pytest

from tests.command import sasm
from tests.data import CHECKOUT
from tests.io.dicom.dicom_cases import SLICES, ct_slice, save, uid
from tests.node.orthanc import TITLE, Orthanc, running_orthanc
from tests.node.waiting import dicom_in, wait_for
from tests.ports import free_port
from tests.toy_bundles import write_gain_expert

pytest.importorskip("pynetdicom")
pytest.importorskip("requests")

EXPERT = "dimmer_ct"
CHANGING = {"SeriesTime", "SeriesDate", "ContentTime", "ContentDate", "InstanceCreationTime", "InstanceCreationDate"}
PATIENT = ("Müller", "SECRET-17", "19700101")


@dataclass
class NodeProcess:
    """``sasm node`` as a process of its own, which can be killed."""

    options: list[str]
    log: Path
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ports = ["--port", str(self.port), "--http-port", str(self.http_port)]
        command = [sys.executable, "-m", "monai_sasm.cli.main", "node", *self.options, *ports, "--json"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=CHECKOUT)
        wait_for(lambda: self.state() is not None)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def state(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=5) as answer:
                return json.loads(answer.read())
        except OSError:
            return None

    def count(self, name: str) -> int:
        state = self.state()
        return 0 if state is None else state["counters"][name]


@dataclass
class Network:
    """Two servers and a node between them."""

    pacs: Orthanc
    web: Orthanc
    node: NodeProcess
    bundle: Path
    folder: Path

    def upload(self, series: str) -> list[Path]:
        """A synthetic CT series in the PACS."""
        files = [
            save(ct_slice(number, series=series), self.folder / "source" / series / f"{number}.dcm")
            for number in range(SLICES)
        ]
        self.pacs.upload(files)
        return files


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    node = NodeProcess([], folder / "node.log")
    with (
        running_orthanc(folder / "pacs", {"sasm": ("SASM", node.port)}) as pacs,
        running_orthanc(folder / "web", {}) as web,
    ):
        bundle = write_gain_expert(folder / "bundles" / EXPERT, gain=0.5, modality="CT")
        node.options = [
            "--spool", str(folder / "spool"), "--allow", f"{TITLE}@127.0.0.1", "--allow", "BROKEN",
            "--to", f"pacs={TITLE}@127.0.0.1:{pacs.dicom_port}", "--to", f"web={web.web}",
            "--quiet-seconds", "0.5", "--expert", EXPERT, "--trust", str(bundle), "--device", "cpu",
        ]  # fmt: skip
        try:
            node.start()
            yield Network(pacs, web, node, bundle, folder)
        finally:
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait()


def by_source(folder: Path) -> dict[str, pydicom.Dataset]:
    """SOP Instance UID of the source -> derived instance."""
    found = [pydicom.dcmread(file) for file in folder.rglob("*.dcm")]
    return {one.SourceImageSequence[0].ReferencedSOPInstanceUID: one for one in found}


def content(dataset: pydicom.Dataset) -> dict[str, Any]:
    """Everything but the time of writing."""
    found = {one.keyword: one.value for one in dataset if one.keyword not in CHANGING}
    for item in found["ContributingEquipmentSequence"]:
        item.pop("ContributionDateTime", None)
    return found


def times_stored(server: Orthanc, series: str) -> list[int]:
    """How often each instance of a series has been stored, as the server's own journal says."""
    kept = [server.rest(f"/series/{server.series()[series]['ID']}")["Instances"]]
    changes = server.rest("/changes?limit=10000")["Changes"]
    stored = [one["ID"] for one in changes if one["ChangeType"] == "NewInstance"]
    return [stored.count(identifier) for identifier in kept[0]]


def test_a_series_comes_back_restored(network: Network, tmp_path: Path) -> None:
    files = network.upload("there and back")
    series = uid("there and back")
    network.pacs.send(series, "sasm")
    wait_for(lambda: network.node.count("sent") == 2 * SLICES)
    expected = tmp_path / "expected"
    command = ("restore", files[0].parent, "-o", expected, "--expert", EXPERT, "--trust", network.bundle)
    assert sasm(*command, "--device", "cpu", "-q") == 0
    reference = by_source(expected)
    assert len(reference) == SLICES
    (derived,) = {str(one.SeriesInstanceUID) for one in reference.values()}
    for server in (network.pacs, network.web):
        place = tmp_path / str(server.http_port)
        assert sasm("pull", server.web, "-o", place, "--study", uid("study"), "--series", derived, "-q") == 0
        got = by_source(place)
        assert set(got) == set(reference)
        for key, one in got.items():
            assert content(one) == content(reference[key])
            np.testing.assert_array_equal(one.pixel_array, reference[key].pixel_array)
            assert one.PatientName == "Müller^Jane"
    source = pydicom.dcmread(files[3])
    halved = reference[source.SOPInstanceUID].pixel_array
    assert float(np.abs(halved.astype(float) - source.pixel_array).max()) > 10, "the expert has acted"
    if shutil.which("dciodvfy"):
        for file in sorted((tmp_path / str(network.web.http_port)).rglob("*.dcm")):
            found = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
            assert "Error" not in found.stderr, found.stderr
    elif os.environ.get("CI") == "true":
        pytest.fail("dciodvfy is not installed: apt install dicom3tools")


def test_its_own_output_and_a_repeated_series_are_dropped(network: Network) -> None:
    series = uid("there and back")
    (derived,) = {
        key for key, one in network.pacs.series().items() if "[SASM]" in one["MainDicomTags"]["SeriesDescription"]
    }
    network.pacs.send(derived, "sasm")
    assert network.node.count("ignored_own") == SLICES
    network.pacs.send(series, "sasm")
    wait_for(lambda: network.node.count("repeated") == SLICES)
    assert network.node.count("sent") == 2 * SLICES
    assert set(times_stored(network.pacs, derived)) == {1}


def test_killed_in_the_middle_of_a_series(network: Network) -> None:
    """Nine objects of sixteen are there when the node is killed; afterwards the PACS sends the whole series again."""
    from pynetdicom import AE

    files = network.upload("killed")
    entity = AE(ae_title="BROKEN")
    entity.add_requested_context(pydicom.dcmread(files[0]).SOPClassUID, pydicom.uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", network.node.port, ae_title="SASM")
    assert association.is_established
    for file in files[:9]:
        assert association.send_c_store(file).Status == 0
    assert network.node.end(signal.SIGKILL) == -signal.SIGKILL
    assert len(list((network.folder / "spool" / "incoming").rglob("*.dcm"))) == 9, "acknowledged is on disk"
    network.node.start()
    state = network.node.state()
    assert state is not None
    assert state["waiting"]["incoming"] == 1
    network.pacs.send(uid("killed"), "sasm")
    wait_for(lambda: network.node.count("sent") == 2 * SLICES)
    (derived,) = set(network.web.series()) - {
        key for key in network.web.series() if _made_from(network.web, key) != uid("killed")
    }
    for server in (network.pacs, network.web):
        assert times_stored(server, derived) == [1] * SLICES
    state = wait_for(lambda: (state := network.node.state()) and not state["waiting"]["outgoing"] and state)
    assert not any(state["waiting"].values())
    wait_for(lambda: not dicom_in(network.folder / "spool"))


def test_it_ends_when_asked_and_its_log_names_no_patient(network: Network) -> None:
    assert network.node.end(signal.SIGTERM) == 143
    log = network.node.log.read_text()
    assert log.count("objects sent to pacs, web") == 2
    assert not [text for text in (*PATIENT, uid("study"), uid("killed")) if text in log]


def _made_from(server: Orthanc, series: str) -> str:
    """Series Instance UID of what a derived series was made from."""
    instance = server.rest(f"/series/{server.series()[series]['ID']}")["Instances"][0]
    tags = server.rest(f"/instances/{instance}/simplified-tags")
    return str(tags["ReferencedSeriesSequence"][0]["SeriesInstanceUID"])
