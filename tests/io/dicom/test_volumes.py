"""Slices of one series that are several volumes: none is woven of two, and no image is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from monai_sasm.io.dicom.header import read_header
from monai_sasm.io.entry import Entry
from tests.io.dicom.dicom_cases import STEP, ct_slice, index, save_all, uid

SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
PHASES = {"arterial": ("1", "101000"), "delayed": ("2", "101500")}


def parts(entries: list[Entry]) -> list[tuple[str, list[float]]]:
    """Geometry and ascending third coordinate of each volume, where nothing was refused."""
    assert [entry.refusal for entry in entries] == [None] * len(entries)
    assert len({entry.name for entry in entries}) == len(entries)
    found = []
    for entry in entries:
        positions = entry.load().source.positions
        found.append((entry.geometry, [round(position[2] / STEP, 3) for position in positions]))
    return sorted(found, key=lambda part: (-len(part[1]), part[1]))


def phase(name: str, numbers: range, **changes: object) -> list[Dataset]:
    acquisition, time = PHASES[name]
    told = {"AcquisitionNumber": acquisition, "AcquisitionTime": time, "ContentTime": time, **changes}
    return [ct_slice(number, SOPInstanceUID=uid(name, number), **told) for number in numbers]


def station(number: int, heights: range, **changes: object) -> list[Dataset]:
    """Sagittal slices, 200 mm below those of the station before."""
    return [
        ct_slice(
            height,
            position=(3.0 * height, -100.0, 100.0 - 200 * number),
            ImageOrientationPatient=SAGITTAL,
            SOPInstanceUID=uid("station", number, height),
            **changes,
        )
        for height in heights
    ]


@pytest.mark.parametrize("second", [range(4, 10), range(6, 12), range(0, 6), range(0, 2)])
def test_stations_beside_each_other_are_two_volumes(second: range, tmp_path: Path) -> None:
    entries = index(save_all(station(0, range(6)) + station(1, second), tmp_path))
    assert {entry.geometry for entry in entries} == {"regular"}
    assert sorted(len(entry.paths) for entry in entries) == sorted([6, len(second)])
    assert not any("shear" in note for entry in entries for note in entry.notes)
    assert all("told apart by their places in the plane" in entry.notes[0] for entry in entries)
    for entry in entries:
        assert len({position[2] for position in entry.load().source.positions}) == 1


def test_single_slices_beside_each_other_are_two_images(tmp_path: Path) -> None:
    entries = index(save_all(station(0, range(1)) + station(1, range(1)), tmp_path))
    assert [(entry.geometry, len(entry.paths)) for entry in entries] == [("single", 1)] * 2


def test_the_same_stations_have_the_same_names_in_any_order(tmp_path: Path) -> None:
    one, other = station(0, range(6)), station(1, range(4, 10))
    names = {entry.name for entry in index(save_all(one + other, tmp_path / "a"))}
    assert {entry.name for entry in index(save_all(other[::-1] + one, tmp_path / "b"))} == names


def test_tilted_stacks_that_cross_in_their_heights_lose_no_slice(tmp_path: Path) -> None:
    slices = [
        ct_slice(number, position=(80.0 * half, 1.2 * number, STEP * number), SOPInstanceUID=uid("tilt", half, number))
        for half in range(2)
        for number in range(5)
    ]
    for dataset in slices[5:]:
        dataset.ImagePositionPatient[1] *= -1
    entries = index(save_all(slices, tmp_path))
    assert sum(len(entry.paths) for entry in entries) == 10
    assert not any("shear" in note for entry in entries for note in entry.notes)


def test_a_shift_in_the_plane_is_no_tilt(tmp_path: Path) -> None:
    slices = [ct_slice(number, position=(0, [0, 3, -2, 5][number], STEP * number)) for number in range(4)]
    (entry,) = index(save_all(slices, tmp_path))
    assert (entry.geometry, len(entry.paths)) == ("irregular", 4)
    assert "slices are shifted against each other in their plane" in entry.notes


@pytest.mark.parametrize("delayed", [range(3, 7), range(8, 12), range(9), range(5, 6)])
def test_phases_that_overlap_in_part_are_volumes_of_their_own(delayed: range, tmp_path: Path) -> None:
    entries = index(save_all(phase("arterial", range(10)) + phase("delayed", delayed), tmp_path))
    assert [len(numbers) for _, numbers in parts(entries)] == sorted([10, len(delayed)], reverse=True)
    assert {kind for kind, _ in parts(entries)} <= {"regular", "single"}
    assert all("told apart by AcquisitionNumber" in entry.notes[0] for entry in entries)
    for entry in entries:
        headers = [read_header(path) for path in entry.paths]
        assert len({header.variants["AcquisitionTime"] for header in headers if header}) == 1


def test_repeats_whose_times_differ_are_all_kept(tmp_path: Path) -> None:
    """Each slice has a time of its own, so times tell no volumes apart; but two images of two times are no copies."""
    slices = [ct_slice(number, AcquisitionTime=f"1010{number:02d}") for number in range(6)]
    again = [ct_slice(2, AcquisitionTime="102000", SOPInstanceUID=uid("again"))]
    (entry,) = index(save_all(slices + again, tmp_path))
    assert (entry.geometry, len(entry.paths), entry.refusal) == ("irregular", 7, None)
    told = "1 of 6 slice positions occur more than once and no attributes tell volumes apart"
    assert entry.notes[0] == f"{told}; slices are processed one by one", "CT has one white for all"
    assert [position[2] / STEP for position in entry.load().source.positions] == [0, 1, 2, 2, 3, 4, 5]


def test_nearly_parallel_slices_are_two_volumes(tmp_path: Path) -> None:
    """A quarter of a degree apart: the names of the two do not depend on the order of the files."""
    angle = np.deg2rad(0.25)
    turned = [1.0, 0.0, 0.0, 0.0, round(float(np.cos(angle)), 8), round(float(np.sin(angle)), 8)]
    slices = [
        ct_slice(number, ImageOrientationPatient=turned) if number > 2 else ct_slice(number) for number in range(6)
    ]
    entries = index(save_all(slices, tmp_path / "a"))
    assert [(kind, numbers) for kind, numbers in parts(entries)] == [("regular", [0, 1, 2]), ("tilted", [3, 4, 5])]
    again = index(save_all(slices[::-1], tmp_path / "b"))
    assert {entry.name for entry in again} == {entry.name for entry in entries}


def frames(*frames: str | None) -> list[Dataset]:
    return [ct_slice(number, FrameOfReferenceUID=frame and uid(frame)) for number, frame in enumerate(frames)]


@pytest.mark.parametrize(
    ("told", "lengths"),
    [
        ("aaabbb", [3, 3]),
        ("ababab", [3, 3]),
        ("ab", [1, 1]),
        ("aaa-a", [5]),  # one file has lost it
        ("abcdef", [6]),  # an anonymiser gave each file one of its own
        ("------", [6]),
    ],
)
def test_frames_of_reference_are_kept_apart(told: str, lengths: list[int], tmp_path: Path) -> None:
    entries = index(save_all(frames(*(None if one == "-" else one for one in told)), tmp_path))
    assert [len(numbers) for _, numbers in parts(entries)] == lengths
    for entry in entries:
        assert ("Frame of Reference UID" in " ".join(entry.notes)) is (len(lengths) > 1)
