"""What the hostile tests share: experts for everything, and a machine with little memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_sasm.types import Modality
from tests.node.servers import archive as archive
from tests.node.servers import files as files
from tests.node.servers import server as server
from tests.toy_bundles import write_gain_expert, write_trusting_gate

FREE = 64 << 20  # bytes of memory the machine claims to have
ROOM = 1 << 30  # bytes the process may take beyond what it has


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an expert for each modality, and a gate that trusts them all."""
    folder = tmp_path_factory.mktemp("trust")
    for modality in Modality.known():
        write_gain_expert(folder / f"toy_{modality.value.lower()}", 0.5, modality.value)
    write_trusting_gate(folder / "gate_mobilenet", ["toy_ct", "toy_mr", "toy_photo"])
    return folder


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with :data:`FREE` bytes, on which taking much more fails; nothing here needs a disk that is safe."""
    for module in ("memory", "dicom.deflated"):
        monkeypatch.setattr(f"monai_sasm.io.{module}.free_memory", lambda: FREE)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    taken = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.is_file() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if taken:
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
