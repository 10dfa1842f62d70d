"""``sasm bids``: the interface of BIDS apps, and derivatives that the BIDS validator accepts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_sasm.batch.bids import describe
from monai_sasm.cli.main import main


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    noise = np.random.default_rng(0).standard_normal((32, 32, 3))
    image = nibabel.Nifti1Image((400 + 30 * noise).astype(np.int16), np.diag([1.0, 1, 2, 1]))
    for name in ("sub-01", "sub-02"):
        (root / name / "anat").mkdir(parents=True)
        nibabel.save(image, root / name / "anat" / f"{name}_T1w.nii.gz")
        nibabel.save(image, root / name / "anat" / f"{name}_acq-fast_run-2_FLAIR.nii.gz")
    facts = {"Name": "Heads", "BIDSVersion": "1.10.0", "Authors": ["A. Author", "B. Author"]}
    (root / "dataset_description.json").write_text(json.dumps(facts))
    (root / "README").write_text("Two heads of noise, made here.\n")
    return root


def problems(root: Path) -> list[str]:
    """What the BIDS validator says against a data set: its errors, ``CODE file``."""
    validator, deno = pytest.importorskip("bids_validator_deno"), pytest.importorskip("deno")
    beside = Path(deno.__file__).parents[4] / "bin"  # packages may be borrowed from another environment
    program = shutil.which("deno", path=os.pathsep.join((str(Path(sys.executable).parent), str(beside))))
    assert program is not None
    script = Path(validator.__file__).with_name("bids-validator.js")
    words = (program, "run", "--no-prompt", "--allow-read", "--allow-env", str(script), "--json", str(root))
    result = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    issues = json.loads(result.stdout)["issues"]["issues"]
    found = [f"{issue['code']} {issue['location']}" for issue in issues if issue["severity"] == "error"]
    assert bool(found) == bool(result.returncode), result.stderr
    return found


def run(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bids", *map(str, words)])
    return int(ended.value.code or 0)


def test_the_validator_accepts_the_derivatives(data_set: Path, tmp_path: Path, toy_restorer: Any) -> None:
    """Names, sidecars and description of a whole run with maps; and it does complain where something is wrong."""
    output = tmp_path / "derived"
    assert problems(data_set) == []
    assert run(data_set, output, "participant", "--modality", "MR", "--save-maps") == 0
    maps = {path.name.rpartition("_")[2] for path in output.rglob("sub-*_T1w_*")}
    assert {"change.nii.gz"} < maps, "maps, whose names are not of BIDS, are there and passed over"
    assert (output / "sub-01/anat/sub-01_acq-fast_run-2_desc-denoised_FLAIR.nii.gz").is_file()
    assert problems(output) == []
    (output / "sub-01/anat/sub-01_desc-denoised_nonsense.nii.gz").write_bytes(b"")
    assert any("nonsense" in problem for problem in problems(output))


@pytest.fixture
def scanned(data_set: Path) -> Path:
    """With diffusion, functional, perfusion and field map images, whose facts stand at all levels."""
    draw = np.random.default_rng(0)

    def add(name: str, facts: dict[str, Any], shape: tuple[int, ...] = (32, 32, 3, 3)) -> None:
        path = data_set / "sub-01" / name
        path.parent.mkdir(exist_ok=True)
        array = (400 + 30 * draw.standard_normal(shape)).astype(np.int16)
        image = nibabel.Nifti1Image(array, np.diag([1.0, 1, 2, 1]))
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((1, 1, 2, 2.0)[: array.ndim])
        nibabel.save(image, path)
        if facts:
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(facts))

    add("dwi/sub-01_dir-AP_dwi.nii.gz", {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05})
    (data_set / "dwi.bval").write_text("0 1000 1000\n")
    (data_set / "sub-01/dwi/sub-01_dir-AP_dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
    add("func/sub-01_task-rest_bold.nii.gz", {"EchoTime": 0.03})
    for echo in (1, 2):
        add(f"func/sub-01_task-blink_echo-{echo}_bold.nii.gz", {"EchoTime": 0.01 * echo, "RepetitionTime": 2.0})
    (data_set / "task-rest_bold.json").write_text(
        json.dumps({"RepetitionTime": 9.0, "TaskName": "rest", "SliceTiming": [0, 0.5, 1], "EchoTime": 9.0})
    )
    (data_set / "sub-01/sub-01_task-rest_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    (data_set / "task-blink_bold.json").write_text(json.dumps({"TaskName": "blink"}))
    (data_set / "task-blink_events.tsv").write_text("onset\tduration\n1\t2\n")
    add("perf/sub-01_asl.nii.gz", {"RepetitionTimePreparation": 4.0, "MagneticFieldStrength": 3.0})
    (data_set / "sub-01/perf/sub-01_aslcontext.tsv").write_text("volume_type\ncontrol\nlabel\ndeltam\n")
    reversed_ = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}
    intended = {"IntendedFor": ["func/sub-01_task-rest_bold.nii.gz", "bids::sub-01/dwi/sub-01_dir-AP_dwi.nii.gz"]}
    add("fmap/sub-01_dir-PA_epi.nii.gz", reversed_ | intended, (32, 32, 3))
    return data_set


def test_derivatives_take_along_what_the_data_set_says_of_their_sources(
    scanned: Path, tmp_path: Path, toy_restorer: Any
) -> None:
    """A modelling tool finds repetition times, directions and events; the nearest sidecar counts."""
    output = tmp_path / "derived"
    assert run(scanned, output, "participant", "--modality", "MR") == 0

    def told(name: str) -> dict[str, Any]:
        return dict(json.loads((output / "sub-01" / f"{name}.json").read_text()))

    rest = told("func/sub-01_task-rest_desc-denoised_bold")
    facts = {"RepetitionTime": 2.0, "TaskName": "rest", "SliceTiming": [0, 0.5, 1], "EchoTime": 0.03}
    assert {key: rest[key] for key in facts} == facts
    assert rest["Sources"] == ["bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz"]
    assert rest["SkullStripped"] is False
    blink = told("func/sub-01_task-blink_echo-2_desc-denoised_bold")
    assert (blink["TaskName"], blink["EchoTime"]) == ("blink", 0.02)
    assert "SliceTiming" not in blink
    assert told("fmap/sub-01_dir-PA_desc-denoised_epi")["IntendedFor"] == [
        "bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz",
        "bids:raw:sub-01/dwi/sub-01_dir-AP_dwi.nii.gz",
    ]
    assert "RepetitionTime" not in told("anat/sub-01_desc-denoised_T1w")
    tables = {
        "dwi/sub-01_dir-AP_dwi.bval": "0 1000 1000\n",
        "dwi/sub-01_dir-AP_dwi.bvec": "0 1 0\n0 0 1\n0 0 0\n",
        "func/sub-01_task-blink_events.tsv": "onset\tduration\n1\t2\n",
        "perf/sub-01_aslcontext.tsv": "volume_type\ncontrol\nlabel\ndeltam\n",
    }
    assert {name: (output / "sub-01" / name).read_text() for name in tables} == tables
    assert len([*output.glob("sub-*/*/*.[bt][vs]*")]) == len(tables)
    assert run(scanned, output, "participant", "--modality", "MR", "--resume") in (0, 3)
    assert problems(output) == []


@pytest.mark.parametrize("option", ["--participant-label", "--participant_label"])  # the latter: of BIDS apps
def test_one_participant_is_restored(data_set: Path, tmp_path: Path, toy_restorer: Any, option: str) -> None:
    output = tmp_path / "derived"
    assert run(data_set, output, "participant", option, "02", "--modality", "MR") == 0
    derived = sorted(path.relative_to(output).as_posix() for path in output.rglob("sub-*T1w*"))
    assert derived == ["sub-02/anat/sub-02_desc-denoised_T1w.json", "sub-02/anat/sub-02_desc-denoised_T1w.nii.gz"]
    assert not (output / "sub-01").exists()
    description = json.loads((output / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["Authors"] == ["A. Author", "B. Author"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["group"], "must be participant"),
        (["participant", "--participant-label", "09"], "no participant sub-09"),
    ],
)
def test_wrong_use_is_named(data_set: Path, tmp_path: Path, capsys: Any, words: list[str], told: str) -> None:
    assert run(data_set, tmp_path / "derived", *words) == 2
    assert told in capsys.readouterr().err


def test_another_folder_is_no_data_set(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "raw").mkdir()
    assert run(tmp_path / "raw", tmp_path / "derived", "participant") == 2
    assert "no BIDS data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("[" * 100_000, "Images"),
        ('{"Name": ' + "[" * 100_000, "Images"),
        ("{" + '"Name": {' * 400 + '"a": 1' + "}" * 401, "Images"),
        ('{"Name": "Heads", "Authors": ' + "[" * 400 + "]" * 400 + "}", "Heads"),
        ('{"Name": "Heads", "Authors": ["A", 5], "DatasetDOI": {"a": 1}}', "Heads"),
        ('{"Name": ["Heads"], "Authors": "A. Author", "DatasetDOI": 7}', "Images"),
        ('{"Name": "Heads"}' + " " * (5 << 20), "Images"),
        ("\ud800", "Images"),
        ("5", "Images"),
    ],
    ids=range(9),
)
def test_a_description_of_any_kind_ends_no_run(tmp_path: Path, content: str, name: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "derived").mkdir()
    (tmp_path / "raw" / "dataset_description.json").write_bytes(content.encode(errors="surrogatepass"))
    describe(tmp_path / "derived", tmp_path / "raw")
    described = json.loads((tmp_path / "derived" / "dataset_description.json").read_text())
    assert described["Name"] == f"{name}, restored"
    assert "Authors" not in described
    assert described["SourceDatasets"] == [{"URL": "bids:raw:"}]


def test_a_good_description_is_handed_on(data_set: Path, tmp_path: Path) -> None:
    facts = {"Name": "K\u00f6pfe", "Authors": ["A. Author", "B. Author"], "DatasetDOI": "doi:10.1/2"}
    (data_set / "dataset_description.json").write_text(json.dumps(facts))
    (tmp_path / "derived").mkdir()
    describe(tmp_path / "derived", data_set)
    described = json.loads((tmp_path / "derived" / "dataset_description.json").read_text())
    assert (described["Name"], described["Authors"]) == ("K\u00f6pfe, restored", facts["Authors"])
    assert described["SourceDatasets"] == [{"DOI": "doi:10.1/2"}]


def test_a_description_behind_a_link_is_not_read(data_set: Path, tmp_path: Path) -> None:
    """What lies outside of the data set is not handed on with its derivatives."""
    (data_set / "dataset_description.json").rename(tmp_path / "secret.json")
    (data_set / "dataset_description.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "derived").mkdir()
    describe(tmp_path / "derived", data_set)
    assert "Heads" not in (tmp_path / "derived" / "dataset_description.json").read_text()
