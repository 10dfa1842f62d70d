"""What an error came from is found below those that wrap it, and ``python -m monai.bundle`` ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_sasm.errors import RefusedError, buried_reason
from tests.bundle_cases import ROOT


def raised(*errors: Exception) -> Exception:
    """The last of errors, each raised from the one before."""
    try:
        cause = None
        for error in errors:
            error.__cause__ = cause
            cause = error
        raise errors[-1]
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ((RefusedError("no slice; send it"), RuntimeError("Failed"), RuntimeError("Failed")), "no slice; send it"),
        ((KeyError("Müller"), RefusedError("no slice"), RuntimeError("Failed")), "no slice"),
        ((FileNotFoundError("x is not there; check it"), RuntimeError("Failed")), "x is not there; check it"),
        ((ModuleNotFoundError("No module named 'lpips'"), RuntimeError("Failed")), "this needs lpips, which is not "),
        ((RuntimeError("deep"), RefusedError("it ends with this by itself")), None),
        ((KeyError("Müller"), RuntimeError("Failed")), None),
    ],
)  # fmt: skip
def test_the_reason_is_dug_out(errors: tuple[Exception, ...], reason: str | None) -> None:
    found = buried_reason(raised(*errors))
    assert found == reason if reason is None else str(found).startswith(reason)


def test_a_context_that_is_suppressed_is_none() -> None:
    wrapped = RuntimeError("Failed")
    wrapped.__context__ = RefusedError("no slice")
    assert buried_reason(wrapped) == "no slice"
    wrapped.__suppress_context__ = True
    assert buried_reason(wrapped) is None


def test_programs_that_import_this_keep_their_hook() -> None:
    code = "import sys; before = sys.excepthook; import monai_sasm.errors; assert sys.excepthook is before"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_a_bundle_run_ends_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing to see")
    config = ROOT / "bundles" / "lowdose_ct_unet" / "configs" / "inference.yaml"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), "--dataset_dir"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "in")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    *trace, last = done.stderr.rstrip().splitlines()
    assert last.startswith(f"monai_sasm: no CT image to restore in {tmp_path / 'in'}")
    assert "Traceback (most recent call last):" in trace
