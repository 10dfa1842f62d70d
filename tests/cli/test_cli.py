"""The command line: what it prints where, its exit codes, and that an error is one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_sasm import __version__
from monai_sasm.cli.output import exit_code
from monai_sasm.evaluation.data import seed_of
from tests.data import CHECKOUT, ct_small, mr_volume, shared
from tests.rows import check_rows
from tests.toy_bundles import write_gain_expert, write_trusting_gate


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    path = tmp_path / "in" / "window.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 3), (["skipped"], 3), (["failed"], 4), (["failed", "skipped"], 4), (["ok"], 0), (["ok", "skipped"], 0),
        (["ok", "failed"], 8), (["planned"], 0),
    ],
)  # fmt: skip
def test_exit_codes(statuses: list[str], code: int) -> None:
    assert exit_code(statuses) == code


def test_version(sasm: Any) -> None:
    assert sasm("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    "wrong", [["--strength", "2"], ["--device", "abacus"], ["--top-k", "0"], ["--no-such-option"], ["--sigma", "0"]]
)
def test_wrong_use_is_code_2_and_writes_nothing(sasm: Any, photo: Path, tmp_path: Path, wrong: list[str]) -> None:
    code, out, err = sasm("restore", photo, "-o", tmp_path / "out", *wrong)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_missing_input_is_one_line(sasm: Any, tmp_path: Path) -> None:
    code, out, err = sasm("restore", tmp_path / "absent", "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "does not exist" in err


def test_restore_photo_to_a_folder_and_to_a_file(sasm: Any, photo: Path, tmp_path: Path, toy_restorer: Any) -> None:
    code, out, _ = sasm("restore", photo, "-o", tmp_path / "out", "--expert", "toy_photo")
    assert (code, out) == (0, f"{tmp_path / 'out' / 'window.png'}\n")
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (photo, tmp_path / "out" / "window.png"))
    assert np.abs(after - before / 2).max() <= 0.5
    code, out, _ = sasm("restore", photo, "-o", tmp_path / "one.png", "--expert", "toy_photo", "--strength", "0")
    assert (code, out) == (0, f"{tmp_path / 'one.png'}\n")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), before)


def test_existing_results_are_kept_unless_overwrite(sasm: Any, photo: Path, tmp_path: Path, toy_restorer: Any) -> None:
    command = ("restore", photo, "-o", tmp_path / "out", "--expert", "toy_photo")
    assert sasm(*command)[0] == 0
    result = tmp_path / "out" / "window.png"
    result.write_bytes(b"mine")
    code, out, err = sasm(*command)
    assert (code, out) == (3, "")
    assert "--overwrite" in err
    assert result.read_bytes() == b"mine"
    assert sasm(*command, "--overwrite")[0] == 0
    assert result.read_bytes() != b"mine"


@pytest.mark.parametrize("old", ["window_change.png", "window_weight-other.png", "window_trust.png"])
def test_an_old_map_in_the_way_is_met_before_anything_is_written(
    sasm: Any, photo: Path, tmp_path: Path, toy_restorer: Any, old: str
) -> None:
    command = ("restore", photo, "-o", tmp_path / "out", "--expert", "toy_photo")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / old).write_bytes(b"mine")
    code, out, err = sasm(*command, "--save-maps")
    assert (code, out) == (3, "")
    assert old in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [old]
    assert sasm(*command)[0] == 0, "without maps it is in nobody's way"
    assert (tmp_path / "out" / old).read_bytes() == b"mine"
    assert sasm(*command, "--save-maps", "--overwrite")[0] == 0


def test_maps_that_cannot_be_written_leave_no_half_result(
    sasm: Any, photo: Path, tmp_path: Path, toy_restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo.parent / "slice.dcm").write_bytes(ct_small().read_bytes())
    command = ("restore", photo.parent, "-o", tmp_path / "out", "--save-maps", "--json")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("monai_sasm.restoration.maps.write_map", full)
        code, out, _ = sasm(*command)
    rows = [json.loads(line) for line in out.splitlines()]
    check_rows(rows)
    assert code == 4
    assert [(row["status"], row["error"]) for row in rows] == [("failed", "ENOSPC")] * 2
    assert not list((tmp_path / "out").iterdir())
    assert sasm(*command)[0] == 0


def test_the_sidecar_of_a_source_is_never_replaced(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    source = tmp_path / "volume.nii.gz"
    source.write_bytes(mr_volume().read_bytes())
    (tmp_path / "volume.json").write_text("mine")
    code, _, err = sasm("restore", source, "-o", tmp_path / "volume.nii", "--modality", "MR", "--overwrite")
    assert (code, "source" in err) == (3, True)
    assert (tmp_path / "volume.json").read_text() == "mine"
    assert not (tmp_path / "volume.nii").exists()


def test_a_result_never_lands_on_its_source(sasm: Any, photo: Path, toy_restorer: Any) -> None:
    before = photo.read_bytes()
    code, _, err = sasm("restore", photo, "-o", photo, "--expert", "toy_photo", "--overwrite")
    assert code == 3
    assert "source" in err
    assert photo.read_bytes() == before


def test_restore_dicom_gives_a_derived_series(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    code, out, _ = sasm("restore", ct_small(), "-o", tmp_path / "out", "--expert", "toy_ct", "--save-maps")
    assert code == 0
    source = pydicom.dcmread(ct_small())
    files = sorted(Path(out.strip()).glob("*.dcm"))
    result = pydicom.dcmread(files[0])
    assert len(files) == 1
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert result.StudyInstanceUID == source.StudyInstanceUID
    before = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
    after = result.pixel_array * float(result.RescaleSlope) + float(result.RescaleIntercept)
    assert np.abs(after - before / 2).max() <= 1
    maps = sorted(path.name for path in Path(out.strip()).parent.glob("*.nii.gz"))
    assert [name.rsplit("_", 1)[0] for name in maps] == [
        out.strip().split("/")[-1] + end for end in ("", "_weight-toy")
    ]
    assert {name.split("_")[-1] for name in maps} == {"change.nii.gz", "ct.nii.gz"}


def test_json_rows(sasm: Any, photo: Path, tmp_path: Path, toy_restorer: Any) -> None:
    (photo.parent / "broken.png").write_bytes(photo.read_bytes()[:500])
    (photo.parent / "volume.nii").write_bytes(mr_volume().read_bytes())
    command = ("restore", photo.parent, "-o", tmp_path / "out", "--expert", "toy_photo", "--json", "--save-maps")
    code, out, err = sasm(*command)
    rows = {row["input"]["name"]: row for row in map(json.loads, out.splitlines())}
    check_rows(rows.values())
    assert {name: row["status"] for name, row in rows.items()} == {
        "in/broken.png": "failed",
        "in/volume.nii": "skipped",
        "in/window.png": "ok",
    }
    assert code == 8
    assert "Traceback" not in err
    assert "--modality" in rows["in/volume.nii"]["reason"]
    ok = rows["in/window.png"]
    assert ok["schema"] == "sasm.row/1"
    assert ok["output"]["files"] == 1
    assert ok["models"]["toy_photo"] == "0" * 64
    assert ok["parameters"]["expert"] == "toy_photo"
    assert ok["summary"]["weights"] == {"identity": 0.0, "toy_photo": 1.0}
    assert ok["seconds"] > 0
    assert ok["output"]["maps"] == 2
    maps = sorted(Path(path).name for path in ok["output"]["map_paths"])
    assert maps == ["window_change.png", "window_weight-toy_photo.png"]
    weight = np.asarray(Image.open(tmp_path / "out" / "window_weight-toy_photo.png"))
    assert weight.shape == (40, 56)
    assert (weight == 255).all()


def test_an_expert_passes_over_other_modalities(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    code, out, err = sasm("restore", ct_small(), "-o", tmp_path / "out", "--expert", "toy_mr")
    assert (code, out) == (3, "")
    assert "toy_mr is for MR, this image is CT" in err


def test_dry_run_says_what_and_why_and_writes_nothing(sasm: Any, photo: Path, tmp_path: Path) -> None:
    (photo.parent / "slice.dcm").write_bytes(ct_small().read_bytes())
    (photo.parent / "volume.nii").write_bytes(mr_volume().read_bytes())
    code, out, _ = sasm("restore", photo.parent, "-o", tmp_path / "out", "--dry-run")
    assert code == 0
    lines = {line.split()[1]: line for line in out.splitlines()}
    assert lines["CT"].startswith("restore")
    assert "single" in lines["CT"]
    assert lines["PHOTO"].startswith("restore")
    assert str(tmp_path / "out" / "window.png") in lines["PHOTO"]
    assert lines["?"].startswith("skip")
    assert "--modality" in lines["?"]
    code, out, _ = sasm("restore", photo.parent, "-o", tmp_path / "out", "--dry-run", "--json", "--modality", "mr")
    check_rows(map(json.loads, out.splitlines()))
    status = {row["input"]["format"]: row["status"] for row in map(json.loads, out.splitlines())}
    assert status == {"dicom": "planned", "nifti": "planned", "raster": "planned"}  # it is for the NIfTI alone
    code, out, _ = sasm("restore", photo.parent / "slice.dcm", "-o", tmp_path / "out", "--dry-run", "--modality", "mr")
    assert code == 3
    assert "the file says that it is CT, not MR: leave --modality MR out" in out
    assert not (tmp_path / "out").exists()


def test_a_folder_of_odd_dicom_never_ends_in_a_traceback(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    code, out, err = sasm("restore", shared("dicom_odd"), "-o", tmp_path / "out", "--json", "-q")
    rows = [json.loads(line) for line in out.splitlines()]
    check_rows(rows)
    assert code in (0, 8)
    assert {row["status"] for row in rows} >= {"ok", "skipped"}
    assert sum(row["status"] == "ok" for row in rows) >= 20
    assert "Traceback" not in err
    for row in rows:
        assert row["status"] == "ok" or len(row["reason"]) > 20
        assert "unforeseen" not in str(row["reason"])
        assert row["status"] != "ok" or Path(row["output"]["path"]).exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_messages_hold_no_patient_data(sasm: Any, tmp_path: Path, toy_restorer: Any) -> None:
    code, out, err = sasm("restore", ct_small(), "-o", tmp_path / "out", "--expert", "toy_ct", "-v")
    dataset = pydicom.dcmread(ct_small())
    assert code == 0
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate"):
        assert str(dataset[keyword].value) not in err + out.replace(str(tmp_path), "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_ctrl_c_leaves_nothing_half_written(photo: Path, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "from unittest.mock import Mock\n"
        "from monai_sasm.batch import local, work\n"
        "from monai_sasm.cli.main import main\n"
        "def slow(task, job, target, **keywords):\n"
        "    target.write_bytes(b'half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "work._written = slow\n"
        "local.open_restorer = lambda *arguments, **keywords: Mock(mismatch=lambda *arguments: None)\n"
        "main(['restore', sys.argv[2], '-o', sys.argv[1]])\n"
    )
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [sys.executable, script, out, photo],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job ignores it, and hands that on
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list(out.iterdir()) == []


def test_degrade_photos(sasm: Any, photo: Path, tmp_path: Path) -> None:
    command = ("degrade", photo, "--kind", "gaussian", "--sigma", "0.1", "--seed", "5")
    code, out, _ = sasm(*command, "-o", tmp_path / "a")
    assert (code, out) == (0, f"{tmp_path / 'a' / 'parameters.json'}\n")
    clean, noisy = (np.asarray(Image.open(tmp_path / "a" / part / "window.png")) for part in ("clean", "noisy"))
    np.testing.assert_array_equal(clean, np.asarray(Image.open(photo)))
    inside = (clean > 100) & (clean < 155)  # far from clipping
    assert (noisy.astype(int) - clean)[inside].std() == pytest.approx(25.5, rel=0.1)
    record = json.loads((tmp_path / "a" / "parameters.json").read_text())
    assert record["images"][0]["file"] == "window.png"
    assert record["images"][0]["drawn"]["sigma"]["mean"] == pytest.approx(0.1)
    sasm(*command, "-o", tmp_path / "b")
    assert (tmp_path / "b" / "noisy" / "window.png").read_bytes() == (
        tmp_path / "a" / "noisy" / "window.png"
    ).read_bytes()


def test_degrade_keeps_the_records_of_earlier_runs(sasm: Any, photo: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(photo, tmp_path / "other.png"))
    out = tmp_path / "out"
    for image, sigma, seed in ((photo, 0.1, 5), (other, 0.2, 7)):
        command = ("degrade", image, "--kind", "gaussian", "--sigma", sigma, "--seed", seed, "-o", out)
        assert sasm(*command)[0] == 0
    record = json.loads((out / "parameters.json").read_text())
    seeds = {image["file"]: {**record, **image}["seed"] for image in record["images"]}
    first, second = seed_of(5, "window.png", 1), seed_of(7, "other.png", 1)
    sigmas = {image["file"]: {**record, **image}["options"]["sigma"] for image in record["images"]}
    assert seeds == {"window.png": first, "other.png": second}
    assert sigmas == {"window.png": [0.1, 0.1], "other.png": [0.2, 0.2]}
    assert sasm(*command)[0] == 4, "they exist"
    assert json.loads((out / "parameters.json").read_text()) == record
    assert sasm("degrade", photo, "--kind", "gaussian", "--seed", "9", "-o", out, "--overwrite")[0] == 0
    record = json.loads((out / "parameters.json").read_text())
    third = seed_of(9, "window.png", 1)
    assert {image["file"]: image["seed"] for image in record["images"]} == {"window.png": third, "other.png": second}


def test_degrade_replaces_no_foreign_record(sasm: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "parameters.json").write_text('{"epochs": 3}')
    code, _, err = sasm("degrade", photo, "--kind", "gaussian", "-o", tmp_path / "out")
    assert code == 2
    assert "no record of sasm degrade" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parameters.json"]


def test_what_was_degraded_before_an_interruption_is_recorded(
    sasm: Any, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai_sasm.cli import degrade

    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(photo, folder / name)
    make = degrade._make_pair

    def interrupted(volume: Any, file: str, *arguments: Any, **more: Any) -> Any:
        if file == "b.png":
            raise KeyboardInterrupt
        return make(volume, file, *arguments, **more)

    monkeypatch.setattr(degrade, "_make_pair", interrupted)
    assert sasm("degrade", folder, "--kind", "gaussian", "-o", tmp_path / "out")[0] == 130
    record = json.loads((tmp_path / "out" / "parameters.json").read_text())
    assert [image["file"] for image in record["images"]] == ["a.png"]


def test_degrade_makes_what_training_reads(sasm: Any, tmp_path: Path) -> None:
    from monai_sasm.datasets.images import paired

    command = ("degrade", ct_small(), "--dose", "0.25", "-o", tmp_path / "ct")
    assert sasm(*command)[0] == 0
    pairs = paired([tmp_path / "ct"], "CT")
    assert len(pairs) == 1
    clean, noisy = pairs[0]
    assert clean.shape == noisy.shape == (1, 128, 128)
    assert 0.001 < float(np.std(noisy - clean)) < 0.2


def test_degrade_mr_in_kspace(sasm: Any, tmp_path: Path) -> None:
    import nibabel

    command = ("degrade", mr_volume(), "--modality", "MR", "--kind", "kspace", "-o", tmp_path)
    assert sasm(*command)[0] == 0
    clean, noisy = (nibabel.load(tmp_path / part / "anatomical.nii.gz") for part in ("clean", "noisy"))
    np.testing.assert_allclose(clean.affine, nibabel.load(mr_volume()).affine, atol=1e-5)
    np.testing.assert_allclose(clean.get_fdata(), nibabel.load(mr_volume()).get_fdata())
    assert np.abs(noisy.get_fdata() - clean.get_fdata()).mean() > 1


def test_degrade_refuses_the_wrong_modality(sasm: Any, photo: Path, tmp_path: Path) -> None:
    code, out, err = sasm("degrade", photo, "--kind", "low-dose-ct", "-o", tmp_path / "out")
    assert (code, out) == (3, "")
    assert "CT images only" in err


def test_evaluate_names_are_the_protocols(sasm: Any, tmp_path: Path) -> None:
    from monai_sasm.cli.evaluate import NAMES
    from monai_sasm.protocols.evaluate import PROTOCOLS

    assert NAMES.split(", ") == list(PROTOCOLS)
    code, _, err = sasm("evaluate", "phrenology", "-o", tmp_path)
    assert code == 2
    assert "photo-awgn" in err


@pytest.mark.parametrize("option", [("--root", "."), ("--resume",), ("--scheduler", "tcp://x:1"), ("--no-peers",)])
def test_evaluate_by_bundle_refuses_options_of_protocols(sasm: Any, tmp_path: Path, option: tuple[str, ...]) -> None:
    own = ("evaluate", "--bundle", "noise_photo_unet", "--data", tmp_path, "-o", tmp_path / "comparison")
    code, _, err = sasm(*own, *option)
    assert (code, "are for protocols" in err) == (2, True)


def test_evaluate_refuses_weights_that_nothing_compares(sasm: Any, tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(b"")
    command = ("--data", tmp_path / "none", "-o", tmp_path / "docs" / "results", "--weights")
    for wanted in (("photo-awgn",), ("photo-awgn", "ct-lowdose"), ("brats",), ("--bundle", "noise_photo_unet")):
        code, out, err = sasm("evaluate", *wanted, *command, f"0.1={file}")
        assert (code, out) == (2, "")
        assert "weights" in err
    code, _, err = sasm("evaluate", "ct-lesions", *command, f"0.1={file}", "--weights", f"0.1={file}")
    assert (code, "names 0.1 twice" in err) == (2, True)
    assert sasm("evaluate", "photo-awgn", "ct-lesions", *command, f"0.1={file}")[0] == 3, "one of them compares it"


@pytest.mark.parametrize("protocol", ["photo-awgn", "brats"])
def test_evaluate_without_data_is_skipped(sasm: Any, tmp_path: Path, protocol: str) -> None:
    code, out, _ = sasm("evaluate", protocol, "--data", tmp_path / "none", "-o", tmp_path / "docs" / "results")
    assert f"no folder {tmp_path / 'none'}; name the folder of the data sets with --data FOLDER or" in out
    assert code == 3
    assert "skipped" in out
    assert not (tmp_path / "docs").exists()


def test_bundles_list(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_expert" / "configs").mkdir(parents=True)
    (tmp_path / "broken_expert" / "configs" / "metadata.json").write_text("{}")
    code, out, err = sasm("bundles", "list", "--json", "--trust", tmp_path)
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert rows["noise_photo_unet"]["role"] == "expert"
    assert rows["noise_photo_unet"]["modality"] == "PHOTO"
    assert rows["upscale_photo_sd4x"]["weights"] in ("downloaded", "not downloaded")
    assert rows["broken_expert"]["role"] == "broken"
    assert "broken_expert" in err
    code, out, _ = sasm("bundles", "list")
    head, *lines = out.splitlines()
    assert "gate calls it" in head
    told = {line.split()[0]: line for line in lines}
    assert all(word in told["noise_photo_unet"] for word in ("+10.84 (photo, noise 25/255)", "Residual U-Net"))
    assert [told[name].count(" yes ") for name in ("noise_photo_unet", "noise_photo_ddpm")] == [2, 1]  # weights, gate
    assert rows["noise_photo_unet"]["gain"]["psnr_gain_db"] == 10.84


def test_bundles_list_says_which_gate_decides(sasm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "user"))
    write_trusting_gate(tmp_path / "user" / "z_gate", ["noise_photo_unet", "far_away"])
    _, out, err = sasm("bundles", "list", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    shipped = ["raindrop_photo_unet", "noise_photo_unet", "lowdose_ct_unet", "noise_mri_unet"]
    assert (rows["gate_mobilenet"]["default"], rows["gate_mobilenet"]["experts"]) == (True, shipped)
    assert rows["z_gate"]["default"] is False
    assert f"default gate: gate_mobilenet, calls {', '.join(shipped)}" in err

    code, out, err = sasm("bundles", "gate", "z_gate")
    assert (code, out) == (0, "z_gate\n")
    assert "default gate: z_gate, calls noise_photo_unet, far_away (not installed)" in err
    assert sasm("bundles", "gate")[1] == "z_gate\n"
    code, _, err = sasm("bundles", "gate", "noise_photo_unet")
    assert (code, "has role 'expert'" in err) == (2, True)
    shutil.rmtree(tmp_path / "user" / "z_gate")
    code, out, err = sasm("bundles", "list")
    assert (code, "no gate named 'z_gate'" in err) == (0, True)
    assert sasm("bundles", "gate", "gate_mobilenet")[:2] == (0, "gate_mobilenet\n")


def test_a_gate_is_named_on_the_command_line(sasm: Any, photo: Path, tmp_path: Path, monkeypatch) -> None:
    """``restore`` and ``batch`` take it, and rows tell it."""
    monkeypatch.setenv("SASM_BUNDLES", str(tmp_path / "none"))
    trust = tmp_path / "trust"
    write_gain_expert(trust / "black_photo", 0.0)
    write_trusting_gate(trust / "z_gate", ["black_photo"])
    chosen = ("--gate", "z_gate", "--trust", trust, "--device", "cpu", "--json")
    for output, command in (("a", ("restore", photo, "-o")), ("b", ("batch", photo.parent))):
        code, out, err = sasm(*command, tmp_path / output, *chosen)
        assert code == 0, err
        assert set(json.loads(out.splitlines()[0])["models"]) == {"z_gate", "black_photo"}
        result = next((tmp_path / output).rglob("*.png"))
        assert np.asarray(Image.open(result)).max() == 0
    code, _, err = sasm("restore", photo, "-o", tmp_path / "c", "--gate", "absent", "--device", "cpu")
    assert (code, "no gate named 'absent'; available: gate_mobilenet" in err) == (2, True)
    code, _, err = sasm("restore", photo, "-o", tmp_path / "c", "--gate", "z_gate", "--expert", "noise_photo_unet")
    assert (code, "a named expert acts without a gate" in err) == (2, True)


def test_a_bad_bundle_of_the_user_breaks_no_command(sasm: Any, photo: Path, tmp_path: Path, monkeypatch) -> None:
    user = tmp_path / "user"
    monkeypatch.setenv("SASM_BUNDLES", str(user))
    for number, content in enumerate((b"{", b"[]", b"\xff\xfe", b'{"sasm": {"role": "expert", "modality": "PET"}}')):
        (user / f"bad_{number}" / "configs").mkdir(parents=True)
        (user / f"bad_{number}" / "configs" / "metadata.json").write_bytes(content)
    for command in (("restore", photo, "-o", tmp_path / "a"), ("batch", photo.parent, tmp_path / "b")):
        code, _, err = sasm(*command, "--device", "cpu")
        assert code == 0, err
        assert "bundle left out" in err
        assert all(f"bad_{number}" in err for number in range(4))
        assert "Traceback" not in err
    code, out, err = sasm("bundles", "list", "--json")
    assert (code, sum(json.loads(line)["role"] == "broken" for line in out.splitlines())) == (0, 4)
    code, out, _ = sasm("bundles", "check", "noise_photo_unet", "bad_1")
    assert (code, "noise_photo_unet  ok" in out, "bad_1             failed" in out) == (8, True, True)
    code, _, err = sasm("restore", photo, "-o", tmp_path / "c", "--expert", "bad_3", "--device", "cpu")
    assert (code, "sasm.modality must be one of" in err) == (2, True)


def test_bundles_check_names_what_is_wrong(sasm: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_expert" / "configs").mkdir(parents=True)
    (tmp_path / "broken_expert" / "configs" / "metadata.json").write_text('{"sasm": {"role": "wizard"}}')
    code, out, err = sasm("bundles", "check", "broken_expert", "--trust", tmp_path)
    assert code == 4
    assert "role" in out
    assert "Traceback" not in err
    assert sasm("bundles", "check", "no_such_bundle")[0] == 2
    mine = write_gain_expert(tmp_path / "mine", 0.9, "MR", "low-resolution")
    assert sasm("bundles", "check", "mine", "--trust", mine)[0] == 0
    described = mine / "configs" / "metadata.json"
    metadata = json.loads(described.read_text())
    described.write_text(json.dumps(metadata | {"sasm": metadata["sasm"] | {"thinning": "across"}}))
    code, out, _ = sasm("bundles", "check", "mine", "--trust", mine)
    assert (code, "the bundle has no variant 'across'" in out) == (4, True)


def test_weights_that_are_elsewhere_are_skipped_with_the_way_to_get_them(
    sasm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from monai_sasm.refine.upscale import NotDownloadedError, SdUpscaler

    def absent(self: SdUpscaler) -> None:
        raise NotDownloadedError(f"not on this machine, download={self.download}")

    monkeypatch.setattr(SdUpscaler, "_load", absent)
    code, out, _ = sasm("bundles", "check", "upscale_photo_sd4x", "--json")
    row = json.loads(out)
    assert (code, row["status"], row["reason"]) == (3, "skipped", "not on this machine, download=False")
    code, out, err = sasm("bundles", "download", "upscale_photo_sd4x")
    assert (code, out, "download=True" in err) == (2, "", True)
    monkeypatch.setattr(SdUpscaler, "_load", lambda self: object())
    assert sasm("bundles", "download", "upscale_photo_sd4x")[:2] == (0, "stabilityai/stable-diffusion-x4-upscaler\n")
    code, _, err = sasm("bundles", "download", "noise_photo_unet")
    assert (code, "needs no download" in err) == (2, True)
