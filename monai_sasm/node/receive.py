"""The receiving side: C-ECHO and C-STORE from callers that are allowed; an object is acknowledged when it is on disk.

What the node has nothing to do with (reports, structure sets, objects of the scanner's maker, its own results) is
acknowledged and dropped: a PACS that routes whole studies would take the refusal of one object for a failure of all.
What only a look at the whole series tells is dropped later (localizers). What it should restore and cannot is
acknowledged and kept, and ends in quarantine.
"""

from __future__ import annotations

import logging
from collections import Counter
from threading import Lock
from typing import Any

from monai_sasm.io.dicom.header import Header
from monai_sasm.io.dicom.support import modality_of
from monai_sasm.io.silence import mute
from monai_sasm.node.arrivals import Arrivals
from monai_sasm.node.audit import Audit
from monai_sasm.node.commitment import SOP_CLASS, Commitments
from monai_sasm.node.config import ANYONE, INSTALL, DicomPeer, NodeConfig, plain_address
from monai_sasm.node.counters import Counters
from monai_sasm.node.spool import Spool
from monai_sasm.optional import require

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700  # PS3.7 annex C, PS3.4 table B.2-1
_STORAGE_SERVICE = "1.2.840.10008.4.2"
_STORAGE_CLASSES = "1.2.840.10008.5.1.4.1.1."
"""Begin of the UIDs of the standard's storage SOP classes, retired ones included."""

logger = logging.getLogger(__name__)


class Receiver:
    """A C-STORE and C-ECHO service that fills a spool; starts on construction.

    Args:
        config: address, AE title, callers, least free disk.
        spool: where objects go.
        arrivals: is told what came and which associations ended.
        counters: is told everything.
        audit: is told who sent what.
        commitments: is told the reports of storage commitment.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        config: NodeConfig,
        spool: Spool,
        arrivals: Arrivals,
        counters: Counters,
        audit: Audit | None = None,
        commitments: Commitments | None = None,
    ) -> None:
        pynetdicom = require("pynetdicom", "the DICOM node", INSTALL)
        mute("pynetdicom", "pydicom")  # in threads of its own, they quote what callers send
        self._config, self._spool, self._arrivals, self._counters = config, spool, arrivals, counters
        self._audit = audit or Audit(None)
        self._open: dict[int, Any] = {}
        self._brought: dict[int, Counter[tuple[str, str, str]]] = {}  # association -> series and number of objects
        self._lock = Lock()
        self._entity = entity = pynetdicom.AE(ae_title=config.ae_title)
        entity.require_called_aet = True
        for context in pynetdicom.AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
        entity.add_supported_context("1.2.840.10008.1.1")  # Verification
        event = pynetdicom.evt
        handlers = [
            (event.EVT_C_ECHO, self._echo),
            (event.EVT_C_STORE, self._store),
            (event.EVT_REQUESTED, self._requested),
            (event.EVT_SOP_COMMON, self._services),
            (event.EVT_RELEASED, self._ended, [False]),
            (event.EVT_ABORTED, self._ended, [True]),
            (event.EVT_REJECTED, self._rejected),
        ]
        committing = [peer for peer in config.destinations if isinstance(peer, DicomPeer) and peer.commit_seconds]
        if commitments is not None and committing:  # who reports is the SCP, whichever side opens the association
            entity.add_supported_context(SOP_CLASS, scu_role=True, scp_role=True)
            handlers.append((event.EVT_N_EVENT_REPORT, commitments.report))
        for peer in committing:
            if not any(allowed.ae_title in (ANYONE, peer.ae_title) for allowed in config.allow):
                logger.warning("%s may report storage commitment over an association of its own: allow it", peer.name)
        from monai_sasm.node.acceptor import listen
        from monai_sasm.node.tls import server_context

        try:
            self._server = listen(
                entity,
                (config.host, config.port),
                handlers,
                admits=self._admits_host,
                max_object_bytes=config.max_object_mb << 20,
                too_long=self._too_long,
                tls=server_context(config),
            )
        except OSError as error:
            raise OSError(f"port {config.port} of {config.host} cannot be listened on: {error.strerror}") from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Abort open associations and listen no more."""
        self._server.shutdown()
        self._entity.shutdown()

    def reap(self) -> None:
        """End the associations whose threads died without a word."""
        with self._lock:
            dead = [number for number, association in self._open.items() if not association.is_alive()]
        for number in dead:
            self._close(number, broken=True)

    def _echo(self, event: Any) -> int:
        return SUCCESS

    def _store(self, event: Any) -> int:
        try:
            if self._spool.free_mb() < self._config.min_free_mb:
                logger.error("an object was refused: less than %d MiB of disk are free", self._config.min_free_mb)
                self._counters.add("out_of_resources")
                return OUT_OF_RESOURCES
            return self._keep(event.encoded_dataset(), event.assoc)
        except OSError as error:
            logger.error("an object was refused: the spool cannot be written (%s)", error.strerror)
            self._counters.add("out_of_resources")
            return OUT_OF_RESOURCES

    def _keep(self, content: bytes, association: Any) -> int:
        with self._spool.draft(content) as draft:
            ignored = "ignored_own" if self._spool.made(draft.header) else _ignored(draft.header)
            if ignored:
                self._counters.add(ignored)
                return SUCCESS
            self._spool.keep(draft)
            with self._lock:
                self._open[id(association)] = association
                what = (draft.key, draft.header.study, draft.header.series)
                self._brought.setdefault(id(association), Counter())[what] += 1
            self._arrivals.arrived(draft.key, id(association))  # after it lies there, or nobody would come for it
        self._counters.add("received")
        return SUCCESS

    def _admits_host(self, host: str) -> bool:
        """Whether anybody at an address may send: nobody else is listened to."""
        if any(allowed.admits_host(host) for allowed in self._config.allow):
            return True
        host = plain_address(host)
        logger.warning("a connection from %s was closed; allow it by allow=['AE@%s']", host, host)
        self._counters.add("not_authorised")
        return False

    def _requested(self, event: Any) -> None:
        """An AE title is admitted from its own address only."""
        from monai_sasm.node.acceptor import reject

        caller = event.assoc.requestor
        title = str(caller.primitive.calling_ae_title).strip()
        if not any(allowed.admits(title, caller.address) for allowed in self._config.allow):
            caller.ae_title = caller.primitive.calling_ae_title
            self._rejected(event)
            reject(event.assoc)
            return
        acceptor, uncommon = event.assoc.acceptor, self._uncommon(event.assoc)
        acceptor.supported_contexts = [*acceptor.supported_contexts, *uncommon.values()]

    def _services(self, event: Any) -> dict[str, Any]:
        """Handle ``pynetdicom.evt.EVT_SOP_COMMON``: objects of uncommon classes are stored like all others."""
        from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation

        services = {}
        for sop_class in self._uncommon(event.assoc):
            services[sop_class] = item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid, item.service_class_uid = sop_class, _STORAGE_SERVICE
        return services

    def _uncommon(self, association: Any) -> dict[str, Any]:
        """SOP class -> presentation context, of private and retired classes that are proposed: nobody can list them."""
        import pynetdicom

        proposed = {one.abstract_syntax for one in association.requestor.primitive.presentation_context_definition_list}
        known = {one.abstract_syntax for one in self._entity.supported_contexts}
        return {
            sop_class: pynetdicom.build_context(sop_class, pynetdicom.ALL_TRANSFER_SYNTAXES)
            for sop_class in proposed - known
            if sop_class.is_private or sop_class.startswith(_STORAGE_CLASSES)
        }

    def _too_long(self) -> None:
        logger.error("an object of more than max_object_mb (%d MiB) was refused", self._config.max_object_mb)
        self._counters.add("too_large")

    def _rejected(self, event: Any) -> None:
        caller = event.assoc.requestor
        address = plain_address(caller.address)
        logger.warning("an association from %s at %s was rejected", str(caller.ae_title).strip(), address)
        self._counters.add("not_authorised")
        self._audit.note("rejected", caller=str(caller.ae_title).strip(), address=address)

    def _ended(self, event: Any, broken: bool) -> None:
        self._close(id(event.assoc), broken=broken)

    def _close(self, number: int, *, broken: bool) -> None:
        with self._lock:
            known = self._open.pop(number, None)
            brought = self._brought.pop(number, Counter())
        if known is not None:
            caller = known.requestor
            for (key, study, series), count in brought.items():
                self._audit.note(
                    "received",
                    series=key,
                    objects=count,
                    caller=str(caller.ae_title).strip(),
                    address=plain_address(caller.address),
                    broken=broken,
                    uids={"StudyInstanceUID": study, "SeriesInstanceUID": series},
                )
            self._arrivals.closed(number, broken=broken)


def _ignored(header: Header) -> str | None:
    """The counter of an object the node has nothing to do with; ``None`` where it has."""
    if header.derived_here:
        return "ignored_own"
    if header.broken is None and modality_of(header) is None:
        return "ignored_other"
    return None
