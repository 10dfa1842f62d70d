"""Results of one folder have names of their own, and so have the files beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_sasm.io.distinct import distinct


@pytest.mark.parametrize(
    ("names", "maps", "told_apart"),
    [
        (["ct.nrrd", "ct.mha"], False, ["ct.nrrd", "ct-2.mha"]),  # one sidecar
        (["ct.nrrd", "ct.mha", "ct.nii.gz"], False, ["ct.nrrd", "ct-2.mha", "ct-3.nii.gz"]),
        (["a.hdr", "a.mhd"], False, ["a.hdr", "a-2.mhd"]),
        (["x.png", "x.png"], False, ["x.png", "x-2.png"]),  # of two inputs, or of HEIC and PNG
        (["x.png", "x.jpg"], False, ["x.png", "x.jpg"]),
        (["x.png", "x.jpg"], True, ["x.png", "x-2.jpg"]),  # x_change.png twice
        (["ct.nrrd", "ct.mha", "ct-2.nrrd"], False, ["ct.nrrd", "ct-3.mha", "ct-2.nrrd"]),
        (["CT-series001-0", "CT-series001-0.nii.gz"], False, ["CT-series001-0", "CT-series001-0.nii.gz"]),
        (["v1.2", "v1.2"], False, ["v1.2", "v1.2-2"]),  # a folder has no suffix
        (["a/ct.nrrd", "b/ct.mha"], False, ["a/ct.nrrd", "b/ct.mha"]),
    ],
)
def test_only_what_collides_gets_a_number(names: list[str], maps: bool, told_apart: list[str]) -> None:
    targets = [Path("out", name) for name in names]
    assert distinct(targets, maps=maps) == [Path("out", name) for name in told_apart]


def test_one_name_many_times_needs_each_number_once() -> None:
    named = distinct([Path("x.png")] * 2_000)
    assert len(set(named)) == 2_000
    assert named[-1] == Path("x-2000.png")
