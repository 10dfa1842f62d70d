"""``sasm view`` in a cell of a notebook whose kernel and browser are on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import weakref
from html import escape
from pathlib import Path

from monai_sasm.types import Modality


class View:
    """Images before and after in a frame; the server behind it ends with the kernel, or by :meth:`close`.

    Args:
        source: file or folder.
        output: folder of what is saved.
        modality: what NIfTI files are: ``"CT"`` or ``"MR"``.
        height: of the frame, pixels.

    Raises:
        FileNotFoundError: there is no such file or folder.
        RuntimeError: the server did not start; the message says why.

    Example:
        >>> View("scans/")  # as the last line of a cell  # doctest: +SKIP
    """

    def __init__(
        self,
        source: Path | str,
        *,
        output: Path | str = "restored",
        modality: Modality | str | None = None,
        height: int = 720,
    ) -> None:
        if not Path(source).exists():
            raise FileNotFoundError(f"{source} does not exist; check the path")
        command = [sys.executable, "-m", "monai_sasm.cli.main", "view", str(source), "-o", str(output)]
        command += ["--no-open", "--notebook", *(["--modality", Modality(modality).value] if modality else [])]
        told = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would be full one day
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # open as long as the kernel lives, however it ends
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            start_new_session=True,  # or interrupting a cell would end it, too
        )
        assert process.stdout is not None
        self.height, self.address = height, process.stdout.readline().strip()
        """Of the page, with its token: whoever has it sees the images."""
        self._end = weakref.finalize(self, _end, process)
        if not self.address:
            process.wait(timeout=60)
            told.seek(0)
            raise RuntimeError(f"sasm view did not start: {told.read().decode(errors='replace').strip()[-500:]}")

    def _repr_html_(self) -> str:
        return f'<iframe src="{escape(self.address)}" width="100%" height="{self.height}" style="border:0"></iframe>'

    def close(self) -> None:
        """End the server."""
        self._end()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=60)
