"""With nothing but the core installed: what restores works, and what needs an extra names it in one line.

All commands run in one fresh interpreter that cannot import the libraries of the extras, whatever is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_sasm.bundles import shipped_folder
from monai_sasm.errors import EXTRAS
from tests.command import sasm
from tests.data import ct_small

FURTHER = {"onnx", "onnxruntime", "onnxscript", "huggingface_hub", "bm3d", "pandas", "sklearn", "itk"}
RUN = """
import contextlib, importlib.abc, importlib.util, io, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in set({absent!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in set({absent!r}) else find_spec(name, package)
from monai_sasm.cli.main import main
found = {{}}
for name, words in json.loads(sys.stdin.read()).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            code = repr(error)
    found[name] = [code, out.getvalue(), err.getvalue()]
sys.__stdout__.write(json.dumps(found))
"""
NEEDS = {  # command -> extra it must name
    "view": "view",
    "node": "node",
    "pull": "node",
    "push": "node",
    "cluster": "cluster",
    "compare": "evaluate",
    "qualify": "evaluate",
    "add": "train",
    "enlarge": "diffusion",
    "export": "export",
    "download": "diffusion",
    "upscale": "diffusion",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Command -> exit code, stdout, stderr."""
    root = tmp_path_factory.mktemp("core")
    scans, photos = root / "scans", root / "photos"
    scans.mkdir()
    photos.mkdir()
    shutil.copy(ct_small(), scans / "slice.dcm")
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(noise).save(photos / "a.png")
    for name in ("clean", "noisy"):
        (root / "pairs" / name).mkdir(parents=True)
        shutil.copy(photos / "a.png", root / "pairs" / name / "a.png")
    study = root / "bids" / "sub-1" / "anat"
    study.mkdir(parents=True)
    array = np.random.default_rng(0).normal(300, 20, (24, 24, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), study / "sub-1_T1w.nii.gz")
    (root / "bids" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    commands = {
        "restore": ["restore", scans, photos, "-o", root / "restored", "--save-maps"],
        "batch": ["batch", scans, root / "batch"],
        "bids": ["bids", root / "bids", root / "derived", "participant", "--modality", "MR"],
        "list": ["bundles", "list"],
        "gaussian": ["degrade", photos, "-o", root / "g", "--kind", "gaussian", "--sigma", "0.1"],
        "raindrop": ["degrade", photos, "-o", root / "r", "--kind", "raindrop"],
        "low-dose-ct": ["degrade", scans, "-o", root / "l", "--kind", "low-dose-ct"],
        "refine": ["restore", photos, "-o", root / "refined", "--refine", "0.5"],
        "enlarge": ["enlarge", photos, "-o", root / "large", "--factor", "2", "--steps", "1"],
        "view": ["view", scans, "--no-open"],
        "node": ["node", "--spool", root / "spool", "--allow", "A@127.0.0.1", "--to", "a=A@127.0.0.1:4242"],
        "pull": ["pull", "https://pacs.invalid/dicom-web", "--study", "1.2.3", "-o", root / "pulled"],
        "push": ["push", "A@127.0.0.1:4242", scans],
        "cluster": ["batch", scans, root / "cluster", "--scheduler", "tcp://127.0.0.1:1"],
        "compare": ["evaluate", "--bundle", "noise_photo_unet", "--data", root / "pairs", "-o", root / "comparison"],
        "qualify": ["qualify", scans, "-o", root / "page.html"],
        "add": [
            "bundles",
            "add",
            shipped_folder() / "noise_photo_unet",
            "--examples",
            root / "pairs",
            "-o",
            root / "mine",
        ],
        "export": ["bundles", "export", "noise_photo_unet", "-o", root / "net.onnx"],
        "download": ["bundles", "download", "upscale_photo_sd4x"],
        "upscale": ["restore", photos, "-o", root / "up", "--refine", "1", "--refiner", "upscale_photo_sd4x"],
    }
    words = json.dumps({name: [str(word) for word in command] for name, command in commands.items()})
    absent = sorted({*EXTRAS, *FURTHER})
    script = RUN.format(absent=absent)
    done = subprocess.run([sys.executable, "-c", script], input=words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["restore", "batch", "bids", "list", "gaussian", "raindrop", "low-dose-ct", "refine"])
def test_the_core_restores(outcomes: dict[str, list[Any]], name: str) -> None:
    code, out, err = outcomes[name]
    assert code == 0, err or out


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_extra_is_named_in_one_line(outcomes: dict[str, list[Any]], name: str) -> None:
    code, out, err = outcomes[name]
    assert code in (2, 3, 4), (code, out, err)
    told = [line for line in err.splitlines() if "pip install" in line]
    assert told, err
    assert all(f"pip install 'monai-sasm[{NEEDS[name]}]'" in line for line in told), told
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["evaluate", "qualify"])
def test_what_is_drawn_with_is_looked_for_before_anything_is_measured(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("monai_sasm.protocols.evaluate.compare", lambda *a, **k: pytest.fail("it measures"))
    monkeypatch.setattr("monai_sasm.io.formats.inventory", lambda *a, **k: pytest.fail("it reads"))
    words = {
        "evaluate": ["--bundle", "noise_photo_unet", "--data", tmp_path, "-o", tmp_path / "comparison"],
        "qualify": [tmp_path, "-o", tmp_path / "page.html"],
    }[command]
    assert sasm(command, *words) == 2
    assert f"sasm: sasm {command} needs 'matplotlib', which is not installed: pip install" in capsys.readouterr().err


def test_an_export_names_its_extra_and_no_fault_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert sasm("bundles", "export", "noise_estimator", "-o", tmp_path / "net.onnx") == 2
    told = "the export to ONNX needs 'onnxscript', which is not installed: pip install 'monai-sasm[export]'"
    assert capsys.readouterr().err.splitlines() == [f"sasm: {told}"]
