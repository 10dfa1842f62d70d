"""Storage commitment, PS3.4 annex J: a destination that has taken objects is asked to say that it will keep them.

The node asks by N-ACTION for all objects of a job. The answer, an N-EVENT-REPORT, comes over the same association or,
sooner or later, over one that the destination opens to the node; a transaction UID says what it is about.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Event, Lock
from typing import Any

from monai_sasm.io.dicom.header import read_header
from monai_sasm.node.config import INSTALL, DicomPeer
from monai_sasm.node.deliver import UNCOMPRESSED, NotTakenError, UnreachableError, association, refusal
from monai_sasm.optional import require

SOP_CLASS, SOP_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
HOLD_SECONDS = 2.0
"""So long the association is kept open for a report; later ones come over an association of the destination's."""
_SUCCESS, _FAILURE = 0x0000, 0x0110  # PS3.7 annex C
_REQUEST = 1  # action type ID, PS3.4 table J.3.2-1

logger = logging.getLogger(__name__)


class Transaction:
    """One question, and what was answered.

    Args:
        uid: its Transaction UID.
        seconds: to wait for the report.
    """

    def __init__(self, uid: str, seconds: float) -> None:
        self.uid, self.seconds = uid, seconds
        self.reported = Event()
        self.committed: frozenset[str] = frozenset()
        """SOP Instance UIDs of what will be kept."""
        self.reasons: tuple[int, ...] = ()
        """Failure Reasons, PS3.3 section C.14.1.1."""
        self._end = time.monotonic() + seconds

    @property
    def ended(self) -> bool:
        """Whether it was answered, or nobody waits any longer."""
        return self.reported.is_set() or time.monotonic() > self._end


class Commitments:
    """Transactions that are under way, for all destinations; from several threads."""

    def __init__(self) -> None:
        self._open: dict[str, Transaction] = {}
        self._lock = Lock()

    def begin(self, seconds: float) -> Transaction:
        """A transaction nobody has asked about yet."""
        from pydicom.uid import generate_uid

        transaction = Transaction(str(generate_uid()), seconds)
        with self._lock:
            self._open[transaction.uid] = transaction
        return transaction

    def forget(self, transaction: Transaction) -> None:
        """Whatever is still said of it is acknowledged, and changes nothing."""
        with self._lock:
            self._open.pop(transaction.uid, None)

    def report(self, event: Any) -> tuple[int, None]:
        """Handle ``pynetdicom.evt.EVT_N_EVENT_REPORT``; the first report of a transaction counts.

        Only what a report names as committed is; objects it says nothing of are not.
        """
        try:
            told = event.event_information
            uid, kept, lost = str(told.TransactionUID), _uids(told, "Referenced"), _uids(told, "Failed")
            reasons = tuple(int(item.get("FailureReason", 0)) for item in told.get("FailedSOPSequence", ()))
        except Exception as error:  # whatever pydicom makes of bytes that are no report
            logger.warning("a report of storage commitment cannot be read (%s)", type(error).__name__)
            return _FAILURE, None
        with self._lock:
            transaction = self._open.pop(uid, None)
        if transaction is None:
            logger.info("a report of storage commitment came that nobody waits for")
        else:
            transaction.committed, transaction.reasons = frozenset(kept - lost), reasons
            transaction.reported.set()
        return _SUCCESS, None


def ask(peer: DicomPeer, files: Iterable[Path], calling: str, *, commitments: Commitments) -> Transaction:
    """Ask a destination to commit to the storage of objects it has taken.

    Args:
        peer: with ``commit_seconds``.
        files: the objects.
        calling: own AE title.
        commitments: is told the report, whichever way it comes.

    Returns:
        The transaction; it may have been reported already.

    Raises:
        UnreachableError: the destination does not answer or rejects the association.
        NotTakenError: it does not offer storage commitment, or refuses it.
    """
    from pydicom.dataset import Dataset

    assert peer.commit_seconds is not None
    evt = require("pynetdicom", "storage commitment", INSTALL).evt
    transaction = commitments.begin(peer.commit_seconds)
    request = Dataset()
    request.TransactionUID = transaction.uid
    request.ReferencedSOPSequence = [_reference(file) for file in files]
    handlers = [(evt.EVT_N_EVENT_REPORT, commitments.report)]
    try:
        with association(peer, [(SOP_CLASS, UNCOMPRESSED)], calling, handlers=handlers) as made:
            try:
                status, _ = made.send_n_action(request, _REQUEST, SOP_CLASS, SOP_INSTANCE)
            except RuntimeError:  # the association has been aborted
                status = Dataset()
            if "Status" not in status:
                raise UnreachableError(f"{peer.name} broke the association")
            if status.Status != _SUCCESS:
                said = f"{peer.name} refuses storage commitment (status {status.Status:04X})"
                raise refusal(said, [int(status.Status)])
            transaction.reported.wait(HOLD_SECONDS)
    except BaseException:
        commitments.forget(transaction)
        raise
    return transaction


def check(transaction: Transaction, peer: DicomPeer, uids: Mapping[Path, str]) -> None:
    """See that a transaction that has ended committed to all objects.

    Raises:
        NotTakenError: it did not, or was not answered in time.
    """
    if not transaction.reported.is_set():
        raise NotTakenError(f"{peer.name} has not reported storage commitment within {transaction.seconds:g} s")
    lost = set(uids.values()) - transaction.committed
    if lost:
        reasons = ", ".join(f"{reason:04X}" for reason in sorted(set(transaction.reasons))) or "not told"
        said = f"{peer.name} commits to {len(uids) - len(lost)} of {len(uids)} objects (reason {reasons})"
        raise refusal(said, transaction.reasons)


def _reference(file: Path) -> Any:
    from pydicom.dataset import Dataset

    header = read_header(file)
    assert header is not None  # it has just been sent
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.sop_class, header.sop_instance
    return item


def _uids(told: Any, kind: str) -> set[str]:
    return {str(item.ReferencedSOPInstanceUID) for item in told.get(f"{kind}SOPSequence", ())}
