"""How an image was acquired, as far as its file says it: what an operating range and a report on a scanner ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Acquisition:
    """Facts about scanner and protocol; none about the patient. Empty or ``None`` where the file does not say it.

    Args:
        scanner: manufacturer and model.
        kernel: of the reconstruction, CT.
        body_part: as DICOM spells it: ``CHEST``, ``HEAD``, ...
        thickness: nominal thickness of a slice, mm.
        kilovolts: of the tube, CT.
        exposure: of a slice, mAs, CT.
        dose: volume CT dose index, mGy.
        tesla: field strength, MR.
        echo: echo time, ms, MR.
        repetition: repetition time, ms, MR.
    """

    scanner: str = ""
    kernel: str = ""
    body_part: str = ""
    thickness: float | None = None
    kilovolts: float | None = None
    exposure: float | None = None
    dose: float | None = None
    tesla: float | None = None
    echo: float | None = None
    repetition: float | None = None
