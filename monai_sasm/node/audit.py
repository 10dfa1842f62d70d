"""The audit trail: who sent what and what became of it, one JSON object a line, in files that follow each other.

Series go by the hash that names them in the spool, which says nothing of the patient; with ``identify``, the UIDs of
study and series are beside it.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from monai_sasm.io.nofollow import open_regular

BYTES, FILES = 10 << 20, 20
"""Of one file; and how many are kept."""

logger = logging.getLogger(__name__)


class Audit:
    """Appends to a file that only its owner can read.

    Args:
        path: of the newest file; older ones end with a number. ``None`` writes nothing.
        identify: write UIDs, which name the patient to whoever has the archive.

    Raises:
        RefusedError: the file is a link.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path | None, *, identify: bool = False) -> None:
        self.identify = identify
        self._handler: RotatingFileHandler | None = None
        if path is not None:
            try:
                self._handler = _PrivateFiles(path, maxBytes=BYTES, backupCount=FILES, encoding="utf-8")
            except OSError as error:
                raise OSError(
                    f"audit: {path} cannot be written: {error.strerror}; make its folder, or name another file"
                ) from error

    def note(self, event: str, *, uids: dict[str, str] | None = None, **what: Any) -> None:
        """Write one line: the time, the event, and what it was about; ``uids`` only where they were asked for."""
        if self._handler is None:
            return
        row = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event, **what}
        row |= uids or {} if self.identify else {}
        line = json.dumps(row, default=str)
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()


class _PrivateFiles(RotatingFileHandler):
    def _open(self) -> Any:
        return os.fdopen(
            open_regular(Path(self.baseFilename), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8"
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk must not end the work; whoever watches the log is told."""
        logger.error("the audit trail cannot be written")
