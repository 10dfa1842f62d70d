"""With which settings a file of kept pairs was made: a run that has others is told that they have no effect."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def digests(**settings: Any) -> str:
    """JSON of a digest for each setting, to be kept beside the pairs: names of folders and patients stay out of it."""
    texts = {name: json.dumps(value, default=_plain, sort_keys=True) for name, value in settings.items()}
    return json.dumps({name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()})


def warn_of_others(file: Path, kept: str, wanted: str) -> None:
    """Log which settings are not those that ``file`` was made with; both as :func:`digests` gives them."""
    before, now = json.loads(kept), json.loads(wanted)
    differing = [name for name in now if name in before and before[name] != now[name]]
    if differing:
        logger.warning(
            "%s was made with other settings (%s) and is used as it is: delete it to make it anew",
            file,
            ", ".join(differing),
        )


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
