"""Header: the few attributes of one DICOM file that decide what it is and where it lies, read without its pixels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader, BytesIO, FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.deflated import inflates_beyond, unpacked
from monai_sasm.io.dicom.format import BARE
from monai_sasm.io.dicom.values import floats_of, identity_of, integer_of, scale_of, step_of, text_of, units_of
from monai_sasm.io.silence import quiet

_SPLITTERS = [
    "TemporalPositionIndex",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "FlipAngle",
    "TriggerTime",
    "CardiacCyclePosition",
    "NominalPercentageOfCardiacPhase",
    "KVP",
    "ConvolutionKernel",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentTime",
    "SeriesTime",
]
TAGS: list[str | int] = [
    *_SPLITTERS,
    "ImageType",
    "VolumeBasedCalculationTechnique",
    "ComplexImageComponent",
    "ImageComments",
    "SeriesDescription",
    "ProtocolName",
    "RealWorldValueMappingSequence",
    *(0x00190000 + part for part in (0x10, 0x11, 0x100A, 0x110A)),  # Siemens: images in a mosaic
    *(0x00430000 + part for part in (0x10, 0x11, 0x102F, 0x112F)),  # GE: magnitude, phase, real, imaginary
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "TemporalPositionIdentifier",
    "EchoNumbers",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "ContributingEquipmentSequence",
    "DerivationDescription",
]
SOFTWARE = "sasm"
"""Part of the names, in lower case, under which this program notes itself as contributing equipment."""
_MODELS = " models: "  # begins the part of a description that names them
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_EXPLICIT = [vr + b"\0\0" for vr in (b"OB", b"OW", b"OF", b"OD", b"UN")]
"""What follows the tag of pixel data in explicit VR, whatever the transfer syntax says; as a length it would be odd."""
_ENCAPSULATED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class Header:
    """What the index needs of one file; lengths in mm, patient coordinates LPS; absent is ``None`` or ``""``.

    Args:
        broken: why the file cannot be read to its end; ``None`` when it can.
        patient: Patient ID and its issuer, ``""`` where one is not told.
        owner: a hash of the patient where files of another one have the same Series Instance UID, else ``""``.
        technique: Volume Based Calculation Technique.
        component: Complex Image Component; of GE from its private attribute; ``MOSAIC`` where Siemens' says so.
        units: of Real World Value Mapping.
        texts: descriptions; free text that may hold patient data.
        protocol: Protocol Name; such text, too.
        derived_by: names, in lower case, of the software that has processed it; :data:`SOFTWARE` for this program.
        by_network: whether a network may have changed it where this program has: not only a simulation or arithmetic.
        variants: attributes that tell repeated acquisitions of one position apart, by keyword.
    """

    path: Path
    size: int = 0
    broken: str | None = None
    transfer_syntax: str = ""
    sop_class: str = ""
    sop_instance: str = ""
    modality: str = ""
    patient: tuple[str, str] = field(default=("", ""), repr=False)
    owner: str = field(default="", repr=False)
    study: str = ""
    series: str = ""
    frame_of_reference: str = ""
    series_number: int | None = None
    description: str = ""
    instance: int = 0
    image_type: tuple[str, ...] = ()
    technique: str = ""
    temporal: int | None = None
    echo: str = ""
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    samples: int = 1
    photometric: str = ""
    frames: int = 1
    rows: int = 0
    columns: int = 0
    bits_allocated: int = 0
    bits_stored: int = 0
    high_bit: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    rescale_type: str = ""
    has_modality_lut: bool = False
    has_pixels: bool = False
    has_float_pixels: bool = False
    component: str = ""
    units: tuple[str, ...] = ()
    texts: str = field(default="", repr=False)
    protocol: str = field(default="", repr=False)
    derived_by: frozenset[str] = frozenset()
    by_network: bool = True
    variants: dict[str, str] = field(default_factory=dict)

    @property
    def derived_here(self) -> bool:
        """Whether this program has processed it."""
        return SOFTWARE in self.derived_by

    @property
    def restored_here(self) -> bool:
        """Whether it is a result that is not to be restored again."""
        return self.derived_here and self.by_network


def is_dicom(path: Path) -> bool:
    """Whether the first bytes say DICOM: ``DICM`` after the preamble, or a bare data set with a SOP Class UID."""
    try:
        with _opened(path) as (stream, _):
            kind = _magic(stream)
    except (OSError, RefusedError):
        return False
    return kind == "preamble" or (kind == "bare" and read_header(path) is not None)


def read_header(path: Path) -> Header | None:
    """The header of one file; ``None`` when it is no DICOM at all. Never raises for a damaged file: see ``broken``."""
    try:
        with _opened(path) as (stream, size):
            kind = _magic(stream)
            return None if kind is None else _read(stream, path, size, bare=kind == "bare")
    except OSError as error:
        return Header(path, broken=f"the file cannot be opened ({error.strerror})")
    except RefusedError as error:
        return Header(path, broken=str(error))


def quiet_read(source: Path | BinaryIO, **options: Any) -> Dataset:
    """``pydicom.dcmread`` without its warnings and logs, which quote attribute values and so may quote patient data."""
    with quiet():
        if not isinstance(source, Path):
            return dcmread(source, **options)
        with _opened(source) as (stream, _):
            return dcmread(stream, **options)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size in bytes; unpacked where it is gzip."""
    with _Bounded(path) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        content = unpacked(stream) if packed else b""
        yield (BytesIO(content), len(content)) if packed else (stream, path.stat().st_size)


class _Bounded(BufferedReader):
    """A file that is asked for no more than it holds: else damaged lengths are allocated before they are found out."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(os.fspath(path)))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _magic(stream: BinaryIO) -> str | None:
    start = stream.read(132)
    if start[128:132] == b"DICM":
        return "preamble"
    return "bare" if start[:2] in BARE else None


def _read(stream: BinaryIO, path: Path, size: int, bare: bool) -> Header | None:
    with quiet():
        limit = inflates_beyond(stream)
    if limit is not None:
        return Header(path, size, broken=f"its deflated data set unpacks to more than {limit >> 20} MiB")
    stream.seek(0)
    try:
        dataset = quiet_read(stream, stop_before_pixels=True, specific_tags=TAGS, force=bare)
        with quiet():
            header = _header(dataset, path, size)
    except Exception as error:  # pydicom raises whatever the damage provokes
        return None if bare else Header(path, size, broken=f"the header cannot be parsed ({type(error).__name__})")
    if bare and not header.sop_class.startswith("1.2.840.10008."):
        return None
    return _with_pixel_state(header, stream)


def _header(dataset: Dataset, path: Path, size: int) -> Header:
    meta = getattr(dataset, "file_meta", None) or Dataset()
    syntax = text_of(meta, "TransferSyntaxUID") or guessed_syntax(dataset)
    orientation = floats_of(dataset, "ImageOrientationPatient", 6)
    patient = identity_of(dataset, "PatientID")
    return Header(
        path,
        size,
        transfer_syntax=syntax,
        sop_class=text_of(dataset, "SOPClassUID") or text_of(meta, "MediaStorageSOPClassUID"),
        sop_instance=text_of(dataset, "SOPInstanceUID") or text_of(meta, "MediaStorageSOPInstanceUID"),
        modality=text_of(dataset, "Modality"),
        patient=(patient, identity_of(dataset, "IssuerOfPatientID") if patient else ""),
        study=text_of(dataset, "StudyInstanceUID"),
        series=text_of(dataset, "SeriesInstanceUID"),
        frame_of_reference=text_of(dataset, "FrameOfReferenceUID"),
        series_number=integer_of(dataset, "SeriesNumber", None),
        description=text_of(dataset, "SeriesDescription"),
        instance=integer_of(dataset, "InstanceNumber", 0) or 0,
        image_type=tuple(text_of(dataset, "ImageType").split("\\")) if text_of(dataset, "ImageType") else (),
        technique=text_of(dataset, "VolumeBasedCalculationTechnique"),
        temporal=integer_of(dataset, "TemporalPositionIdentifier", None),
        echo=text_of(dataset, "EchoNumbers"),
        position=floats_of(dataset, "ImagePositionPatient", 3),
        orientation=orientation,
        spacing=floats_of(dataset, "PixelSpacing", 2),
        thickness=step_of(dataset),
        samples=integer_of(dataset, "SamplesPerPixel", 1) or 1,
        photometric=text_of(dataset, "PhotometricInterpretation"),
        frames=integer_of(dataset, "NumberOfFrames", 1) or 1,
        rows=integer_of(dataset, "Rows", 0) or 0,
        columns=integer_of(dataset, "Columns", 0) or 0,
        bits_allocated=integer_of(dataset, "BitsAllocated", 0) or 0,
        bits_stored=integer_of(dataset, "BitsStored", 0) or 0,
        high_bit=integer_of(dataset, "HighBit", 0) or 0,
        slope=scale_of(dataset, "RescaleSlope", 1.0),
        intercept=scale_of(dataset, "RescaleIntercept", 0.0),
        rescale_type=text_of(dataset, "RescaleType"),
        has_modality_lut=bool(dataset.get("ModalityLUTSequence")),
        component=_vendor_component(dataset) or text_of(dataset, "ComplexImageComponent"),
        units=units_of(dataset),
        texts=" | ".join(text_of(dataset, key) for key in ("SeriesDescription", "ImageComments")),
        protocol=text_of(dataset, "ProtocolName"),
        derived_by=_derived_by(dataset),
        by_network=_by_network(text_of(dataset, "DerivationDescription")),
        variants={
            "ImageType": text_of(dataset, "ImageType"),
            **{key: text for key in _SPLITTERS if (text := text_of(dataset, key))},
        },
    )


def _with_pixel_state(header: Header, stream: BinaryIO) -> Header:
    """Look at the pixel element the parser stopped at: is it there, and are all its bytes in the file?"""
    if header.transfer_syntax == DeflatedExplicitVRLittleEndian:  # offsets mean nothing; decoding will tell
        return replace(header, has_pixels=bool(header.rows))
    order = ">" if header.transfer_syntax == ExplicitVRBigEndian else "<"
    offset = stream.tell()
    start = stream.read(12)
    if len(start) < 12:
        return header
    group, element = struct.unpack(order + "HH", start[:4])
    tag = (group << 16) | element
    if tag not in _PIXEL_TAGS:
        return header
    if start[4:8] not in _EXPLICIT:
        length, begin = struct.unpack(order + "L", start[4:8])[0], offset + 8
    else:
        length, begin = struct.unpack(order + "L", start[8:12])[0], offset + 12
    if length == _ENCAPSULATED_LENGTH:
        complete = _encapsulation_ends(stream, begin, header.size)
    else:
        complete = begin + length <= header.size and length >= pixel_bytes(header)
    broken = None if complete else "the file is truncated: its pixel data stop short"
    return replace(header, has_pixels=True, has_float_pixels=tag != 0x7FE00010, broken=broken)


def pixel_bytes(header: Header) -> int:
    """Bytes of the uncompressed pixel data the header announces."""
    return header.rows * header.columns * header.samples * header.frames * header.bits_allocated // 8


def _encapsulation_ends(stream: BinaryIO, offset: int, size: int) -> bool:
    while offset + 8 <= size:
        stream.seek(offset)
        group, element, length = struct.unpack("<HHL", stream.read(8))
        if (group, element) == (0xFFFE, 0xE0DD):
            return True
        if (group, element) != (0xFFFE, 0xE000) or length == _ENCAPSULATED_LENGTH:
            return False
        offset += 8 + length
    return False


def guessed_syntax(dataset: Dataset) -> str:
    """The uncompressed transfer syntax a data set without file meta information was read in."""
    implicit, little = encoding_of(dataset)
    if implicit:
        return str(ImplicitVRLittleEndian)
    return "1.2.840.10008.1.2.1" if little else str(ExplicitVRBigEndian)


def encoding_of(dataset: Dataset) -> tuple[bool, bool]:
    """(implicit VR, little endian) as the file was read, under pydicom 2 and 3."""
    if hasattr(dataset, "original_encoding"):
        implicit, little = dataset.original_encoding
    else:
        implicit, little = dataset.is_implicit_VR, dataset.is_little_endian
    return bool(implicit), bool(little)


def _vendor_component(dataset: Dataset) -> str:
    """What private attributes of GE and Siemens say that the pixels are; ``""`` where there are none."""
    kind = _private_number(dataset, 0x0043, 0x2F, creator="GEMS_PARM_01")
    if (_private_number(dataset, 0x0019, 0x0A, creator="SIEMENS MR HEADER") or 0) > 1:
        return "MOSAIC"
    return {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}.get(kind or 0, "")


def _private_number(dataset: Dataset, group: int, element: int, *, creator: str) -> int | None:
    """The first number of a private attribute of 16 bits, also where it has lost its type."""
    for block in (0x10, 0x11):
        name, tag = dataset.get((group, block)), (group, (block << 8) + element)
        if name is None or str(name.value).strip() != creator or tag not in dataset:
            continue
        value = dataset[tag].value
        if isinstance(value, bytes):
            return int.from_bytes(value[:2], "little")
        try:
            return int(value if isinstance(value, (int, float, str)) else value[0])
        except (TypeError, ValueError, IndexError):
            return None
    return None


def _derived_by(dataset: Dataset) -> frozenset[str]:
    """Two marks of our own, each enough: archives drop the one or the other."""
    items = dataset.get("ContributingEquipmentSequence") or []
    names = {text_of(item, "ManufacturerModelName").lower() for item in items}
    ours = any(SOFTWARE in name for name in names) or "by monai_sasm " in text_of(dataset, "DerivationDescription")
    return frozenset(names | ({SOFTWARE} if ours else set()))


def _by_network(description: str) -> bool:
    """See :attr:`Derivation.description <monai_sasm.io.derivation.Derivation.description>`; archives may drop it."""
    parts = description.split(";")
    models = [then for one, then in pairwise(parts) if "by monai_sasm " in one and then.startswith(_MODELS)]
    return not models or any(one.removeprefix(_MODELS).strip() != "no model" for one in models)
