"""Texts of headers, sidecars and servers that are made long: looking through them takes no longer than they are."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from monai_sasm.cli.demo import MARK, run
from monai_sasm.cli.pairs import earlier_images
from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.scoring import ResultCache
from monai_sasm.io import meaning
from monai_sasm.io.dicom.header import Header, read_header
from monai_sasm.io.formats import inventory
from monai_sasm.io.meaning import LONGEST_TEXT
from monai_sasm.io.volumes import nrrd
from monai_sasm.node.dicomweb import find_series
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, file_meta_of, uid
from tests.node.test_dicomweb import series_row

SOON = 4.0  # seconds, of a busy machine; in squares of their length they took from ten seconds to minutes
MANY = 16_000


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    begin = time.process_time()
    yield
    assert time.process_time() - begin < SOON


def header_with(path: Path, **texts: object) -> Header:
    """The header of a file in implicit VR, in which any text may be of any length."""
    dataset = ct_slice(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, text in texts.items():
            setattr(dataset, keyword, text)
        dataset.file_meta = file_meta_of(dataset)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, enforce_file_format=True, implicit_vr=True, little_endian=True)
    header = read_header(path)
    assert header is not None
    assert header.broken is None
    return header


def test_a_description_that_names_the_program_without_end(tmp_path: Path) -> None:
    header = header_with(tmp_path / "a.dcm", DerivationDescription="by monai_sasm " * MANY * 4)
    assert (header.derived_here, header.by_network) == (True, True)


@pytest.mark.parametrize(
    ("description", "by_network"),
    [
        ("", True),
        ("Thinned by another 1.0; models: no model", True),
        ("Thinned by monai_sasm 0.3.0; models: no model; strength=1", False),
        ("Thinned by monai_sasm 0.3.0; models: no model; Noise reduction by monai_sasm 0.3.0; models: a (0), b", True),
        ("smooth; Thinned by monai_sasm 0.3.0;  models: no model", True),
    ],
)
def test_who_has_derived_it_is_read_from_the_description(tmp_path: Path, description: str, by_network: bool) -> None:
    assert header_with(tmp_path / "a.dcm", DerivationDescription=description).by_network is by_network


def test_texts_are_cut_and_identities_are_not(tmp_path: Path) -> None:
    """Two patients whose numbers differ at the end are two, however long the numbers are."""
    long = "1" * (2 * LONGEST_TEXT)
    first, second = (
        header_with(tmp_path / f"{end}.dcm", PatientID=long + end, SeriesDescription=long, ImageType=["MIP"] * MANY)
        for end in "ab"
    )
    assert len(first.description) == len(second.description) == LONGEST_TEXT
    assert len("\\".join(first.image_type)) == LONGEST_TEXT
    assert (first.patient[0], second.patient[0]) == (long + "a", long + "b")


@pytest.mark.parametrize("word", ["MIP", "IODINE", "INTENSITY PROJECTION", "PHASE", "WASH IN", "CBF", "MAP", "_", "P"])
@pytest.mark.parametrize("modality", [Modality.CT, Modality.MR])
def test_words_of_an_image_type_without_end(word: str, modality: Modality) -> None:
    for end in ("", "\nX", "!"):
        values = ["DERIVED", "PRIMARY", f"{word} " * MANY + end]
        meaning.by_image_type(values, modality)
        meaning.projection_note(values, technique=values[2], text=values[2])
        meaning.by_text(values[2], derived=True)
        meaning.by_unit(values[2])
    meaning.by_image_type(["DERIVED", "PRIMARY", *[word] * (MANY * 60)], modality)


@pytest.mark.parametrize("text", ["1", "1 ", "1% ", "portal ", "mip ", "_.", "contrast phase ", "ave ", "t2*"])
def test_descriptions_without_end(text: str) -> None:
    assert meaning.by_text(text * MANY * 10, derived=True) is None
    assert meaning.by_text("phase map " + text * MANY * 10, derived=False) == "phase"


@pytest.mark.parametrize(
    "field", ["(" * MANY * 3, "(1," * MANY * 3, "none " * MANY, "(1,0,0) (0,1,0) (0,0,1)" + " " * 2000]
)
def test_directions_without_end(tmp_path: Path, field: str) -> None:
    head = f"NRRD0004\ntype: float\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nspace directions: {field}(\n\n"
    path = tmp_path / "evil.nrrd"
    path.write_bytes(head.encode() + bytes(256))
    with pytest.raises(RefusedError, match="space directions of the NRRD"):
        nrrd.parse(path)


def test_directions_within_brackets_of_others(tmp_path: Path) -> None:
    head = "NRRD0004\ntype: float\ndimension: 2\nsizes: 4 4\nencoding: raw\nspace directions: (1,0,0) (0,(1,0)\n\n"
    (tmp_path / "odd.nrrd").write_bytes(head.encode() + bytes(64))
    with pytest.raises(RefusedError, match="NRRD header is damaged"):
        nrrd.parse(tmp_path / "odd.nrrd")


def test_a_server_that_answers_with_a_long_name() -> None:
    row: Any = series_row(uid("plain"), 3)
    row["00100020"] = {"vr": "LO", "Value": ["1" * 5000]}
    web: Any = SimpleNamespace(get_json=lambda path, query: [row])
    with pytest.raises(ValueError, match="not asked for"):
        find_series(web, {"PatientID": "*1*1*1*1*1*2"})


@pytest.mark.parametrize(
    ("value", "asked", "same"),
    [
        ("[1]x", "[1]*", True),
        ("1x", "[1]*", False),
        ("a1b", "a?b", True),
        ("a\nb", "a?b", True),
        ("ab", "a?b", False),
        ("ab", "*a*b*", True),
        ("AB", "ab", False),
        ("a\\b", "a\\b", True),
        ("!b", "[!a]b", False),
    ],
)
def test_wild_cards(value: str, asked: str, same: bool) -> None:
    row: Any = series_row(uid("plain"), 3)
    row["00100020"] = {"vr": "LO", "Value": [value]}
    answers = iter([[row], []])
    web: Any = SimpleNamespace(get_json=lambda path, query: next(answers))
    if same:
        assert len(find_series(web, {"PatientID": asked})) == 1
    else:
        with pytest.raises(ValueError, match="not asked for"):
            find_series(web, {"PatientID": asked})


OWN = {"GeneratedBy": [{"Name": "monai_sasm"}], "Models": {"a": "0"}}
DEEP = json.loads("[" * 400 + "]" * 400)


@pytest.mark.parametrize(
    ("told", "is_own"),
    [
        ({"Sources": 5}, True),
        ({"Sources": True}, True),
        ({"Sources": "of ct.nii, ct.nrrd"}, True),  # a text that holds the name
        ({"Sources": {"ct.nii": 1}}, True),
        ({"Sources": [5, None, ["ct.nii"]]}, True),
        ({"Sources": ["ct.nii"]}, False),
        ({"GeneratedBy": 5}, False),
        ({"GeneratedBy": [5, {"Name": ["monai_sasm"]}]}, False),
        ({"ImageType": [DEEP, 1, None], "SeriesDescription": DEEP, "Units": DEEP, "ImageComments": 5}, True),
        ({"ImageType": ["P"] * 500_000, "Units": {"a": 1}, "ComplexImageComponent": ["PHASE"]}, True),
    ],
)
def test_sidecars_of_any_types(tmp_path: Path, told: dict[str, Any], is_own: bool) -> None:
    image = nibabel.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4))
    nibabel.save(image, tmp_path / "ct.nii")
    (tmp_path / "ct.nrrd").write_bytes(b"another one")
    (tmp_path / "ct.json").write_text(json.dumps(OWN | told))
    (entry,) = inventory(tmp_path / "ct.nii", Modality.CT)
    assert entry.is_result is is_own


def test_records_nested_without_end_are_no_records(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text("[" * 100_000)
    with pytest.raises(FileExistsError, match="no record of sasm degrade"):
        earlier_images(record, overwrite=False)
    with pytest.raises(ValueError, match="no results of peers"):
        ResultCache(record)
    (tmp_path / MARK).write_text("[" * 100_000)
    with pytest.raises(FileExistsError, match="no demonstration made"):
        run(tmp_path, None)  # type: ignore[arg-type]
