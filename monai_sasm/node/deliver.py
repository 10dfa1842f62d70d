"""The sending side: files to a destination by C-STORE or STOW-RS, each acknowledged one noted at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.io.dicom.header import read_header
from monai_sasm.node.config import DicomPeer, Peer, WebPeer
from monai_sasm.node.receive import INSTALL
from monai_sasm.optional import require

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BATCH_BYTES = 32 << 20
"""About so much goes into one STOW-RS request; it is held in memory."""
_UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)

Instances = Mapping[Path, str]
"""File -> its SOP Instance UID."""


class UnreachableError(OSError):
    """The destination cannot take anything at the moment; the same will be tried again."""


class NotTakenError(ValueError):
    """The destination has refused some objects for good; the others have been taken."""


def deliver(peer: Peer, files: Sequence[Path], calling: str, taken: Callable[[list[str]], None]) -> None:
    """Send DICOM files as they are.

    Args:
        peer: where to.
        files: what to send.
        calling: own AE title.
        taken: called with the SOP Instance UIDs the destination has just acknowledged.

    Raises:
        UnreachableError: it does not answer, rejects the association, or is out of resources.
        NotTakenError: it refused some for good.
        ValueError: a file is damaged; nothing has been sent.
    """
    instances = {file: sop_instance(file) for file in files}
    if not files:
        return
    if isinstance(peer, DicomPeer):
        _c_store(peer, instances, calling, taken)
    else:
        _stow(peer, instances, taken)


def sop_instance(file: Path) -> str:
    """SOP Instance UID of a DICOM file.

    Raises:
        ValueError: it has none, or cannot be read.
    """
    header = read_header(file)
    if header is None or header.broken or not header.sop_instance:
        raise ValueError(f"{file.name} is damaged")
    return header.sop_instance


def _c_store(peer: DicomPeer, files: Instances, calling: str, taken: Callable[[list[str]], None]) -> None:
    pynetdicom = require("pynetdicom", "sending by C-STORE", INSTALL)
    entity = pynetdicom.AE(ae_title=calling)
    for sop_class, syntaxes in _contexts(files):
        entity.add_requested_context(sop_class, list(syntaxes))
    association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title)
    if not association.is_established:
        why = "rejects the association" if association.is_rejected else "does not answer"
        raise UnreachableError(f"{peer.name} {why}")
    refused: list[int] = []
    try:
        for file, uid in files.items():
            status = _send(association, file, peer)
            if status == 0 or status in _WARNINGS:
                taken([uid])
            elif status in _RESOURCES:
                raise UnreachableError(f"{peer.name} is out of resources ({status:04X})")
            else:
                refused.append(status)
    finally:
        association.release()
    if refused:
        raise NotTakenError(f"{peer.name} refused {len(refused)} of {len(files)} objects (status {refused[0]:04X})")


def _contexts(files: Iterable[Path]) -> list[tuple[str, tuple[str, ...]]]:
    """SOP class and transfer syntaxes to propose; a compressed one alone, or the peer might choose another for it."""
    headers = [header for file in files if (header := read_header(file))]
    kinds = {(one.sop_class, one.transfer_syntax) for one in headers}
    return sorted({(kind, _UNCOMPRESSED if syntax in _UNCOMPRESSED else (syntax,)) for kind, syntax in kinds})


def _send(association: Any, file: Path, peer: DicomPeer) -> int:
    """The status of one C-STORE, PS3.4 table B.2-1."""
    try:
        answer = association.send_c_store(file)
    except RuntimeError:  # the association has been aborted
        raise UnreachableError(f"{peer.name} broke the association") from None
    except ValueError:  # its SOP class was not accepted
        return 0x0122
    if "Status" not in answer:
        raise UnreachableError(f"{peer.name} broke the association")
    return int(answer.Status)


def _stow(peer: WebPeer, files: Instances, taken: Callable[[list[str]], None]) -> None:
    from monai_sasm.node.dicomweb import connect

    client = connect(peer)
    refused = 0
    for batch in _batches(files):
        refused += _store_batch(client, peer, {file: files[file] for file in batch}, taken)
    if refused:
        raise NotTakenError(f"{peer.name} refused {refused} of {len(files)} objects")


def _batches(files: Iterable[Path]) -> list[list[Path]]:
    batches: list[list[Path]] = []
    size = BATCH_BYTES
    for file in files:
        more = file.stat().st_size
        if size + more > BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(file)
        size += more
    return batches


def _store_batch(client: Any, peer: WebPeer, files: Instances, taken: Callable[[list[str]], None]) -> int:
    """Send one request; how many objects the server has refused."""
    from pydicom import dcmread

    requests = require("requests", "sending by STOW-RS", INSTALL)
    try:
        answer = client.store_instances([dcmread(file) for file in files])
    except requests.HTTPError as error:
        code = error.response.status_code
        if code in (401, 403, 404, 408, 429) or code >= 500:  # wrong credentials or address, overload: mended one day
            raise UnreachableError(f"{peer.name} answers HTTP {code}") from error
        if len(files) == 1:
            return 1
        return sum(_store_batch(client, peer, {file: uid}, taken) for file, uid in files.items())  # which one is it?
    except requests.RequestException as error:
        raise UnreachableError(f"{peer.name} does not answer ({type(error).__name__})") from error
    failed = _failed(answer)
    accepted = [uid for uid in files.values() if uid not in failed]
    taken(accepted)
    return len(files) - len(accepted)


def _failed(answer: Dataset) -> set[str]:
    """SOP Instance UIDs in the Failed SOP Sequence of a STOW-RS response, PS3.18 table 10.5.3-1."""
    return {str(item.ReferencedSOPInstanceUID) for item in answer.get("FailedSOPSequence") or []}
