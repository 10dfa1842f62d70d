"""Header values reach no log and no warning, however damaged the header and whichever part of the package reads it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from monai_sasm.io.formats import inventory, save
from monai_sasm.io.silence import quiet
from tests.io.dicom.dicom_cases import STEP, ct_slice, enhanced_ct
from tests.io.dicom.dicom_cases import save as save_dicom

NAME = "Doe John"


def spoil(dataset: Dataset) -> Dataset:
    """With values that pydicom warns of, each with the patient's name."""
    for tag, representation in ((0x00080005, "CS"), (0x00100030, "DA"), (0x0020000E, "UI"), (0x00080060, "CS")):
        value = "CT" if tag == 0x00080060 else f"{NAME} 1950"
        dataset[Tag(tag)] = DataElement(tag, representation, value, validation_mode=0)
    return dataset


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """All that is logged at INFO or above, and all warnings."""
    log, told = logging.getLogger("pydicom"), list[str]()
    before = log.level
    log.setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
        told += [*caplog.messages, *(str(one.message) for one in caught)]
    log.setLevel(before)
    assert not [text for text in told if NAME in text or "1950" in text]


@pytest.mark.parametrize("frames", [1, 2])
def test_reading_and_writing_a_series(frames: int, tmp_path: Path, heard: list[str]) -> None:
    made = [ct_slice(number) for number in range(4)] if frames == 1 else [enhanced_ct([0.0, STEP])]
    with quiet():
        for number, dataset in enumerate(made):
            for group in dataset.get("SharedFunctionalGroupsSequence", ()):
                spoil(group)
            save_dicom(spoil(dataset), tmp_path / "in" / f"{number}.dcm")
    (entry,) = inventory(tmp_path / "in")
    assert entry.refusal is None
    assert len(save(entry.load(), tmp_path / "out")) == len(made)
