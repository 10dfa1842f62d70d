"""``sasm inpaint`` and ``sasm enlarge`` say what they did not take, and what is not as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data import ct_small


@pytest.mark.parametrize("command", [("enlarge",), ("inpaint", "--mask", "{in}")])
def test_only_where_there_are_no_photos_it_is_said(sasm: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "in").mkdir()
    arguments = [part.format(**{"in": tmp_path / "in"}) for part in command]
    shutil.copy(ct_small(), tmp_path / "in")
    code, _, err = sasm(*arguments, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "no photos in the input" in err) == (3, True)
    Image.new("I", (8, 8)).save(tmp_path / "in" / "deep.tif")
    code, _, err = sasm(*arguments, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "deep.tif: skipped: " in err, "no photos" in err) == (3, True, False)
    (tmp_path / "in" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "in" / "deep.tif").unlink()
    code, _, err = sasm(*arguments, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, "cut.png: failed: " in err, "no photos" in err) == (4, True, False)
