"""One restoration from start to end, in a thread of its own; what a user interface needs to know of it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from SASMLib.nifti import decode, encode
from SASMLib.server import NoAnswerYetError, Server, ServerError

_POLL = 0.3  # seconds between two questions for progress
_SAME_GRID = 1e-3  # mm; float32 rounding of the matrix is far below


class Restoration:
    """Sends a volume, waits for its restoration and fetches it.

    Args:
        server: where.
        model: name of a model of that server.
        voxels: ``(K, J, I)``, in HU for CT.
        ijk_to_ras: ``(4, 4)`` voxel index to RAS mm.
        strength: 0 returns the input, 1 the full restoration.
    """

    def __init__(
        self, server: Server, model: str, voxels: np.ndarray, ijk_to_ras: np.ndarray, strength: float = 1.0
    ) -> None:
        self.server, self.model = server, model
        self.parameters: dict[str, Any] = {"strength": float(strength)}
        self._voxels, self._ijk_to_ras = np.array(voxels), np.array(ijk_to_ras, dtype=float)
        self._restored: np.ndarray | None = None
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="SASM", daemon=True)
        self.state, self.progress, self.reason = "sending", 0.0, ""

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait so long for the end at most; whether it has come.

        A user interface calls this often and briefly: while its own code is not running, Slicer can hold Python's
        lock, and the thread stands still.
        """
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Ask for the end; the state becomes ``cancelled`` soon."""
        self._cancelled.set()

    @property
    def restored(self) -> np.ndarray:
        """``(K, J, I)`` float32 on the grid of the input, when the state is ``done``."""
        if self._restored is None:
            raise ValueError(f"a restoration has a result when it is done; this one is {self.state}")
        return self._restored

    @property
    def change(self) -> np.ndarray:
        """Restored minus input, ``(K, J, I)`` float32, in the unit of the volume."""
        return self.restored - self._voxels.astype(np.float32)

    def _run(self) -> None:
        try:
            self._finish(self.server.start(self.model, encode(self._voxels, self._ijk_to_ras), self.parameters))
        except Exception as error:  # whatever it is: a thread that ends without a word would be waited for
            known = isinstance(error, (ServerError, ValueError))
            self.reason, self.state = str(error) if known else f"{type(error).__name__}: {error}", "failed"

    def _finish(self, job: str) -> None:
        while True:
            if self._cancelled.is_set():
                self._give_up(job)
                return
            try:
                answer = self.server.state(self.model, job)
            except NoAnswerYetError:  # MONAI Label answers nobody while it works on a request of another kind of client
                self.state = "waiting"
                continue
            self.progress = answer["progress"]
            if answer["state"] == "done":
                break
            if answer["state"] in ("failed", "cancelled"):
                self.reason, self.state = answer.get("reason", ""), answer["state"]
                return
            self.state = answer["state"]
            self._cancelled.wait(_POLL)
        self.state = "receiving"  # from here on it is sooner done than cancelled
        voxels, ijk_to_ras = decode(self.server.take(self.model, job))
        if voxels.shape != self._voxels.shape or np.abs(ijk_to_ras - self._ijk_to_ras).max() > _SAME_GRID:
            raise ValueError("the server's answer lies on another grid than the volume; it is not shown")
        self._restored = voxels.astype(np.float32)
        self.state = "done"

    def _give_up(self, job: str) -> None:
        self.state = "cancelled"
        try:
            self.server.cancel(self.model, job)
        except ServerError as error:
            self.reason = f"cancelled here; the server was not told: {error}"


def change_window(change: np.ndarray) -> float:
    """Width of a window around 0 that shows all but the largest half percent of changes; at least a trace."""
    sample = np.abs(change.ravel()[:: max(1, change.size // 1_000_000)])
    return max(2 * float(np.percentile(sample, 99.5)), 1e-6)
