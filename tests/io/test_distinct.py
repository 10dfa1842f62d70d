"""Results of one folder have names of their own, which follow from their sources, and so have the files beside them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from monai_sasm.io.distinct import distinct
from monai_sasm.io.entry import Entry, refused


def source(name: str) -> Entry:
    """What is found at a place; names without a suffix are DICOM series."""
    return refused(Path(name), "", "raster" if Path(name).suffix.strip(".0123456789") else "dicom")


def told(sources: list[str], targets: list[str] | None = None, maps: bool = False) -> list[str]:
    """Names of the results, below ``out``."""
    named = distinct([Path("out", name) for name in targets or sources], [source(name) for name in sources], maps=maps)
    return [str(path.relative_to("out")) for path in named]


@pytest.mark.parametrize(
    ("names", "maps", "told_apart"),
    [
        (["ct.nrrd", "ct.mha"], False, ["ct.nrrd", "ct-mha.mha"]),  # one sidecar
        (["ct.nrrd", "ct.mha", "ct.nii.gz"], False, ["ct.nrrd", "ct-mha.mha", "ct-niigz.nii.gz"]),
        (["a.hdr", "a.mhd"], False, ["a.hdr", "a-mhd.mhd"]),
        (["x.png", "x.png"], False, ["x.png", "x-2.png"]),  # of two inputs
        (["x.png", "x.jpg"], False, ["x.png", "x.jpg"]),
        (["x.png", "x.jpg"], True, ["x.png", "x-jpg.jpg"]),  # x_change.png twice
        (["ct.nrrd", "ct.mha", "ct-mha.nrrd"], False, ["ct.nrrd", "ct-mha-2.mha", "ct-mha.nrrd"]),
        (["CT-series001-0", "CT-series001-0.nii.gz"], False, ["CT-series001-0", "CT-series001-0.nii.gz"]),
        (["v1.2", "v1.2"], False, ["v1.2", "v1.2-2"]),  # a folder has no suffix
        (["a/ct.nrrd", "b/ct.mha"], False, ["a/ct.nrrd", "b/ct.mha"]),
    ],
)
def test_only_what_collides_gets_another_name(names: list[str], maps: bool, told_apart: list[str]) -> None:
    assert told(names, maps=maps) == told_apart


@pytest.mark.parametrize(
    ("sources", "targets", "told_apart"),
    [
        (["pic.jp2", "pic.webp"], ["pic.png"] * 2, ["pic.jp2.png", "pic.webp.png"]),
        (["pic.gif", "pic.jp2", "pic.webp"], ["pic.png"] * 3, ["pic.gif.png", "pic.jp2.png", "pic.webp.png"]),
        (["pic.gif", "pic.png"], ["pic.png"] * 2, ["pic.gif.png", "pic.png"]),  # the source of this name has it
        (["pic.gif", "pic.gif.png", "pic.png"], ["pic.png", "pic.gif.png", "pic.png"],
         ["pic.gif-2.png", "pic.gif.png", "pic.png"]),
        (["a/pic.gif", "b/pic.gif"], ["pic.png"] * 2, ["pic.gif.png", "pic.gif-2.png"]),
        (["pic.gif", "other.jp2"], ["pic.png", "other.png"], ["pic.png", "other.png"]),
        (["pic", "pic.GIF"], ["pic.png"] * 2, ["pic.png", "pic.GIF.png"]),
    ],
)  # fmt: skip
def test_results_of_another_kind_are_named_after_their_sources(
    sources: list[str], targets: list[str], told_apart: list[str]
) -> None:
    assert told(sources, targets) == told_apart


def test_the_name_of_a_source_does_not_depend_on_the_others() -> None:
    ends = ["gif", "jp2", "png", "webp", "avif"]
    for count in (2, 3, 4, 5):
        for chosen in permutations(ends, count):
            sources = [f"pic.{end}" for end in chosen]
            named = dict(zip(chosen, told(sources, ["pic.png"] * count), strict=True))
            assert named == {end: "pic.png" if end == "png" else f"pic.{end}.png" for end in chosen}


def test_one_name_many_times_needs_each_number_once() -> None:
    named = told(["x.png"] * 2_000)
    assert len(set(named)) == 2_000
    assert named[-1] == "x-2000.png"
