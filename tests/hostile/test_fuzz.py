"""Damaged files by the thousand: each is restored or refused for a reason, and nothing else ever happens.

``SASM_FUZZ=20000 pytest tests/hostile/test_fuzz.py`` tries that many files instead of the few hundred of a usual run,
a thousand per test; the same files every time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from monai_sasm.batch.job import Job
from monai_sasm.batch.ledger import FOLDER
from monai_sasm.batch.local import in_process
from monai_sasm.batch.manifest import NAME, read
from monai_sasm.batch.plan import plan
from monai_sasm.batch.run import Summary, run
from monai_sasm.io.formats import inventory
from monai_sasm.restore import Options
from monai_sasm.types import Modality
from tests.hostile.damage import Damaged, damaged
from tests.hostile.intact import intact_files
from tests.toy_bundles import write_gain_expert, write_trusting_gate

pytest.importorskip("pydicom", minversion="3", reason="the compressed cases are built with pydicom 3")

INPUTS = int(os.environ.get("SASM_FUZZ", "400"))
SEEDS = -(-INPUTS // 1000)
TOGETHER = 8  # files of one batch
FREE = 256 << 20  # bytes of memory the machine claims to have
ROOM = 1 << 30  # bytes the process may take beyond what it has
PATIENCE = 120  # seconds for one batch
PATIENT = ("SECRET", "Jane", "1970")  # parts of what identifies the patient of all DICOM files here
UNTOLD = ("unforeseen", "not enough memory")  # an error nobody thought of; memory asked for without looking


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an expert for each modality, and a gate that trusts them all."""
    folder = tmp_path_factory.mktemp("trust")
    for modality in Modality:
        write_gain_expert(folder / f"toy_{modality.value.lower()}", 0.5, modality.value)
    write_trusting_gate(folder / "z_gate", ["toy_ct", "toy_mr", "toy_photo"])
    return folder


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with :data:`FREE` bytes, on which taking much more fails; nothing here needs a disk that is safe."""
    monkeypatch.setattr("monai_sasm.io.memory.free_memory", lambda: FREE)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    resource = pytest.importorskip("resource")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _linux() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if taken:
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("number", range(SEEDS))
def test_damaged_files_are_right_or_refused(number: int, trust: Path, little_memory: None) -> None:
    @seed(number)
    @settings(
        phases=(Phase.explicit, Phase.generate),  # shrinking a batch of eight takes longer than reading its story
        max_examples=-(-INPUTS // TOGETHER // SEEDS),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(damaged(), min_size=TOGETHER, max_size=TOGETHER, unique_by=lambda one: one.intact.name))
    @example([Damaged(intact, intact.pack(intact.content), ()) for intact in intact_files()])
    def check(files: list[Damaged]) -> None:
        with in_time(PATIENCE), tempfile.TemporaryDirectory() as folder:
            check_batch(files, Path(folder), trust)

    check()


def check_batch(files: list[Damaged], folder: Path, trust: Path) -> None:
    """Restore a folder of these files; the laws that hold whatever they are."""
    source, output = folder / "in", folder / "out"
    for number, file in enumerate(files):
        place = source / f"{number:02d}"
        place.mkdir(parents=True)
        (place / file.intact.name).write_bytes(file.content)
        for index, other in enumerate(file.intact.beside):
            (place / f"beside{index}.dcm").write_bytes(other)
    before = contents(source)
    job = Job(source, output, Options(), device="cpu", trust=(trust,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        planned = plan(job)
    entries = [task.entry for task in (*planned.tasks, *(task for task, _ in planned.refused))]
    told = {path for entry in entries for path in entry.paths}
    summary = Summary(len(planned.tasks) + len(planned.refused))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pydicom's and nibabel's quote the file: names, in the end
        rows = list(run(job, planned, in_process, summary))
    assert contents(source) == before, "an input was changed"
    assert told == {path for path in source.rglob("*") if path.is_file()}, "a file was lost"
    assert len(rows) == len(read(output / NAME)) == summary.planned
    assert summary.left == 0
    assert not any(word in json.dumps(rows) for word in PATIENT)
    for row in rows:
        assert row["status"] in ("ok", "skipped", "failed")
        assert row["status"] == "ok" or row["reason"], row
        assert not str(row["reason"]).startswith(UNTOLD), row
    for left in ("staging", "ready", "starts"):
        assert not list((output / FOLDER / left).iterdir())
    assert not list(output.rglob("*.tmp"))
    check_results(output, sum(row["status"] == "ok" for row in rows))


def check_results(output: Path, count: int) -> None:
    """As many images as were restored, each readable."""
    shutil.rmtree(output / FOLDER)
    found = inventory(output, None) if count else []
    images = [entry for entry in found if entry.paths[0].suffix != ".json"]
    assert len(images) >= count
    for entry in images:
        if entry.refusal is not None and "--modality" not in entry.refusal:
            raise AssertionError(f"a result cannot be read: {entry.refusal}")
        if entry.refusal is None:
            assert np.isfinite(entry.load().array).all()


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> sha256."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Fail where the block hangs."""
    if sys.platform == "win32":
        yield
        return
    import signal

    def hung(*_: object) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _linux() -> bool:
    return Path("/proc/self/statm").is_file()
