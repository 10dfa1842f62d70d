"""Text in another character set than the header says: written as it came, and no two patients made one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.header import read_header
from monai_sasm.io.dicom.write import write_series
from tests.io.dicom.dicom_cases import ct_slice, enhanced_ct, index, save, save_all

DERIVATION = Derivation("monai_sasm", "0")
MULLER, MOLLER = b"M\xdcLL-123", b"M\xd6LL-123"


def mislabelled(dataset: Dataset, path: Path, *, said: str = "ISO_IR 192", really: str = "latin-1") -> Path:
    """A file whose text is in another character set than it says: each ``?`` of its ASCII text becomes two umlauts."""
    dataset.SpecificCharacterSet = said
    dataset.PatientName, dataset.PatientID, dataset.InstitutionName = "M??LLER^JANE", "M??LL-1", "KLINIK S??D"
    request = Dataset()
    request.RequestedProcedureDescription = "SCH??DEL"
    dataset.RequestAttributesSequence = Sequence([request])
    save(dataset, path)
    path.write_bytes(path.read_bytes().replace(b"??", "ÜÜ".encode(really)[:2]))
    return path


def texts(path: Path) -> list[bytes | None]:
    dataset = pydicom.dcmread(path)
    names = [dataset.get_item(name) for name in ("PatientName", "PatientID", "InstitutionName")]
    within = dataset.RequestAttributesSequence[0].get_item("RequestedProcedureDescription")
    return [one.value.rstrip(b" ") for one in (*names, within)]


@pytest.mark.parametrize("enhanced", [False, True])
def test_text_comes_back_byte_for_byte(enhanced: bool, tmp_path: Path) -> None:
    source = mislabelled(enhanced_ct([0.0, 2.5]) if enhanced else ct_slice(0), tmp_path / "in" / "a")
    (entry,) = index(source)
    (derived,) = write_series(entry.load(), tmp_path / "out", DERIVATION)
    assert texts(source)[:2] == [b"M\xdc\xdcLLER^JANE", b"M\xdc\xdcLL-1"]
    assert texts(derived) == texts(source)
    assert pydicom.dcmread(derived).SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "big endian"])
def test_in_other_encodings_too(implicit: bool, tmp_path: Path) -> None:
    pytest.importorskip("pydicom", minversion="3", reason="written with the pydicom 3 API")
    dataset = ct_slice(0)
    dataset.PatientID, dataset.PatientName = "M??LL-1", "M??LLER"
    path = save(dataset, tmp_path / "plain")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.2"
    if not implicit:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    source = tmp_path / "source"
    pydicom.dcmwrite(source, dataset, implicit_vr=implicit, little_endian=implicit, force_encoding=True)
    source.write_bytes(source.read_bytes().replace(b"??", b"\xdc\xdc"))
    (entry,) = index(source)
    (derived,) = write_series(entry.load(), tmp_path / "out", DERIVATION)
    new = pydicom.dcmread(derived)
    assert [new.get_item(name).value for name in ("PatientName", "PatientID")] == [b"M\xdc\xdcLLER ", b"M\xdc\xdcLL-1 "]


@pytest.mark.parametrize(
    ("said", "told"), [("ISO-IR 100", "ISO_IR 100"), ("iso_ir 100", "ISO_IR 100"), ("Latin-One", "Latin-One")]
)
def test_the_name_of_the_character_set_is_kept(said: str, told: str, tmp_path: Path) -> None:
    """Dropped as no valid value, it left text that nobody could read."""
    source = mislabelled(ct_slice(0), tmp_path / "in" / "a", said=said)
    (entry,) = index(source)
    (derived,) = write_series(entry.load(), tmp_path / "out", DERIVATION)
    assert texts(derived) == texts(source)
    assert pydicom.dcmread(derived).SpecificCharacterSet == told


def test_a_misspelt_unicode_set_is_named_rightly(tmp_path: Path) -> None:
    source = tmp_path / "in" / "a"
    dataset = ct_slice(0, SpecificCharacterSet="UTF-8")
    dataset.PatientName = "M??LLER"
    save(dataset, source)
    source.write_bytes(source.read_bytes().replace(b"??", "Ü".encode()))
    (entry,) = index(source)
    (derived,) = write_series(entry.load(), tmp_path / "out", DERIVATION)
    assert str(pydicom.dcmread(derived).PatientName) == "MÜLLER"
    assert pydicom.dcmread(derived).SpecificCharacterSet == "ISO_IR 192"


def test_patients_that_differ_in_an_umlaut_are_two(tmp_path: Path) -> None:
    for name in (MULLER, MOLLER):
        folder = save_all([ct_slice(one, PatientID="M?LL-123") for one in range(3)], tmp_path / name.hex())
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes().replace(b"M?LL-123", name))
    entries = index(tmp_path)
    assert [len({path.parent for path in entry.paths}) for entry in entries] == [1, 1]
    patients = {header.patient[0] for entry in entries for header in map(read_header, entry.paths) if header}
    assert patients == {"MÜLL-123", "MÖLL-123"}
