"""DICOMweb: find series (QIDO-RS), fetch them (WADO-RS), store files (STOW-RS); what a server says is checked."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from monai_sasm.io.commit import replacing_folder
from monai_sasm.io.dicom.header import Header, quiet_read, read_header
from monai_sasm.io.dicom.values import text_of
from monai_sasm.node.multipart import PART, Parts, boundary_of, encode
from monai_sasm.node.web import HttpError, Web, pieces

MAX_SERIES, MAX_OBJECTS = 100_000, 100_000
"""So many series may match a query, and so many objects may come for a series; a server without end is given up."""
MAX_OBJECT_BYTES = 2 << 30
SERIES_DEADLINE = 4 * 3600.0
"""Seconds for a whole series."""
MIN_FREE = 512 << 20
"""Bytes of disk that fetching leaves free."""
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_STUDY, _SERIES, _MODALITY, _COUNT, _FAILURE, _INSTANCE = (
    "0020000D", "0020000E", "00080060", "00201209", "00081197", "00081155",
)  # fmt: skip
_TAGS = {"PatientID": "00100020", "AccessionNumber": "00080050", "Modality": _MODALITY}
"""Of what is asked for beside UIDs; UIDs have checks of their own."""
_STORED_SEQUENCE, _FAILED_SEQUENCE = "00081199", "00081198"


@dataclass(frozen=True)
class SeriesFound:
    """One series on a server.

    Args:
        unsaid: keywords of what was asked for and the server does not tell of the series: each object must.
    """

    study: str
    series: str
    modality: str
    instances: int | None
    unsaid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Stored:
    """What a server says of objects it was sent, PS3.18 table 10.5.3-1.

    Args:
        code: HTTP status.
        taken: SOP Instance UIDs in its Referenced SOP Sequence. Nothing else counts as stored.
        failed: SOP Instance UID -> failure reason, of its Failed SOP Sequence.
    """

    code: int
    taken: frozenset[str]
    failed: Mapping[str, int]


def find_series(web: Web, filters: Mapping[str, str]) -> list[SeriesFound]:
    """Series that match, by QIDO-RS; sorted by UIDs.

    Args:
        web: the server.
        filters: DICOM keyword -> value, for example ``{"StudyInstanceUID": "1.2.3", "Modality": "CT"}``; ``*`` and
            ``?`` stand for any characters and for one, except in UIDs.

    Raises:
        OSError: the server does not answer, or with an error.
        ValueError: it answers with something that is no list of series, with a series that was not asked for, or
            without end.
    """
    study = filters.get("StudyInstanceUID")
    if study is not None and not _UID.fullmatch(study):
        raise ValueError("a Study Instance UID is made of digits and dots, 64 at most")
    path = f"/studies/{study}/series" if study else "/series"
    query: dict[str, Any] = {key: value for key, value in filters.items() if key != "StudyInstanceUID"}
    query["includefield"] = [_STUDY, _SERIES, _COUNT, *_TAGS.values()]
    found: set[SeriesFound] = set()
    seen = 0
    while True:  # page by page; a server that ignores the offset repeats itself
        rows = web.get_json(path, query | ({"offset": seen} if seen else {})) or []
        if not isinstance(rows, list):
            raise ValueError("the server answers with something that is no list of series; check its address")
        new = {_series_found(row, filters) for row in rows} - found
        if not new:
            return sorted(found, key=lambda one: (one.study, one.series))
        found |= new
        seen += len(rows)
        if len(found) > MAX_SERIES:
            raise ValueError(f"more than {MAX_SERIES} series match; ask for fewer")


def _series_found(row: Any, filters: Mapping[str, str]) -> SeriesFound:
    asked = filters.get("StudyInstanceUID", "")
    count = str(_first(row, _COUNT) or "")
    told = {key: str(_first(row, _TAGS[key]) or "").strip() for key in filters if key in _TAGS}
    found = SeriesFound(
        study=str(_first(row, _STUDY) or asked),
        series=str(_first(row, _SERIES) or ""),
        modality=str(_first(row, _MODALITY) or ""),
        instances=int(count) if count.isdecimal() and count.isascii() else None,
        unsaid=frozenset(key for key, value in told.items() if not value),
    )
    other = [key for key, value in told.items() if value and not _matches(value, filters[key])]
    if other or asked not in ("", found.study) or filters.get("SeriesInstanceUID", found.series) != found.series:
        raise ValueError("the server answers with a series that was not asked for; check its address")
    return found


def _matches(value: str, asked: str) -> bool:
    """Whether a value is what was asked for, PS3.4 C.2.2.2.4 (wild card matching)."""
    return fnmatchcase(value, asked.strip().replace("[", "[[]"))  # goes back to no star that has found its place


def fetch_series(web: Web, found: SeriesFound, output: Path, filters: Mapping[str, str] | None = None) -> Path:
    """Fetch one series by WADO-RS as it is stored, into the folder ``output/<Series Instance UID>``: whole or not.

    What it creates can be read by its owner only.

    Args:
        web: the server.
        found: by :func:`find_series`.
        output: created where missing.
        filters: what was asked for there.

    Raises:
        FileExistsError: the folder is there already.
        OSError: the server does not answer, or with an error, or the disk is nearly full.
        ValueError: the server gave other UIDs than it announced, or not as many, or something that is no DICOM object,
            or not what was asked for.
    """
    asked = {key: value for key, value in (filters or {}).items() if key in _TAGS}
    if not (_UID.fullmatch(found.study) and _UID.fullmatch(found.series)):
        raise ValueError("the server gave a series whose UIDs are no UIDs; it cannot be fetched")
    folder = output / found.series
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists already; remove it to fetch the series again")
    output.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing_folder(folder, mode=0o700) as unfinished:
        accept = f'multipart/related; type="{PART}"; transfer-syntax=*'
        with web.get(f"/studies/{found.study}/series/{found.series}", accept) as answer:
            boundary = boundary_of(answer.headers.get("Content-Type", ""))
            if boundary is None:
                raise HttpError(answer.status_code, "the server answers with something else than objects")
            parts = Parts(pieces(answer, MAX_OBJECTS * MAX_OBJECT_BYTES, SERIES_DEADLINE), boundary)
            count = _fetch(parts, found, unfinished, asked)
        if not count or (found.instances is not None and count < found.instances):
            raise ValueError(f"the server announced {found.instances} objects and sent {count}; fetch again")
    return folder


def _fetch(parts: Parts, found: SeriesFound, folder: Path, asked: Mapping[str, str]) -> int:
    """Write the objects of an answer; how many different ones there are."""
    places: set[Path] = set()
    for number in range(MAX_OBJECTS + 1):
        if not parts.next():
            return len(places)
        if number == MAX_OBJECTS:
            break
        if shutil.disk_usage(folder).free < MIN_FREE:
            raise OSError(f"less than {MIN_FREE >> 20} MiB of disk are free; make room, then fetch again")
        draft = folder / "object.tmp"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            parts.copy(file, MAX_OBJECT_BYTES)
            file.flush()
            os.fsync(file.fileno())
        header = read_header(draft)
        if header is None or header.broken or not _UID.fullmatch(header.sop_instance):
            raise ValueError("the server sent an object that is damaged")
        if (header.study, header.series) != (found.study, found.series):
            raise ValueError("the server sent an object of another series")
        _check_asked(draft, asked, found.unsaid)
        place = _free_place(draft, header)
        os.replace(draft, place)
        places.add(place)
    raise ValueError(f"the server sent more than {MAX_OBJECTS} objects of one series; it is given up")


def _check_asked(file: Path, asked: Mapping[str, str], unsaid: frozenset[str]) -> None:
    """Refuse an object that tells something else than was asked for, or does not tell it where the server did not."""
    dataset = quiet_read(file, stop_before_pixels=True, specific_tags=list(asked))
    for key, wanted in asked.items():
        value = text_of(dataset, key).strip()
        if not _matches(value, wanted) if value else key in unsaid:
            raise ValueError(f"the server sent an object of another {key} than was asked for")


def _free_place(draft: Path, header: Header) -> Path:
    """The place of an object beside it: some anonymisers give one UID to all slices."""
    place, number = draft.with_name(f"{header.sop_instance}.dcm"), 1
    while place.exists() and not filecmp.cmp(place, draft, shallow=False):
        number += 1
        place = draft.with_name(f"{header.sop_instance}-{number}.dcm")
    return place


def store(web: Web, files: Sequence[Path]) -> Stored:
    """Send DICOM files as they are, in one request of STOW-RS.

    Raises:
        OSError: the server does not answer, or with a redirect.
    """
    answer = web.post("/studies", *encode(files))
    said = answer.json()
    return Stored(
        answer.code,
        frozenset(str(_first(item, _INSTANCE)) for item in _items(said, _STORED_SEQUENCE)),
        {str(_first(item, _INSTANCE)): _number(_first(item, _FAILURE)) for item in _items(said, _FAILED_SEQUENCE)},
    )


def dicom_files(path: Path) -> Iterator[Path]:
    """Every DICOM file in a path, by content; what is hidden, as unfinished results are, is none, nor is a DICOMDIR.

    Raises:
        ValueError: a link leads nowhere or out of the folder, or a folder is locked.
    """
    from monai_sasm.io.dicom.header import is_dicom
    from monai_sasm.io.dicom.support import is_directory
    from monai_sasm.io.walk import files_below

    for file, reason in files_below(path):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        if reason:
            raise ValueError(f"{file.name}: {reason}")
        if is_dicom(file) and not is_directory(read_header(file)):
            yield file


def _items(row: Any, tag: str) -> list[Any]:
    """The items of a sequence in DICOM JSON, PS3.18 annex F."""
    attribute = row.get(tag) if isinstance(row, dict) else None
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def _first(row: Any, tag: str) -> Any:
    """The first value of an attribute."""
    return next(iter(_items(row, tag)), None)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
