"""Which DICOM objects this package restores, and in which words it refuses the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite

import numpy as np

from monai_sasm.io import meaning
from monai_sasm.io.dicom.header import Header, pixel_bytes
from monai_sasm.io.dicom.pixels import missing_decoder
from monai_sasm.io.dicom.values import quotable, uid_of
from monai_sasm.types import DicomProfile, Modality

MAX_COMPRESSION = 1000
"""Announced pixel bytes per byte of file above which a compressed file is taken for a decompression bomb."""

_SCOUT = re.compile(r"lo[ck]ali[sz]|scout|survey|(\b|_)(3|three|tri)[ _-]?pl(anes?)?(\b|_)", re.IGNORECASE)
_PARALLEL = 0.9  # cosine between normals of slices of one stack, and more

_LARGEST = 1e12  # slope or intercept, beyond which float32 holds no values
_NO_PIXELS = "the file holds no pixel data; get a complete copy of the file"
_NO_PLACE = "no usable Image Position, Image Orientation or Pixel Spacing, so its place is unknown; use NIfTI"
_NO_STEP = "Pixel Spacing is not positive; correct the header"
_DIRECTORY = "1.2.840.10008.1.3.10"
_COLOUR_CAPTURE = "it holds {what}, no CT or MR values; export the original series from the scanner or PACS"


def modality_of(header: Header) -> Modality | None:
    """CT, MR, ... by SOP class (or, where that is absent, by the Modality attribute); ``None`` for everything else."""
    if not header.sop_class:
        return next((modality for modality, _ in _read() if header.modality == modality), None)
    return next((one for one, dicom in _read() if header.sop_class in (dicom.sop_class, *dicom.enhanced)), None)


def is_enhanced(header: Header) -> bool:
    """Whether it is an object of many frames: Enhanced, or Legacy Converted Enhanced."""
    return any(header.sop_class in dicom.enhanced for _, dicom in _read())


def _read() -> list[tuple[Modality, DicomProfile]]:
    return [(one, one.profile.dicom) for one in Modality.known() if one.profile.dicom is not None]


def is_directory(header: Header | None) -> bool:
    """Whether it is the DICOMDIR of a disc, which lists other files: no object that can be stored."""
    return header is not None and header.sop_class == _DIRECTORY


def refusal_of(header: Header) -> str | None:
    """Why this one file cannot be restored, with the way out; ``None`` when it can."""
    if header.broken:
        return f"{header.broken}; get an intact copy of the file"
    return _not_an_image(header) or _not_grey(header) or _wrong_meaning(header) or _unreadable_pixels(header)


def is_damaged(header: Header) -> bool:
    """A file that cannot be read, or a CT or MR file that ends before its pixels or lost a part of its place."""
    if header.broken is not None or not (header.sop_class or header.modality):
        return True
    place = (header.position, header.orientation, header.spacing)
    lost = any(place) and not all(place) and not is_enhanced(header)  # a screen capture has none of them
    return modality_of(header) is not None and (lost or not header.has_pixels)


def is_unreadable(header: Header, reason: str) -> bool:
    """Whether a reason of :func:`refusal_of` means that the file could not be read, not that it is none to restore."""
    if header.broken is not None or not (header.sop_class or header.modality):
        return True
    lost = _NO_PLACE if is_damaged(header) else None
    wrong = rescale_refusal(header.slope, header.intercept), _unreadable_pixels(header)
    return reason in (_NO_PIXELS, _NO_STEP, lost, *wrong)


def _not_an_image(header: Header) -> str | None:
    if is_directory(header):
        return "a DICOMDIR only lists other files; they are looked at themselves"
    if modality_of(header) is None:
        kind = _kind(header.sop_class)
        colour = f"{_photometric(header) or 'grey'} pixels of a screen capture or map"
        if "Secondary Capture" in kind:
            return f"{kind}: " + _COLOUR_CAPTURE.format(what=colour)
        return f"{kind} is not restored; only {' and '.join(one for one, _ in _read())} images are"
    if header.modality and header.modality != modality_of(header):
        return f"Modality {quotable(header.modality)} contradicts the SOP class; correct the header"
    if not header.has_pixels:
        return _NO_PIXELS
    return None


def _kind(sop_class: str) -> str:
    if not sop_class:
        return "an object without SOP Class UID"
    uid = uid_of(sop_class)
    return uid.name if uid.name != uid else "an object of unknown SOP class"


def _photometric(header: Header) -> str:
    return header.photometric and quotable(header.photometric)


def _not_grey(header: Header) -> str | None:
    if header.samples != 1 or header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return _COLOUR_CAPTURE.format(what=f"{_photometric(header) or 'colour'} pixels")
    if header.photometric == "MONOCHROME1":
        return "MONOCHROME1 (inverted grey) has no agreed meaning for CT and MR values; convert it to MONOCHROME2"
    if header.has_float_pixels:
        return "floating point pixels cannot be written back to a CT or MR series; convert it to NIfTI"
    if header.bits_allocated not in (8, 16) or not 1 <= header.bits_stored <= header.bits_allocated:
        return f"{header.bits_stored} of {header.bits_allocated} bits a pixel; only 8 and 16 allocated are supported"
    if header.high_bit != header.bits_stored - 1:
        return f"High Bit {header.high_bit} with {header.bits_stored} Bits Stored is retired packing; re-encode it"
    return None


def _wrong_meaning(header: Header) -> str | None:
    if "LOCALIZER" in header.image_type[2:]:
        return "a localizer (scout) is no slice of the volume; it is left as it is"
    if header.has_modality_lut:
        return "its values go through a Modality LUT Sequence instead of a linear rescale; export it with Rescale Slope"
    if header.frames > 1 and not is_enhanced(header):
        return "several frames in a single-frame SOP class; export it as Enhanced or as single slices"
    if is_enhanced(header):
        return None  # position and rescale live in the functional groups
    if not all((header.position, header.orientation, header.spacing)):
        return _NO_PLACE
    if min(header.spacing or (0,)) <= 0:
        return _NO_STEP
    return rescale_refusal(header.slope, header.intercept)


def scout_refusal(header: Header, orientations: Sequence[Sequence[float]]) -> str | None:
    """Why a series is left as it is that plans other scans by its description and protocol, and shows several planes.

    Scanners seldom say so of MR in its Image Type.

    Args:
        header: of any file of the series.
        orientations: direction cosines of the rows and columns of all slices.
    """
    if not (_SCOUT.search(header.description) or _SCOUT.search(header.protocol)):
        return None
    cosines = np.array(orientations, np.float64).reshape(-1, 2, 3)
    normals = np.cross(cosines[:, 0], cosines[:, 1])
    if not (np.abs(normals @ normals[0]) < _PARALLEL).any():
        return None
    return "a localizer (scout) by its description, with slices in several planes; it is left as it is"


def doubt_of(
    header: Header,
    image_type: Sequence[str] = (),
    component: str = "",
    units: Sequence[str] = (),
    rescale_type: str | None = None,
) -> str | None:
    """Why the pixels of a file, or of one frame, are not what they should be (phase, a map, ...); ``None`` if they are.

    Whoever knows better may overrule it.

    Args:
        header: of the file.
        image_type, component, units, rescale_type: of the frame, where they are its own.
    """
    modality, derived = modality_of(header), header.image_type[:1] == ("DERIVED",)
    component = component or header.component
    mosaic = meaning.MOSAIC if component == "MOSAIC" else None
    told = (
        (meaning.by_image_type(image_type or header.image_type, modality), "Image Type"),
        (mosaic or meaning.by_component(component), "Complex Image Component or private attributes"),
        (next(filter(None, map(meaning.by_unit, units or header.units)), None), "Real World Value Mapping"),
        (meaning.by_text(header.texts, derived), "description"),
    )
    found = next((meaning.refusal(what, by, modality) for what, by in told if what), None)
    return found or _another_unit(modality, header.rescale_type if rescale_type is None else rescale_type)


def rescale_refusal(slope: float, intercept: float) -> str | None:
    """Why stored values cannot be scaled by ``stored * slope + intercept``; ``None`` when they can."""
    if not isfinite(slope) or not isfinite(intercept) or slope == 0 or max(abs(slope), abs(intercept)) > _LARGEST:
        return f"Rescale Slope {slope} and Intercept {intercept} are no usable rescale; correct the header"
    return None


def _another_unit(modality: Modality | None, rescale_type: str) -> str | None:
    """Why scaled values are not HU or MR magnitude."""
    if modality is None or not modality.profile.dicom:
        return None
    profile, types = modality.profile, modality.profile.dicom.rescale_types
    if types and rescale_type not in types:
        kind = f"Rescale Type {quotable(rescale_type)}"
        return f"{kind}: values that are not {profile.quantity}; restore the {modality} series"
    return None


def _unreadable_pixels(header: Header) -> str | None:
    if header.rows <= 0 or header.columns <= 0:
        return "Rows or Columns are missing; get a complete copy of the file"
    missing = missing_decoder(header.transfer_syntax)
    if missing:
        return missing
    compressed = uid_of(header.transfer_syntax).is_compressed
    if compressed and pixel_bytes(header) > MAX_COMPRESSION * max(header.size, 1):
        return f"it claims {pixel_bytes(header)} pixel bytes from {header.size} bytes of file: a decompression bomb"
    return None
