"""The sending side: files to a destination by C-STORE or STOW-RS, each acknowledged one noted at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.io.dicom.header import read_header
from monai_sasm.io.dicom.support import modality_of
from monai_sasm.io.silence import mute
from monai_sasm.node.config import INSTALL, DicomPeer, Peer, WebPeer
from monai_sasm.node.tls import client_context
from monai_sasm.optional import require

if TYPE_CHECKING:
    from monai_sasm.node.web import Web

BATCH_BYTES = 32 << 20
"""About so much goes into one STOW-RS request; it is held in memory."""
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""How long a DICOM destination is waited for."""
_OUTAGES = (401, 403, 404, 408, 429)
"""HTTP errors that somebody will mend: wrong credentials or address, overload."""
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_RESOURCES = range(0xA700, 0xA800)
_TROUBLE = (0x0110, 0x0124, 0x0213, *range(0xC000, 0xD000))
"""Processing failure, not authorised, resource limitation, cannot understand (PS3.7 annex C, PS3.4 table B.2-1): of an
object that will never be taken, or of any while the archive is in trouble; nobody can tell which."""
_WARNINGS = range(0xB000, 0xC000)

Instances = Mapping[Path, str]
"""File -> its SOP Instance UID."""


class UnreachableError(OSError):
    """The destination cannot take anything at the moment; the same will be tried again."""


class NotTakenError(ValueError):
    """The destination has refused some objects for good; the others have been taken."""


class TroubleError(NotTakenError):
    """It has refused some, for good or because it is in trouble itself."""


def deliver(peer: Peer, files: Sequence[Path], calling: str, taken: Callable[[list[str]], None]) -> None:
    """Send DICOM files as they are.

    Args:
        peer: where to.
        files: what to send.
        calling: own AE title.
        taken: called with the SOP Instance UIDs the destination has just acknowledged.

    Raises:
        UnreachableError: it does not answer, rejects the association, or is out of resources.
        NotTakenError: it refused some for good; :class:`TroubleError` where it may take them later.
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
        ValueError: it has none, or cannot be read, or is a CT or MR image that ends before its pixels.
    """
    header = read_header(file)
    lost = header is not None and modality_of(header) is not None and not header.has_pixels
    if header is None or header.broken or not header.sop_instance or lost:
        raise ValueError(f"{file.name} is damaged")
    return header.sop_instance


@contextmanager
def association(
    peer: DicomPeer, contexts: Iterable[tuple[str, Sequence[str]]], calling: str, *, handlers: Sequence[Any] = ()
) -> Iterator[Any]:
    """An association with a DICOM destination, over TLS where it is configured; released when the block ends.

    Args:
        peer: whom to call.
        contexts: SOP classes and transfer syntaxes to propose.
        calling: own AE title.
        handlers: as for ``pynetdicom.AE.associate``.

    Raises:
        UnreachableError: it does not answer or rejects the association, or breaks it.
        NotTakenError: it accepts none of the SOP classes.
    """
    pynetdicom = require("pynetdicom", "sending by C-STORE", INSTALL)
    mute("pynetdicom", "pydicom")  # in threads of its own, they quote what is sent and answered
    entity = pynetdicom.AE(ae_title=calling)
    entity.connection_timeout = CONNECT_SECONDS
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_SECONDS
    for sop_class, syntaxes in contexts:
        entity.add_requested_context(sop_class, list(syntaxes))
    context = client_context(peer)
    made = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        evt_handlers=list(handlers),
        tls_args=None if context is None else (context, peer.host),
    )
    if not made.is_established:
        if made.rejected_contexts:
            raise NotTakenError(f"{peer.name} accepts none of the SOP classes offered to it")
        raise UnreachableError(f"{peer.name} {'rejects the association' if made.is_rejected else 'does not answer'}")
    try:
        yield made
    finally:
        made.release()


def _c_store(peer: DicomPeer, files: Instances, calling: str, taken: Callable[[list[str]], None]) -> None:
    refused: list[int] = []
    with association(peer, _contexts(files), calling) as made:
        for file, uid in files.items():
            status = _send(made, file, peer)
            if status == 0 or status in _WARNINGS:
                taken([uid])
            elif status in _RESOURCES:
                raise UnreachableError(f"{peer.name} is out of resources ({status:04X})")
            else:
                refused.append(status)
    if refused:
        said = f"{peer.name} refused {len(refused)} of {len(files)} objects (status {refused[0]:04X})"
        raise refusal(said, refused)


def refusal(said: str, reasons: Iterable[int]) -> NotTakenError:
    """The error for statuses or Failure Reasons: a :class:`TroubleError` where one of them may pass."""
    return TroubleError(said) if any(reason in _TROUBLE for reason in reasons) else NotTakenError(said)


def _contexts(files: Iterable[Path]) -> list[tuple[str, tuple[str, ...]]]:
    """SOP class and transfer syntaxes to propose; a compressed one alone, or the peer might choose another for it."""
    headers = [header for file in files if (header := read_header(file))]
    kinds = {(one.sop_class, one.transfer_syntax) for one in headers}
    return sorted({(kind, UNCOMPRESSED if syntax in UNCOMPRESSED else (syntax,)) for kind, syntax in kinds})


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
    from monai_sasm.node.web import Web

    web = Web(peer)
    refused: list[int] = []
    for batch in _batches(files):
        refused += _store_batch(web, peer, {file: files[file] for file in batch}, taken)
    if refused:
        raise refusal(f"{peer.name} refused {len(refused)} of {len(files)} objects", refused)


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


def _store_batch(web: Web, peer: WebPeer, files: Instances, taken: Callable[[list[str]], None]) -> list[int]:
    """Send one request; the Failure Reason of each object that the server has refused, 0 where it gives none.

    An object is stored only where the server names it as stored. A login page, a proxy or a wrong address answers 200
    as well; what it says nothing of is sent again.
    """
    from monai_sasm.node.dicomweb import store

    try:
        said = store(web, list(files))
    except OSError as error:
        raise UnreachableError(f"{peer.name}: {error}") from error
    known = set(files.values())
    if stored := [uid for uid in files.values() if uid in said.taken]:
        taken(stored)
    failed = {uid: reason for uid, reason in said.failed.items() if uid in known - said.taken}
    if any(reason in _RESOURCES for reason in failed.values()):
        raise UnreachableError(f"{peer.name} is out of resources")
    untold = known - said.taken - set(failed)
    if not untold:
        return list(failed.values())
    if said.code in _OUTAGES or said.code >= 500:
        raise UnreachableError(f"{peer.name} answers HTTP {said.code}")
    if said.code >= 400 and not (said.taken or failed):  # a refusal of the whole request: because of which object?
        if len(files) == 1:
            return [0]
        return [reason for file, uid in files.items() for reason in _store_batch(web, peer, {file: uid}, taken)]
    raise UnreachableError(
        f"{peer.name} answers HTTP {said.code} and does not say that it has stored {len(untold)} of {len(files)} "
        "objects; check its address"
    )
