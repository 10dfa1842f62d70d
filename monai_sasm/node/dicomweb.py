"""DICOMweb: find series (QIDO-RS), fetch them (WADO-RS), store files (STOW-RS)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sasm.io.commit import replacing_folder
from monai_sasm.node.config import WebPeer
from monai_sasm.node.receive import INSTALL
from monai_sasm.optional import require

TIMEOUT = (10, 300)
"""Seconds to connect, and between two pieces of an answer."""
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_AS_STORED = (("application/dicom", "*"),)


@dataclass(frozen=True)
class SeriesFound:
    """One series on a server."""

    study: str
    series: str
    modality: str
    instances: int | None


def connect(peer: WebPeer) -> Any:
    """A ``dicomweb_client.DICOMwebClient`` for a server, with its credentials.

    Raises:
        MissingExtraError: dicomweb-client is not installed.
        ValueError: an environment variable with credentials is not set.
    """
    library = require("dicomweb_client", "DICOMweb", INSTALL)
    session = require("requests", "DICOMweb", INSTALL).Session()
    if peer.token_env:
        session.headers["Authorization"] = f"Bearer {peer.secret(peer.token_env)}"
    elif peer.user_env and peer.password_env:
        session.auth = (peer.secret(peer.user_env), peer.secret(peer.password_env))
    if peer.ca_bundle:
        session.verify = peer.ca_bundle
    client = library.DICOMwebClient(peer.url.rstrip("/"), session=session, timeout=TIMEOUT)
    client.set_http_retry_params(retry=True, max_attempts=3)
    return client


@contextmanager
def _errors_in_words() -> Iterator[None]:
    requests = require("requests", "DICOMweb", INSTALL)
    try:
        yield
    except requests.HTTPError as error:
        raise OSError(f"the server answers HTTP {error.response.status_code}") from error
    except requests.RequestException as error:
        raise OSError(f"the server does not answer ({type(error).__name__}); check the address") from error


def find_series(client: Any, filters: Mapping[str, str]) -> list[SeriesFound]:
    """Series that match, by QIDO-RS; sorted by UIDs.

    Args:
        client: see :func:`connect`.
        filters: DICOM keyword -> value, for example ``{"StudyInstanceUID": "1.2.3", "Modality": "CT"}``.

    Raises:
        OSError: the server does not answer, or with an error.
    """
    study = filters.get("StudyInstanceUID")
    rest = {key: value for key, value in filters.items() if key != "StudyInstanceUID"}
    wanted = ["StudyInstanceUID", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"]
    found: set[SeriesFound] = set()
    seen = 0
    while True:  # page by page; a server that ignores the offset repeats itself
        with _errors_in_words():
            rows = client.search_for_series(study, search_filters=rest, fields=wanted, offset=seen or None)
        new = {_series_found(row, study) for row in rows} - found
        if not new:
            return sorted(found, key=lambda one: (one.study, one.series))
        found |= new
        seen += len(rows)


def _series_found(row: Mapping[str, Any], study: str | None) -> SeriesFound:
    count = _first(row, "00201209")
    return SeriesFound(
        study=str(_first(row, "0020000D") or study or ""),
        series=str(_first(row, "0020000E") or ""),
        modality=str(_first(row, "00080060") or ""),
        instances=None if count is None else int(count),
    )


def fetch_series(client: Any, found: SeriesFound, output: Path) -> Path:
    """Fetch one series by WADO-RS as it is stored, into the folder ``output/<Series Instance UID>``: whole or not.

    Raises:
        FileExistsError: the folder is there already.
        OSError: the server does not answer, or with an error.
        ValueError: the server gave other UIDs than it announced, or fewer objects.
    """
    if not (_UID.fullmatch(found.study) and _UID.fullmatch(found.series)):
        raise ValueError("the server gave a series whose UIDs are no UIDs; it cannot be fetched")
    folder = output / found.series
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it to fetch the series again")
    with replacing_folder(folder) as unfinished:
        count = 0
        with _errors_in_words():
            for dataset in client.iter_series(found.study, found.series, media_types=_AS_STORED):
                uid = str(dataset.SOPInstanceUID)
                if str(dataset.SeriesInstanceUID) != found.series or not _UID.fullmatch(uid):
                    raise ValueError("the server sent an object of another series")
                dataset.save_as(unfinished / f"{uid}.dcm", enforce_file_format=True)
                count += 1
        if not count or (found.instances is not None and count < found.instances):
            raise ValueError(f"the server announced {found.instances} objects and sent {count}; fetch again")
    return folder


def dicom_files(path: Path) -> Iterator[Path]:
    """Every DICOM file in a path, by content."""
    from monai_sasm.io.dicom.header import is_dicom

    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file() and is_dicom(file):
            yield file


def _first(row: Mapping[str, Any], tag: str) -> Any:
    """The first value of an attribute in DICOM JSON, PS3.18 annex F."""
    values = row.get(tag, {}).get("Value") or [None]
    return values[0]
