"""Derived DICOM series: each source instance copied as a template, with new pixels and its derivation written down.

What a derived classic CT or MR instance must carry: PS3.3 C.7.6.1 (General Image), C.12.4 (Derivation), C.12.2 (Common
Instance Reference), C.7.5.2 (Contributing Equipment), C.12.4.1.1 (processed pixels need a new UID).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from monai_sasm.errors import RefusedError
from monai_sasm.io.ahead import in_order
from monai_sasm.io.commit import guard_target, make_folders, move_file, replacing_folder, sync, sync_each
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.charset import put_back, source_texts
from monai_sasm.io.dicom.conform import conform, dicom_profile
from monai_sasm.io.dicom.header import SOFTWARE, encoding_of, read_header
from monai_sasm.io.dicom.pixels import encode, read_stored
from monai_sasm.io.dicom.placement import place
from monai_sasm.io.dicom.read import DicomSource, content_of, instance_uid
from monai_sasm.io.dicom.saving import mark_lossy, save, set_pixels
from monai_sasm.io.dicom.values import integer_of, text_of
from monai_sasm.io.paged import paging
from monai_sasm.io.permissions import folder_mode
from monai_sasm.io.placing import staged
from monai_sasm.io.silence import quiet
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

SERIES_NUMBER_OFFSET = 1000
SMOOTHING = ("113087", "Smoothing")
_SHARPENING = ("113086", "Edge enhancement")
_RESAMPLING = ("113085", "Spatial resampling")
_OTHER = ("PROCESSING", "Image processing")
_CODES = {"noise": SMOOTHING, "low-dose": SMOOTHING, "low-resolution": _SHARPENING}
"""Degradations and what their repair is in CID 7203 (Image Derivation); others get a private code, for it has none."""
SOURCE_IMAGE = ("121322", "Source image for image processing operation")
PROCESSING_EQUIPMENT = ("109102", "Processing Equipment")

_MAX_IS = 2**31 - 1  # PS3.5 table 6.2-1
_AT_ONCE = 4  # files that are encoded, or wait for the disk, at the same time
_CUT = " ..."
_MAX_LO, _MAX_ST = 64, 1024  # characters of a Long String and a Short Text, PS3.5 table 6.2-1
_STALE = [  # statements about the old pixels or the old encoding
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane",
    "LargestImagePixelValueInPlane",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "DataSetTrailingPadding",
    "EncryptedAttributesSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelDataProviderURL",
    "InstanceCreatorUID",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeriesFacts:
    """What all instances of one derived series share; ``codes`` say what was done, none where nothing was."""

    uid: str
    codes: tuple[tuple[str, str], ...]
    derivation: Derivation
    now: datetime
    modality: Modality
    keep_private: bool = False


def write_series(
    volume: Volume, folder: Path, derivation: Derivation, *, overwrite: bool = False, keep_private: bool = False
) -> list[Path]:
    """Write restored pixels as a new DICOM series beside its source, one file a slice, Explicit VR Little Endian; of
    Enhanced multi-frame objects one object each, see :mod:`monai_sasm.io.dicom.enhanced`.

    Study, patient, frame of reference and slice geometry are the source's. Series and SOP Instance UIDs follow from the
    source's UIDs, its pixels and the derivation: a second run gives the same UIDs; a slice that was sent again with
    other pixels, or another part of a split series, gives others. Pixels that equal the source keep its stored integer,
    and where all do the series says that it is a copy; padding is given back exactly. Values beyond Bits Stored are
    clipped and counted in a log warning.
    Slices on a grid of their own (:mod:`monai_sasm.io.finer_slices`) get its positions, thickness, spacing and count.

    The folder appears whole or not at all, and holds this one series: an older result in it goes as a whole.

    Args:
        volume: restored volume as loaded by :func:`monai_sasm.io.dicom.read.load`; array ``(1, slices, rows,
            columns)``.
        folder: for ``IM0001.dcm``, ``IM0002.dcm``, ... in array order.
        derivation: what was done, for UIDs and headers.
        overwrite: replace a folder that holds nothing but earlier results of this program, or of
            ``derivation.software``.
        keep_private: copy private attributes; they may hold patient data or describe the old pixels.

    Returns:
        The files written, in array order.

    Raises:
        FileExistsError: the folder holds files and ``overwrite`` is off, or files that are no results.
        RefusedError: the source has changed on disk.
        ValueError: the volume does not come from DICOM, changed its shape, or holds NaN; the folder is its source's.
    """
    source = _checked_source(volume)
    parents = {path.resolve().parent for path in source.paths}
    if folder.resolve() in parents:
        raise ValueError(f"a series never goes into the folder of its source, got {folder.name}; choose another")
    ours, mode = partial(_is_result, software=derivation.software), folder_mode(source.files)
    with replacing_folder(folder, overwrite=overwrite, ours=ours, mode=mode) as new:
        if any(folder.resolve().is_relative_to(parent) for parent in parents):
            logger.warning("%s: the derived series is written inside the folder of its source", volume.name)
        names = _write_slices(volume, source, new, derivation, keep_private)
    return [folder / name for name in names]


def write_file(
    volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool = False, keep_private: bool = False
) -> Path:
    """Write an image of one slice, or of one Enhanced object, to a file of that name; see :func:`write_series`.

    Raises:
        ValueError: it has several slices.
    """
    source = _checked_source(volume)
    if len(set(source.paths)) != 1 or (len(source.paths) != 1 and not source.multiframe):
        raise ValueError(f"a series of {len(source.paths)} slices goes into a folder, got {path.name}; name a folder")
    guard_target(path, overwrite=overwrite, sources=source.paths)
    named = make_folders(path.parent, folder_mode(source.files))
    with staged(path.parent) as aside:
        (name,) = _write_slices(volume, source, aside, derivation, keep_private)
        sync(aside / name)
        move_file(aside / name, path, overwrite=overwrite)
        sync_each(named)
    return path


def _is_result(path: Path, software: str) -> bool:
    """Whether a file is a derived slice that this program, or this software, wrote."""
    header = read_header(path)
    return header is not None and bool(header.derived_by & {SOFTWARE, software[:_MAX_LO].lower()})


def _checked_source(volume: Volume) -> DicomSource:
    source = volume.source
    if not isinstance(source, DicomSource):
        raise ValueError(f"only a volume read from DICOM becomes a derived series, got source {type(source).__name__}")
    if volume.array.shape[:2] != (1, len(source.paths)):
        raise ValueError(f"a derived series needs (1, {len(source.paths)}, rows, columns), got {volume.array.shape}")
    return source


def _write_slices(
    volume: Volume, source: DicomSource, building: Path, derivation: Derivation, keep_private: bool
) -> list[str]:
    if source.multiframe:
        from monai_sasm.io.dicom.enhanced import write_objects

        return write_objects(volume, source, building, derivation=derivation, keep_private=keep_private)
    first = _encoded(volume, source, 0)
    others = (_encoded(volume, source, number).changed for number in range(1, len(source.paths)))
    changed = source.thickness is not None or first.changed or any(paging(others))
    series = facts_of(first.dataset, source, derivation if changed else derivation.unchanged, volume.modality)
    series = replace(series, codes=series.codes if changed else (), keep_private=keep_private)
    names = [f"IM{number + 1:04d}.dcm" for number in range(len(source.paths))]

    def encode_one(number: int) -> tuple[int, Iterable[str]]:
        one = _encoded(volume, source, number)
        mended = _write_slice(one.dataset, series, one.stored, building / names[number], source, number)
        sync(building / names[number])  # the disk writes while the next ones are encoded
        return one.clipped, mended

    written = list(paging(in_order(encode_one, range(len(names)), _AT_ONCE)))
    tell(volume.name, {name for _, mended in written for name in mended}, sum(clipped for clipped, _ in written))
    return names


def tell(name: str, mended: set[str], clipped: int) -> None:
    """Log what had to be mended or clipped in a series, by its label without patient data."""
    if mended:
        told = ", ".join(sorted(mended))
        logger.warning("%s: values that DICOM does not allow were rewritten or left out: %s", name, told)
    if clipped:
        logger.warning("%s: %d restored pixel(s) did not fit the stored bits and were clipped", name, clipped)


@dataclass(frozen=True)
class _Encoded:
    """A source instance with the integers that its new pixels are stored as."""

    dataset: Dataset
    stored: NDArray[np.int32]
    changed: bool
    clipped: int


def _encoded(volume: Volume, source: DicomSource, number: int) -> _Encoded:
    dataset, pixels = read_stored(source.paths[number])
    frame = source.frames[number]
    with quiet():
        same = instance_uid(dataset) == source.instances[number]
    if not same or content_of(pixels, frame) != source.contents[number]:
        raise RefusedError("a source file changed since it was read; restore the series again")
    stored, lost = encode(volume.array[0, number], pixels, frame, source.slopes[number], source.intercepts[number])
    return _Encoded(dataset, stored, not np.array_equal(stored, pixels.values[frame]), lost)


def facts_of(first: Dataset, source: DicomSource, derivation: Derivation, modality: Modality) -> SeriesFacts:
    """Of the first source instance."""
    origin = text_of(first, "SeriesInstanceUID") or source.instances[0]
    owner = [source.owner] if source.owner else []
    uid = generate_uid(entropy_srcs=["series", origin, derivation.digest, *source.contents, *owner])
    codes = dict.fromkeys(_CODES.get(one, _OTHER) for one in derivation.repairs or ("",))
    done = tuple(codes) if source.thickness is None else (_RESAMPLING,)
    return SeriesFacts(uid, done, derivation, _now(first), modality)


def _write_slice(
    dataset: Dataset, series: SeriesFacts, stored: NDArray[np.int32], path: Path, source: DicomSource, number: int
) -> Iterable[str]:
    with readable(), quiet():
        texts = source_texts(dataset)
        mark_lossy(dataset, len(dataset.PixelData))
        _derive(dataset, series, source, number)
        mended = conform(dataset, series.modality)
        put_back(texts)
        set_pixels(dataset, stored)
        save(dataset, path, [source.paths[number]])
        return mended


@contextmanager
def readable() -> Iterator[None]:
    """pydicom raises whatever a damaged attribute of the source provokes: a reason instead."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        raise RefusedError(
            f"an attribute of a source file is damaged and cannot be copied ({type(error).__name__}); "
            "get intact copies, or write NIfTI (.nii.gz) instead"
        ) from error


def _now(dataset: Dataset) -> datetime:
    """The present in the time zone the source's own times are in (Timezone Offset From UTC)."""
    try:
        return datetime.now(datetime.strptime(text_of(dataset, "TimezoneOffsetFromUTC"), "%z").tzinfo)
    except ValueError:
        return datetime.now()


def _derive(dataset: Dataset, series: SeriesFacts, source: DicomSource, number: int) -> None:
    """Turn a copy of a source instance into the derived instance, all but its pixels."""
    old_class = text_of(dataset, "SOPClassUID") or text_of(dataset.file_meta, "MediaStorageSOPClassUID")
    old_class = old_class or dicom_profile(series.modality).sop_class
    old_instance, old_series = instance_uid(dataset), text_of(dataset, "SeriesInstanceUID")
    drop_stale(dataset, series.keep_private)
    dataset.SOPClassUID = old_class
    moved = source.thickness is not None
    shared = moved or old_instance in source.repeated  # by thin slices, or by the fault of an anonymiser
    own = [str(number)] if shared else []
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[old_instance, series.uid, *own])
    dataset.SeriesInstanceUID = series.uid
    if not text_of(dataset, "StudyInstanceUID"):  # emptied by a careless anonymiser; without one no archive takes it
        frame = text_of(dataset, "FrameOfReferenceUID") or series.uid
        owner = [source.owner] if source.owner else []
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", frame, *owner])
    describe(dataset, series)
    if moved:
        place(dataset, source, number)
    _reference(dataset, old_class, source.acquired[number] if moved else (old_instance,), old_series, not moved)
    append(dataset, "ContributingEquipmentSequence", [equipment_item(series)])


def drop_stale(dataset: Dataset, keep_private: bool) -> None:
    """Drop statements about the old pixels, drawings on them and, unless they are kept, private attributes."""
    for keyword in _STALE:
        if keyword in dataset:
            delattr(dataset, keyword)
    tags = dataset.keys()
    drawn = [tag for tag in tags if tag.group in range(0x5000, 0x5100, 2) or 0x6000 <= tag.group < 0x6100]
    for tag in drawn:
        del dataset[tag]  # curves and overlays: drawings on the old image, possibly with burnt-in names
    if not keep_private:
        _drop_private(dataset)
    if not encoding_of(dataset)[1] and "VOILUTSequence" in dataset:
        del dataset.VOILUTSequence  # its byte string is in big endian order and would be copied unswapped


def _drop_private(dataset: Dataset) -> None:
    """Private attributes at every depth; unlike pydicom's own, it does not need to understand what it drops."""
    for tag in list(dataset.keys()):
        if tag.is_private:
            del dataset[tag]
        elif dataset[tag].VR == "SQ":
            for item in dataset[tag].value:
                _drop_private(item)


def describe(dataset: Dataset, series: SeriesFacts) -> None:
    """Image type, series and derivation of a derived object, and when it was made."""
    derivation, now = series.derivation, series.now
    dataset.ImageType = derived_type(text_of(dataset, "ImageType"))
    number = integer_of(dataset, "SeriesNumber", 0) + SERIES_NUMBER_OFFSET
    if number <= _MAX_IS:
        dataset.SeriesNumber = number
    label = f" [{derivation.label}]"
    dataset.SeriesDescription = (text_of(dataset, "SeriesDescription")[: _MAX_LO - len(label)] + label).strip()
    done = derivation.description[:_MAX_ST]
    before = text_of(dataset, "DerivationDescription")
    room = _MAX_ST - len(done) - len("; ")
    if len(before) > room:
        before = before[: max(0, room - len(_CUT))] + _CUT if room > len(_CUT) else ""
    dataset.DerivationDescription = f"{before}; {done}" if before else done
    if series.codes:
        append(dataset, "DerivationCodeSequence", [code_item(*code) for code in series.codes])
    for event in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, f"{event}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{event}Time", now.strftime("%H%M%S"))


def derived_type(text: str) -> list[str]:
    """Values of Image Type or Frame Type of what was made of an image with this one, joined by backslashes."""
    kind = text.split("\\")
    return ["DERIVED", *([part for part in kind[1:] if part or len(kind) > 2] or ["PRIMARY"])]


def _reference(dataset: Dataset, sop_class: str, instances: Items[str], series: str, in_place: bool) -> None:
    """Point at the sources: Source Image Sequence, and Common Instance Reference for the source's series."""
    images = [instance_item(sop_class, instance) for instance in instances]
    for image in images:
        image.PurposeOfReferenceCodeSequence = Sequence([code_item(*SOURCE_IMAGE)])
        image.SpatialLocationsPreserved = "YES" if in_place else "NO"
    dataset.SourceImageSequence = Sequence(images)
    if not series:
        return  # emptied UIDs: nothing valid to point at
    listed = [instance_item(sop_class, instance) for instance in instances]
    others = dataset.get("ReferencedSeriesSequence") or []
    known = [item for item in others if text_of(item, "SeriesInstanceUID") == series]
    if known:
        append(known[0], "ReferencedInstanceSequence", listed)
        return
    item = Dataset()
    item.SeriesInstanceUID = series
    item.ReferencedInstanceSequence = Sequence(listed)
    append(dataset, "ReferencedSeriesSequence", [item])


def instance_item(sop_class: str, instance: str) -> Dataset:
    """A reference to an object."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def equipment_item(series: SeriesFacts) -> Dataset:
    """This program as contributing equipment."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([code_item(*PROCESSING_EQUIPMENT)])
    item.Manufacturer = series.derivation.software[:_MAX_LO]
    item.ManufacturerModelName = series.derivation.software[:_MAX_LO]
    item.SoftwareVersions = series.derivation.version[:_MAX_LO]
    item.ContributionDateTime = series.now.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = series.derivation.summary[:_MAX_ST]
    return item


def code_item(value: str, meaning: str) -> Dataset:
    """A code of the DICOM controlled terminology (PS3.16), or of our own scheme where it is no number."""
    item = Dataset()
    scheme = "DCM" if value.isdigit() else "99SASM"
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def append(dataset: Dataset, keyword: str, items: Items[Dataset]) -> None:
    """Add items to a sequence that may be missing."""
    setattr(dataset, keyword, Sequence([*(dataset.get(keyword) or []), *items]))
