"""What holds for reading and giving back any input whatsoever: an image or a reason, soon, and nobody is named."""

from __future__ import annotations

import logging
import re
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from monai_sasm.errors import RefusedError, reason_of
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import inventory, output_path, write
from monai_sasm.io.volume import Source
from tests.hostile import structured

SECONDS = 10
SECRETS = re.compile(r"SECRET|Jane|19700101|(?<![\d.])(?!1\.2\.840\.10008\.)\d+(?:\.\d+){5,}")
_DERIVATION = Derivation("monai_sasm", "1.0", {"toy": "0" * 64})


def faults_of(seed: int) -> list[str]:
    """What is wrong with how the input of a seed is read and written back; empty where all is well."""
    kind, files = structured.case(seed)
    started = time.process_time()  # however busy the machine is
    with tempfile.TemporaryDirectory() as folder, _Listening() as heard:
        source = Path(folder) / "in"
        structured.write(files, source)
        faults = _faults(source, Path(folder) / "out", heard.messages)
    seconds = time.process_time() - started
    if seconds > SECONDS:
        faults.append(f"{seconds:.0f} s")
    return [f"seed {seed} ({kind}): {fault}" for fault in faults]


def _faults(source: Path, output: Path, told: list[str]) -> list[str]:
    faults = []
    try:
        entries = inventory(source)
    except Exception as error:
        return [f"the inventory raised {error!r}"]
    met = {path for entry in entries for path in entry.paths}
    faults += [f"{file.name} was lost" for file in source.iterdir() if file not in met]
    for entry in entries:
        if entry.refusal is not None:
            told.append(entry.refusal)
            continue
        try:
            volume = entry.load()
            told += volume.notes
            if isinstance(volume.source, Source):
                acquired = volume.source.acquisition()
                told += acquired.kernel, acquired.body_part
            if not np.isfinite(volume.array).all():
                faults.append("values that are not finite")
            if volume.affine is not None and not np.isfinite(volume.affine).all():
                faults.append("an affine that is not finite")
            write(volume, output_path(entry, source, output), _DERIVATION)
        except RefusedError as error:
            told.append(str(error))
        except Exception as error:
            reason = reason_of(error)
            told.append(reason)
            if reason.startswith(("unforeseen", "not enough memory")) or not isinstance(error, (ValueError, OSError)):
                faults.append(f"{type(error).__name__} without a reason: {error}")
            elif type(error) is not ValueError or "RefusedError" in reason:
                faults.append(f"raw {type(error).__name__}: {error}")
    return faults + [f"names somebody: {text}" for text in told if SECRETS.search(text)]


class _Listening(logging.Handler):
    """Collects what the package logs; warnings of other libraries are errors, for they quote."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> _Listening:
        logging.getLogger("monai_sasm").addHandler(self)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", UserWarning)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("monai_sasm").removeHandler(self)
        self._warnings.__exit__(None, None, None)
