"""Where tests find images: those that come with the dependencies, and the project's data folder where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SASM_DATA") or CHECKOUT.parent / "shared" / "data")


def shared(relative: str) -> Path:
    """A file or folder of the data folder; skips the test with the reason where it is absent."""
    path = DATA / relative
    if not path.exists():
        pytest.skip(f"{relative} is not in the data folder (set SASM_DATA)")
    return path


def ct_small() -> Path:
    """One real CT slice, 128 x 128, that comes with pydicom."""
    from pydicom.data import get_testdata_file

    return Path(str(get_testdata_file("CT_small.dcm", download=False)))


def mr_volume() -> Path:
    """A real MR volume, 33 x 41 x 25, that comes with nibabel."""
    import nibabel

    return Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
