"""Data sets that bring an output folder of their own, with links and names that lead out of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_sasm.batch import bids
from monai_sasm.batch.ledger import FOLDER, Ledger
from monai_sasm.batch.lock import exclusive
from monai_sasm.batch.manifest import NAME, Manifest, read
from monai_sasm.errors import RefusedError
from monai_sasm.io import nofollow
from tests.command import sasm
from tests.hostile.laws import contents
from tests.hostile.test_folders import write

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
ID = "0123456789abcdef"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is somebody else's: files that must stay, in a folder beside the data set."""
    folder = tmp_path / "outside"
    (folder / "run").mkdir(parents=True)
    for name in ("thesis.txt", "run/IM0001.dcm", f"{ID}.json", "record.json"):
        (folder / name).write_text(f"mine: {name}")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set of one photo, into which the output goes."""
    write("png.png", tmp_path / "ds" / "a.png")
    return tmp_path / "ds"


def run(dataset: Path, output: Path, trust: Path, *more: str) -> int:
    return sasm("batch", dataset, output, "--trust", trust, "--device", "cpu", "--overwrite", *more)


def ready(ledger: Path, units: dict[str, Any], files: dict[str, str]) -> None:
    """A committed result, as a crash would leave it before it is moved."""
    folder = ledger / "ready" / ID
    for name, text in files.items():
        (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / name).write_text(text)
    (folder / "record.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps({"key": "k", "row": {"run": "r"}, "units": units}))


Attack = Callable[[Path, Path], None]


def link(name: str, goal: str = ".") -> Attack:
    def attack(ledger: Path, outside: Path) -> None:
        (ledger / name).parent.mkdir(parents=True, exist_ok=True)
        (ledger / name).symlink_to(outside / goal)

    return attack


def units_outside(ledger: Path, outside: Path) -> None:
    ready(ledger, {"../../../outside/thesis.txt": []}, {"x": "theirs"})


def names_outside(ledger: Path, outside: Path) -> None:
    ready(ledger, {"CT": ["../../../outside/thesis.txt"]}, {"CT/x": "theirs"})


def absolute_units(ledger: Path, outside: Path) -> None:
    ready(ledger, {str(outside / "thesis.txt"): []}, {"x": "theirs"})


def files_linked(ledger: Path, outside: Path) -> None:
    ready(ledger, {"thesis.txt": []}, {})
    (ledger / "ready" / ID / "files").symlink_to(outside)


def own_ledger(ledger: Path, outside: Path) -> None:
    ready(ledger, {f"{FOLDER}/lock": []}, {f"{FOLDER}/lock": "theirs"})


ATTACKS: dict[str, Attack] = {
    "the ledger is a link": link("."),
    **{name: link(name) for name in ("starts", "staging", "ready", "done")},
    "lock": link("lock", "thesis.txt"),
    "mark": link("made-here", "thesis.txt"),
    "one ready": link(f"ready/{ID}"),
    "one start": link(f"starts/{ID}", "thesis.txt"),
    "one done": link(f"done/{ID}.json", f"{ID}.json"),
    "one staged": link("staging/run", "run"),
    "units": units_outside,
    "names": names_outside,
    "absolute": absolute_units,
    "files": files_linked,
    "itself": own_ledger,
}


def prepare(attack: str, dataset: Path, outside: Path) -> Path:
    output = dataset / "derivatives" / "sasm"
    output.mkdir(parents=True)
    if attack == "the ledger is a link":
        (output / FOLDER).symlink_to(outside)
    else:
        (output / FOLDER).mkdir()
        ATTACKS[attack](output / FOLDER, outside)
    return output


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_ledger_that_came_with_the_data_is_refused(
    attack: str, dataset: Path, outside: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(outside)
    output = prepare(attack, dataset, outside)
    assert run(dataset, output, trust) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "was not made here" in told or "is a link" in told
    assert contents(outside) == before


@pytest.mark.parametrize("attack", ATTACKS)
def test_even_a_ledger_that_is_vouched_for_leads_nowhere_else(
    attack: str, dataset: Path, outside: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(outside)
    output = prepare(attack, dataset, outside)
    code = run(dataset, output, trust, "--adopt")
    assert "Traceback" not in capsys.readouterr().err
    assert contents(outside) == before
    if attack in ("one ready", "one start", "one done", "one staged", "units", "names", "absolute", "files", "itself"):
        assert code == 0, "others go on"
        assert (output / "a.png").is_file()
        assert not list((output / FOLDER / "staging").glob("run"))
    else:
        assert code == 0 if attack == "mark" else code == 2


@pytest.mark.parametrize("place", ["manifest.jsonl", "a.png", "scan"])
@pytest.mark.parametrize("command", ["batch", "restore"])
def test_links_in_the_place_of_results(
    command: str, place: str, dataset: Path, outside: Path, trust: Path, tmp_path: Path
) -> None:
    write("png.png", dataset / "scan" / "b.png")
    output = tmp_path / "out"
    output.mkdir()
    (output / place).symlink_to(outside if place == "scan" else outside / "thesis.txt")
    before = contents(outside)
    if command == "batch":
        code = run(dataset, output, trust)
    else:
        code = sasm("restore", dataset, "-o", output, "--trust", trust, "--device", "cpu", "--overwrite")
    assert contents(outside) == before
    assert code == (2 if (command, place) == ("batch", NAME) else 0)
    done = {path.name for path in output.rglob("*.png") if not path.is_symlink()}
    if code == 0:
        assert done == {"a.png", "b.png"} - ({"a.png"} if place == "a.png" else {"b.png"} if place == "scan" else set())


def test_an_output_inside_the_input_stays_inside(
    dataset: Path, outside: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(outside)
    (dataset / "derivatives").symlink_to(outside)
    assert run(dataset, dataset / "derivatives" / "sasm", trust) == 2
    assert "leads out of it" in capsys.readouterr().err
    assert contents(outside) == before
    assert run(dataset, outside / "sasm", trust) == 0, "named by its own name"


def test_another_users_ledger_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.open()
    ledger.open()  # the same again
    monkeypatch.setattr("monai_sasm.batch.ledger.owner_here", lambda folder: os.getuid() + 1)
    with pytest.raises(RefusedError, match="another user owns"):
        ledger.open(adopt=True)


def test_a_ledger_that_was_copied_is_taken_over_only_when_told(tmp_path: Path) -> None:
    Ledger(tmp_path / "here").open()
    (tmp_path / "there" / FOLDER).mkdir(parents=True)
    mark = (tmp_path / "here" / FOLDER / "made-here").read_bytes()
    (tmp_path / "there" / FOLDER / "made-here").write_bytes(mark)
    copied = Ledger(tmp_path / "there")
    with pytest.raises(RefusedError, match="adopt=True"):
        copied.open()
    copied.open(adopt=True)
    copied.open()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_files_that_are_opened_are_plain_files(kind: str, tmp_path: Path, outside: Path) -> None:
    place, secret = tmp_path / "file", outside / "thesis.txt"
    {
        "link": lambda: place.symlink_to(secret),
        "hard link": lambda: place.hardlink_to(secret),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }[kind]()
    before = contents(outside)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_APPEND):
        with pytest.raises(RefusedError, match="plain file"):
            nofollow.open_regular(place, flags)
    with pytest.raises(RefusedError), exclusive(tmp_path, place):
        pass
    with pytest.raises(RefusedError):
        Manifest(place)
    assert contents(outside) == before


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "", ".", "a//b", "a/./b", "..", "a/..", "x\0y", "link/x", "link"]
)
def test_names_that_lead_elsewhere(name: str, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(RefusedError):
        nofollow.inside(tmp_path, name)


def test_names_that_stay(tmp_path: Path) -> None:
    for name in ("x", "a/b/..c", "...", "a b/ü\\x"):
        assert nofollow.inside(tmp_path, name) == tmp_path / name


def test_lines_of_the_wrong_shape_do_not_end_a_batch(dataset: Path, tmp_path: Path, trust: Path) -> None:
    output = tmp_path / "out"
    assert run(dataset, output, trust) == 0
    whole = (output / NAME).read_bytes()
    wrong = [
        b"[]",
        b"3",
        b'"row"',
        b"{}",
        b'{"input": []}',
        b'{"input": {"id": 3}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"no",
    ]
    for line in wrong:
        (output / NAME).write_bytes(line + b"\n" + whole + line + b"\n\n")
        assert run(dataset, output, trust, "--resume") == 0
        assert len(read(output / NAME)) == 1
    (output / NAME).write_bytes(whole + b"\n")
    assert run(dataset, output, trust, "--resume") == 0
    assert len(read(output / NAME)) == 1


@pytest.mark.parametrize("name", ["README", ".bidsignore", "dataset_description.json"])
def test_what_describes_the_derivatives_is_written_through_no_link(name: str, tmp_path: Path, outside: Path) -> None:
    output, goal = tmp_path / "out", outside / "planted"
    output.mkdir()
    (output / name).symlink_to(goal)
    bids.describe(output, tmp_path)
    assert not goal.exists()
    assert {path.name for path in output.iterdir()} == {"README", ".bidsignore", "dataset_description.json"}
    assert json.loads((output / "dataset_description.json").read_text())["DatasetType"] == "derivative"
