"""``sasm batch`` in one process: the tree, the manifest, going on, refusing, and callers that use the environment."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_sasm.batch import work
from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.ledger import FOLDER, Ledger
from monai_sasm.batch.local import in_process
from monai_sasm.batch.lock import exclusive
from monai_sasm.batch.manifest import read
from monai_sasm.batch.plan import plan
from monai_sasm.batch.row import SCHEMA
from monai_sasm.batch.run import Summary, run
from monai_sasm.restoration.options import Options, Thinning
from tests import command
from tests.batch.studies import write_studies
from tests.data import mr_volume
from tests.io.dicom.dicom_cases import STEP, ct_slice, save_all
from tests.rows import check_rows


@pytest.fixture
def sasm(capsys: pytest.CaptureFixture[str], toy_restorer: Any) -> Iterator[Any]:
    """Run ``sasm batch ARGUMENTS`` in this process with toy experts; gives exit code, stdout and stderr."""
    work._restorer.cache_clear()

    def run(*arguments: object) -> tuple[int, str, str]:
        code, captured = command.sasm("batch", *arguments), capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    work._restorer.cache_clear()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two CT studies, a BIDS volume and a photo, in folders named after patients."""
    source = tmp_path / "in"
    write_studies(source / "ct", 2)
    image = source / "sub-1" / "anat" / "sub-1_T1w.nii"
    image.parent.mkdir(parents=True)
    shutil.copy(mr_volume(), image)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / "Smith_John.png")
    return source


def hashes(folder: Path) -> dict[str, str]:
    """Relative path -> sha256, of every file but the ledger's."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and FOLDER not in path.parts
    }


def test_a_tree_is_restored_and_told_about(sasm: Any, tree: Path, tmp_path: Path) -> None:
    before, output = hashes(tree), tmp_path / "out"
    (tree / "notes.txt").write_text("not an image")
    code, out, err = sasm(tree, output, "--save-maps")
    rows = read(output / "manifest.jsonl")
    assert code == 0
    assert len(rows) == len(out.splitlines()) == 4
    assert all(Path(line).exists() for line in out.splitlines())
    assert {row["status"] for row in rows} == {"ok"}
    check_rows(rows)
    assert {row["schema"] for row in rows} == {SCHEMA}
    assert len({row["run"] for row in rows}) == 1
    assert {row["input"]["modality"] for row in rows} == {"CT", "MR", "PHOTO"}
    for row in rows:
        assert row["models"]["toy_gate"] == "1" * 64
        assert row["parameters"]["strength"] == 1.0
        assert row["seconds"] >= row["network_seconds"] >= 0
        assert row["output"]["maps"] >= 2
        assert len(row["input"]["sha256"]) == 64
    found = hashes(output)
    assert "Smith_John.png" in found
    assert "Smith_John_change.png" in found
    assert "sub-1/anat/sub-1_desc-denoised_T1w.nii" in found
    assert sum(name.endswith(".dcm") for name in found) == 2
    assert "4 restored" in err
    assert "everything else" in err
    assert hashes(tree) == before | {"notes.txt": hashlib.sha256(b"not an image").hexdigest()}
    sidecar = json.loads((output / "sub-1" / "anat" / "sub-1_desc-denoised_T1w.json").read_text())
    assert sidecar["Sources"] == ["sub-1_T1w.nii"]  # the input is named like BIDS, but is no data set


def test_a_bids_derivative_names_its_source(sasm: Any, tree: Path) -> None:
    (tree / "dataset_description.json").write_text('{"Name": "Heads", "BIDSVersion": "1.8.0"}')
    output = tree / "derivatives" / "sasm"
    assert sasm(tree, output)[0] == 0
    sidecar = json.loads((output / "sub-1" / "anat" / "sub-1_desc-denoised_T1w.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-1/anat/sub-1_T1w.nii"]
    assert sidecar["SkullStripped"] is False
    assert json.loads((output / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert sasm(tree, output, "--resume")[0] == 0
    assert len(read(output / "manifest.jsonl")) == 4  # results are no input


def test_the_manifest_names_nobody_unless_asked(sasm: Any, tree: Path, tmp_path: Path) -> None:
    (tree / "Brown_Ann.png").write_bytes((tree / "Smith_John.png").read_bytes()[:400])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "Smith_John.png").write_text("taken")
    code, _, messages = sasm(tree, tmp_path / "out", "-v")
    text = (tmp_path / "out" / "manifest.jsonl").read_text()
    dataset = pydicom.dcmread(next(tree.rglob("*.dcm")))
    names = ["Smith", "Brown", "Doe", "Jane", "sub-1", str(tmp_path)]
    identifiers = [str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.PatientID)]
    assert code == 8
    check_rows(map(json.loads, text.splitlines()))
    assert {row["status"] for row in map(json.loads, text.splitlines())} == {"ok", "failed", "skipped"}
    assert not [name for name in names + identifiers if name in text]
    assert text.count('"id": ') == sum(json.loads(line)["input"]["id"] in messages for line in text.splitlines())
    messages = messages.replace(str(tmp_path / "out" / "manifest.jsonl"), "")
    assert not [name for name in names + identifiers if name in messages]
    _, _, messages = sasm(tree, tmp_path / "told", "--identify", "-v")
    assert "in/Smith_John.png (" in messages
    told = (tmp_path / "told" / "manifest.jsonl").read_text()
    check_rows(map(json.loads, told.splitlines()))
    assert all(name in told for name in ("Smith_John.png", "Doe_Jane_000", *identifiers[:2]))
    assert str(dataset.PatientID) not in told


def test_an_old_map_in_the_way_is_met_before_anything_is_written(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "Smith_John_change.png").write_text("mine")
    assert sasm(tree, output, "--save-maps")[0] == 0
    (skipped,) = [row for row in read(output / "manifest.jsonl") if row["status"] == "skipped"]
    check_rows([skipped])
    assert "exists" in skipped["reason"]
    assert not (output / "Smith_John.png").exists()
    assert (output / "Smith_John_change.png").read_text() == "mine"


def test_resume_does_what_is_left_and_nothing_else(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert sasm(tree, output)[0] == 0
    first, lines = hashes(output), read(output / "manifest.jsonl")
    code, out, err = sasm(tree, output, "--resume")
    assert code == 0
    assert len(out.splitlines()) == 4
    assert "4 done before" in err
    assert hashes(output) == first
    shutil.rmtree(next(output.rglob("*.dcm")).parent)  # a lost result is made again
    assert "1 restored, 3 done before" in sasm(tree, output, "--resume")[2]
    assert hashes(output).keys() == first.keys()
    assert len(read(output / "manifest.jsonl")) == len(lines) + 1


@pytest.mark.parametrize("emptied", [False, True])
def test_a_series_without_its_slices_is_made_again(sasm: Any, tmp_path: Path, emptied: bool) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    save_all([ct_slice(number) for number in range(3)], source)
    assert sasm(source, output)[0] == 0
    first = hashes(output)
    place = next(output.rglob("*.dcm")).parent
    for name in ("IM0002.dcm", "IM0001.dcm", "IM0003.dcm")[: 3 if emptied else 1]:
        (place / name).unlink()
    (place / "foreign.dcm").write_text("the user's")
    assert "1 restored" in sasm(source, output, "--resume")[2]
    assert hashes(output).keys() == first.keys() | {(place / "foreign.dcm").relative_to(output).as_posix()}
    assert "1 done before" in sasm(source, output, "--resume")[2]


def test_another_layout_is_another_result(sasm: Any, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    save_all([ct_slice(number) for number in range(2)], source)
    assert sasm(source, output)[0] == 0
    assert "1 restored" in sasm(source, output, "--flat", "--resume")[2]
    assert [path.parent for path in output.rglob("*.dcm")] == [output] * 2
    assert "1 done before" in sasm(source, output, "--flat", "--resume")[2]


def test_what_is_out_of_date_is_made_again(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sasm(tree, output)
    first = hashes(output)
    pixels = np.full((40, 56, 3), 80, dtype=np.uint8)
    Image.fromarray(pixels).save(tree / "Smith_John.png")
    code, _, err = sasm(tree, output)
    assert (code, hashes(output)) == (3, first), "not without being told to"
    code, _, err = sasm(tree, output, "--resume")
    assert code == 0
    assert "1 restored, 3 done before" in err
    changed = {name for name, digest in hashes(output).items() if first.get(name) != digest}
    assert changed == {"Smith_John.png", "manifest.jsonl"}
    assert "4 restored" in sasm(tree, output, "--resume", "--strength", "0.5")[2]
    assert len(read(output / "manifest.jsonl")) == 4 + 1 + 4


@pytest.mark.parametrize("before", [1, 3])
def test_slices_that_come_later_are_in_the_result(sasm: Any, tmp_path: Path, before: int) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    slices = [ct_slice(number) for number in range(4)]
    save_all(slices[-before:], source)
    assert sasm(source, output)[0] == 0
    save_all(slices, source)
    code, _, err = sasm(source, output, "--resume")
    assert (code, "1 restored" in err) == (0, True)
    places = sorted(float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in output.rglob("*.dcm"))
    assert places == [STEP * number for number in range(4)]
    rows = read(output / "manifest.jsonl")
    assert [(row["status"], row["output"]["files"]) for row in rows] == [("ok", before), ("ok", 4)]
    assert "1 done before" in sasm(source, output, "--resume")[2]


@pytest.mark.parametrize("before", [1, 2])
def test_a_ledger_that_knows_a_series_by_one_of_its_files_is_gone_on_with(
    sasm: Any, tmp_path: Path, before: int
) -> None:
    """As version 0.2.0 did where it was one file."""
    source, output = tmp_path / "in", tmp_path / "out"
    slices = [ct_slice(number) for number in range(2)]
    save_all(slices[:before], source / "series")
    (task,) = plan(BatchJob(source, output, Options()))
    (file, *_) = task.entry.paths
    named = f"series/{file.name}\n{task.entry.name}".encode()
    former = replace(task, id=hashlib.sha256(named).hexdigest()[:16])
    job = BatchJob(source, output, Options(), device="cpu")
    list(run(job, [former], in_process, Summary(1)))
    save_all(slices, source / "series")
    (now,) = plan(replace(job, resume=True))
    assert now.id == former.id != task.id
    assert f"1 {'done before' if before == 2 else 'restored'}" in sasm(source, output, "--resume")[2]
    assert len(list(output.rglob("*.dcm"))) == 2


def test_a_part_of_a_tree_has_results_of_its_own(sasm: Any, tmp_path: Path) -> None:
    """Their places differ, and nothing is said to lie where it does not."""
    source, output = tmp_path / "in", tmp_path / "out"
    slices = [ct_slice(number) for number in range(2)]
    save_all(slices, source / "series")
    for part in (source, source / "series"):
        for told in ("1 restored", "1 done before"):
            code, out, err = sasm(part, output, "--resume")
            assert (code, told in err) == (0, True)
            assert len(list(Path(out.strip()).iterdir())) == 2
    code, _, err = sasm(next((source / "series").iterdir()), output, "--resume")
    assert (code, "holds files already" in err) == (3, True), "a slice does not replace its series"
    assert len(list(output.rglob("*.dcm"))) == 4


def test_a_result_whose_name_has_changed_is_made_there(sasm: Any, tmp_path: Path) -> None:
    """Another image that has come since takes its name."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    volume = nibabel.load(mr_volume())
    nibabel.save(volume, source / "b.nii.gz")
    assert "1 restored" in sasm(source, output, "--modality", "MR")[2]
    nibabel.save(volume, source / "b.nii")
    for _ in range(2):
        _, out, _ = sasm(source, output, "--modality", "MR", "--resume")
        assert all(Path(line).is_file() for line in out.splitlines())
    assert len(out.splitlines()) == 2


def test_what_is_said_of_a_bids_image_is_said_anew(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output, sidecar = tmp_path / "out", tree / "sub-1" / "anat" / "sub-1_T1w.json"
    sidecar.write_text('{"EchoTime": 0.1}')
    assert sasm(tree, output)[0] == 0
    sidecar.write_text('{"EchoTime": 0.2}')
    assert "1 restored, 3 done before" in sasm(tree, output, "--resume")[2]
    derived = output / "sub-1" / "anat" / "sub-1_desc-denoised_T1w.json"
    assert json.loads(derived.read_text())["EchoTime"] == 0.2
    assert "4 done before" in sasm(tree, output, "--resume")[2]


def test_names_are_told_of_earlier_results_where_they_are_asked_for(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sasm(tree, output)
    sasm(tree, output, "--resume", "--identify")
    rows = read(output / "manifest.jsonl")
    check_rows(rows)
    assert len(rows) == 8
    assert {row["input"]["path"] for row in rows[4:]} >= {str(tree / "Smith_John.png")}
    assert {row["output"]["path"] for row in rows[4:]} >= {str(output / "Smith_John.png")}
    assert [row["commit"] for row in rows[4:]] == [row["commit"] for row in rows[:4]]
    _, out, _ = sasm(tree, output, "--resume", "--json")
    assert "Smith" not in out
    assert "Doe" not in out
    assert len(read(output / "manifest.jsonl")) == 8


@pytest.mark.parametrize("whole", [True, False])
def test_a_result_that_somebody_changed_is_out_of_date_and_told(
    sasm: Any, tree: Path, tmp_path: Path, whole: bool
) -> None:
    output = tmp_path / "out"
    sasm(tree, output, "--save-maps")
    (output / "Smith_John.png").write_bytes(b"mine")
    if not whole:
        (output / "Smith_John_change.png").unlink()
    Image.fromarray(np.full((40, 56, 3), 80, dtype=np.uint8)).save(tree / "Smith_John.png")
    for _ in range(2):
        code, _, err = sasm(tree, output, "--resume", "--save-maps")
        assert code == 8
        assert "another input, with other models or parameters" in err
        assert (output / "Smith_John.png").read_bytes() == b"mine"
        rows = read(output / "manifest.jsonl")
        check_rows(rows)
        assert [row["status"] for row in rows] == ["ok"] * 4 + ["failed"], "once"
    assert "1 restored, 3 done before" in sasm(tree, output, "--resume", "--overwrite", "--save-maps")[2]


@pytest.mark.parametrize(("told_by", "status"), [("pixels", "failed"), ("sidecar", "skipped")])
def test_a_result_whose_source_is_no_image_any_more_is_told(
    sasm: Any, tree: Path, tmp_path: Path, told_by: str, status: str
) -> None:
    output, place = tmp_path / "out", tree / "sub-1" / "anat" / "sub-1_T1w.nii"
    assert sasm(tree, output)[0] == 0
    if told_by == "pixels":
        labels = np.zeros((16, 16, 8), np.int16)
        labels[4:8] = 1
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), place)
    else:
        place.with_suffix(".json").write_text('{"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}')
    sasm(tree, output, "--resume")
    row = read(output / "manifest.jsonl")[-1]
    assert (row["status"], row["output"]) == (status, None)
    assert ("label" if told_by == "pixels" else "phase") in row["reason"]


def test_a_file_in_the_way_of_what_is_made_again_is_told(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert sasm(tree, output)[0] == 0
    (output / "Smith_John_change.png").write_text("mine")
    code, _, err = sasm(tree, output, "--save-maps", "--resume")
    assert (code, "3 restored" in err, "exists" in err) == (8, True, True)
    assert (output / "Smith_John_change.png").read_text() == "mine"
    assert [row["status"] for row in read(output / "manifest.jsonl")].count("failed") == 1


def test_without_resume_nothing_is_done_twice(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sasm(tree, output)
    first = hashes(output)
    code, out, err = sasm(tree, output)
    assert (code, out) == (3, "")
    assert "--resume" in err
    assert hashes(output) == first


def test_thinning_is_a_job_like_any_other(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    toy_restorer.experts.sections["toy_mr"]["degradation"] = "low-resolution"
    source = tmp_path / "in" / "sub-1_T1w.nii"
    source.parent.mkdir()
    shutil.copy(mr_volume(), source)
    job = BatchJob(tmp_path / "in", tmp_path / "out", Thinning("toy_mr", 2), device="cpu", resume=True)

    def run_once(job: BatchJob) -> list[dict[str, Any]]:
        tasks = plan(job)
        return list(run(job, tasks, in_process, Summary(len(tasks))))

    (first,) = run_once(job)
    check_rows([first])
    assert first["status"] == "ok"
    assert first["parameters"]["factor"] == 2
    result = nibabel.load(tmp_path / "out" / "sub-1_desc-denoised_T1w.nii")
    assert result.shape[2] == 2 * nibabel.load(source).shape[2]
    assert run_once(replace(job, run="0" * 12)) == [first]
    (other,) = run_once(replace(job, run="1" * 12, options=Thinning("toy_mr", 3)))
    assert (other["status"], other["parameters"]["factor"]) == ("ok", 3)


def test_two_runs_on_one_output(sasm: Any, tree: Path, tmp_path: Path) -> None:
    Ledger(tmp_path / "out").open()
    with exclusive(tmp_path / "out", tmp_path / "out" / FOLDER / "lock"):
        code, out, err = sasm(tree, tmp_path / "out")
    assert (code, out) == (2, "")
    assert f"another process uses {tmp_path / 'out'}" in err
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert sasm(tree, tmp_path / "out")[0] == 0


def test_an_output_that_cannot_be_written_to(sasm: Any, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, out, err = sasm(tree, tmp_path / "file" / "out", "-q")
    assert (code, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("where", ["result", "manifest"])
def test_a_full_disk_ends_the_run(
    sasm: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/Smith_John")

    target = "monai_sasm.batch.work.restore_to" if where == "result" else "monai_sasm.batch.run.Manifest.append"
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        code, out, err = sasm(tree, tmp_path / "out")
    assert (code, out) == (4, "")
    assert "3 left" in err or "4 left" in err
    rows = read(tmp_path / "out" / "manifest.jsonl")
    assert [row["error"] for row in rows] == (["ENOSPC"] if where == "result" else [])
    assert "Smith" not in (tmp_path / "out" / "manifest.jsonl").read_text()
    assert sasm(tree, tmp_path / "out", "--resume")[0] == 0
    assert sorted(row["status"] for row in read(tmp_path / "out" / "manifest.jsonl") if row["status"] == "ok") == (
        ["ok"] * 4
    )


def test_ctrl_c_leaves_nothing_half_written(
    sasm: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, real = tmp_path / "out", work.restore_to

    def interrupted(volume: Any, target: Path, *arguments: Any, **options: Any) -> Any:
        done = real(volume, target, *arguments, **options)
        if target.suffix == ".nii":
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(work, "restore_to", interrupted)
        code, _, err = sasm(tree, output)
    assert code == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert "3 restored, 1 left" in err
    assert not list(output.rglob("*.nii"))
    assert not list((output / FOLDER / "staging").iterdir())
    assert not list((output / FOLDER / "starts").iterdir())
    assert sasm(tree, output, "--resume")[0] == 0
    assert len(list(output.rglob("*.nii"))) == 1


def test_a_deadly_series_is_given_up(sasm: Any, tree: Path, tmp_path: Path) -> None:
    _, out, _ = sasm(tree, tmp_path / "out", "--dry-run", "--json")
    identity = json.loads(out.splitlines()[0])["input"]["id"]
    Ledger(tmp_path / "out").open()
    starts = tmp_path / "out" / FOLDER / "starts"
    (starts / identity).write_bytes(b"." * work.MAX_DEATHS)
    code, _, err = sasm(tree, tmp_path / "out")
    assert code == 8
    assert f"{identity}: its process ended {work.MAX_DEATHS} times" in err
    assert sasm(tree, tmp_path / "out", "--resume")[0] == 0, "on request it is tried again"


def test_a_series_that_took_its_process_along_comes_last(sasm: Any, tree: Path, tmp_path: Path) -> None:
    _, out, _ = sasm(tree, tmp_path / "out", "--dry-run", "--json")
    planned = [row["input"]["id"] for row in map(json.loads, out.splitlines()) if row["status"] == "planned"]
    assert len(planned) > 1
    Ledger(tmp_path / "out").open()
    starts = tmp_path / "out" / FOLDER / "starts"
    (starts / planned[0]).write_bytes(b".")
    assert sasm(tree, tmp_path / "out")[0] == 0
    done = [row["input"]["id"] for row in read(tmp_path / "out" / "manifest.jsonl") if row["status"] == "ok"]
    assert done == [*planned[1:], planned[0]]


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("MERCURE_IN_DIR", "MERCURE_OUT_DIR"),
        ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH"),
        ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
    ],
)
def test_orchestrators_name_the_folders_in_the_environment(
    sasm: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, outside: str
) -> None:
    monkeypatch.setenv(inside, str(tree / "ct"))
    monkeypatch.setenv(outside, str(tmp_path / "out"))
    monkeypatch.setenv("SASM_BATCH_STRENGTH", "0.5")
    code, _, _ = sasm()
    assert code == 0
    results = list((tmp_path / "out").rglob("*.dcm"))
    assert len(results) == 2
    if outside == "MERCURE_OUT_DIR":  # its sender does not look into folders
        for path in results:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            assert path == tmp_path / "out" / f"{dataset.SeriesInstanceUID}#{dataset.SOPInstanceUID}.dcm"
        assert sasm("--resume")[0] == 0
        assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    else:
        assert all(path.parent.parent.parent == tmp_path / "out" for path in results)
    assert {row["parameters"]["strength"] for row in read(tmp_path / "out" / "manifest.jsonl")} == {0.5}


def test_arguments_win_over_the_environment(
    sasm: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERCURE_IN_DIR", str(tmp_path / "absent"))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "unused"))
    assert sasm(tree / "ct", tmp_path / "out")[0] == 0
    assert not (tmp_path / "unused").exists()
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_dry_run_maps_ids_to_places_and_writes_nothing(sasm: Any, tree: Path, tmp_path: Path) -> None:
    shutil.copy(mr_volume(), tree / "unknown.nii")
    code, out, _ = sasm(tree, tmp_path / "out", "--dry-run")
    assert code == 0
    assert not (tmp_path / "out").exists()
    assert sorted(line.split()[0] for line in out.splitlines()) == ["plan", *["restore"] * 4, "skip"]
    assert "--modality" in out
    planned = map(json.loads, sasm(tree, tmp_path / "out", "--dry-run", "--json")[1].splitlines())
    assert str(tree / "Smith_John.png") in [row["input"]["path"] for row in planned]
    sasm(tree, tmp_path / "out")
    for row in read(tmp_path / "out" / "manifest.jsonl"):
        assert row["input"]["id"] in out


def test_dry_run_tells_what_an_earlier_run_has_done(sasm: Any, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sasm(tree, output)
    (output / "Smith_John.png").unlink()
    for options, verbs in ((("--resume",), ["check"] * 4), (("--overwrite",), ["restore"] * 4)):
        code, out, _ = sasm(tree, output, "--dry-run", *options)
        assert (code, [line.split()[0] for line in out.splitlines()[1:]]) == (0, verbs)
    code, out, _ = sasm(tree, output, "--dry-run")
    assert (code, out.count("an earlier run has done it; pass --resume")) == (0, 3)
    (output / "Smith_John.png").write_text("another's")
    code, out, _ = sasm(tree, output, "--dry-run", "--json")
    assert code == 3
    for row in map(json.loads, out.splitlines()):
        assert row["status"] == "skipped"
    assert sasm(tree, output)[0] == 3


@pytest.mark.parametrize("wrong", [["--scheduler", "tcp://127.0.0.1:1", "--cluster", "FILE"], ["--device", "abacus"]])
def test_wrong_use_is_code_2(sasm: Any, tree: Path, tmp_path: Path, wrong: list[str]) -> None:
    (tmp_path / "cluster.yaml").write_text("kind: local")
    arguments = [argument.replace("FILE", str(tmp_path / "cluster.yaml")) for argument in wrong]
    code, out, err = sasm(tree, tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_nothing_to_do_is_code_3(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert sasm(tmp_path / "in", tmp_path / "out")[0] == 3
    assert sasm(tmp_path / "absent", tmp_path / "out")[0] == 2


@pytest.mark.parametrize(
    ("seconds", "network", "told"),
    [
        (1.6, 0.4, "gate and experts 0.4 s, everything else 1.2 s"),
        (2.0, 0.0, "gate and experts 0.0 s, everything else 2.0 s"),
        (2.0, 5.0, "gate and experts 5.0 s, 2.5 at a time"),
    ],
)
def test_the_summary_tells_where_the_time_went(seconds: float, network: float, told: str) -> None:
    assert Summary(planned=1, ok=1, seconds=seconds, network_seconds=network).overhead == told
