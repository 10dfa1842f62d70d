"""Text beyond ASCII, written byte for byte as its source has it.

pydicom decodes text by Specific Character Set (PS3.3 C.12.1.1.2) and encodes it anew. Where the bytes are in another
one, as of scanners that write Latin-1 and say UTF-8, all that it cannot decode becomes one sign: ``MÜLL`` and ``MÖLL``
would be one patient.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

_REPRESENTATIONS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # those that the character set is for, PS3.5 6.1.2.2
_ESCAPE = b"\x1b"  # begins a change of the character set, PS3.5 6.1.2.5.3


@dataclass(frozen=True)
class SourceText:
    """An attribute of a source, its value as decoded, and the bytes that it was decoded from."""

    dataset: Dataset
    element: DataElement
    value: object
    written: bytes


def source_texts(dataset: Dataset) -> list[SourceText]:
    """All text beyond ASCII, at every depth.

    Call it before anything else looks at the data set, for pydicom forgets the bytes of what it has decoded; and inside
    :func:`monai_sasm.io.silence.quiet`.
    """
    found = []
    for tag in list(dataset.keys()):
        try:
            raw = dataset.get_item(tag)
            element = dataset[tag]
            if element.VR == "SQ":
                found += [text for item in element.value for text in source_texts(item)]
            elif element.VR in _REPRESENTATIONS and isinstance(raw, RawDataElement) and _is_beyond_ascii(raw.value):
                found.append(SourceText(dataset, element, element.value, raw.value))
        except Exception:  # damaged; it is dropped, or stops the writer with a reason
            continue
    return found


def _is_beyond_ascii(text: bytes | None) -> bool:
    return text is not None and (not text.isascii() or _ESCAPE in text)


def put_back(texts: list[SourceText]) -> None:
    """Give what was not changed since :func:`source_texts` its bytes again."""
    for text in texts:
        element = text.element
        if text.dataset.get_item(element.tag) is element and element.value is text.value:
            value = PersonName(text.written) if element.VR == "PN" else text.written
            text.dataset[element.tag] = DataElement(element.tag, element.VR, value, already_converted=True)
