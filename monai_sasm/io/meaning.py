"""What the pixels of an image stand for, by what headers and sidecars say: phase, maps and mosaics are no images.

Scanners store parameter maps, phase and subtractions under the same SOP classes as images. Restored as if they were
images they come out plausible and wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai_sasm.types import Modality

LONGEST_TEXT = 10_240
"""Characters of a text of a header or a sidecar that are looked through: as many as Long Text has (PS3.5 6.2)."""
_MOST_VALUES = 64  # of Image Type that are looked at; scanners write a dozen

MOSAIC = "a mosaic of slices"
LABELS = "a label map or mask"

_PERFUSION = (
    r"(R|REL)?CB[FV]( .*|CORR)?|(REL)?MTT|TTP|T ?MAX|TT[DS]|PB[FPV]|GBP|K ?TRANS|KEP|V[EP]|IAUGC?|PERMEABILITY"
    r"|PERFUSION .+|WASH ?(IN|OUT)"
)
IMAGE_TYPES = {  # what it is -> values of Image Type (PS3.3 C.7.6.1.1.2, C.8.13.3.1, and vendors' own), "_" as a space
    Modality.MR: {
        "phase": r"P( [A-Z0-9]+)?|PHASE( .+)?|VELOCITY MAP",
        "the real part of a complex image": r"R( [A-Z]+)?|REAL",
        "the imaginary part of a complex image": r"I( [A-Z]+)?|IMAG(INARY)?",
        "a subtraction": r"SUB(TRACT(ION|ED)?)?",
        "a parameter map": (
            r"E?ADC|FA|RA|COL ?FA|.*MAP|B[01]|EXP ?ADC|TENSOR|R[12]|R2 ?(STAR|\*)|T2 ?STAR ?MAP|STIFFNESS|ELASTOGRAM"
            r"|UNI([ -].+)?"  # of MP2RAGE, a ratio of two images
            r"|FAT FRACTION|FF|PDFF|STD ?DEV(IATION)?|METABOLITE MAP|" + _PERFUSION
        ),
    },
    Modality.CT: {
        "a subtraction": r"SUBTRACT(ION|ED)?",
        "a parameter map": (
            r"(.+ )?IODINE( .+)?|Z ?EFF(ECTIVE)?|EFF ATOMIC NUM|ELECTRON DENSITY|MAT (SPECIFIC|FRACTIONAL|VALUE BASED)"
            r"|MATERIAL .+|URIC ACID|.*MAP|" + _PERFUSION
        ),
    },
}
_FLAVOURS = r"PERFUSION|DIFFUSION ANISO|VELOCITY|PROCESSED"  # of derived images; an original one is of that technique
_CONTRASTS = r"T1|T2|T2 ?STAR|T2\*|RHO"  # as fourth value a map; as third the weighting of an image
_MOSAICS = r"MOSAIC|VFRAME"  # Siemens, United Imaging

_COMPONENTS = {
    "PHASE": "phase",
    "REAL": "the real part of a complex image",
    "IMAGINARY": "the imaginary part of a complex image",
}
_PLAIN_UNITS = (
    r"|1|\{1\}|\{?no ?units\}?|normali[sz]ed|\[hnsf'?u\]|hu"  # of Hounsfield units, and of numbers without unit
    r"|arb(itrary)?|\[arb'u\]|\{?counts\}?|us|unspecified"
)

_OTHER_PHASES = re.compile(  # of contrast, of fat and water, of motion, and counted ones
    r"\b(in|out( of)?|opp(osed)?|(portal )?venous|portal|arterial|hepatic|parenchymal|pancreatic|nephro(graphic|genic)"
    r"|excretory|urographic|cortico ?medullary|hepato ?biliary|equilibrium|transitional|contrast|native|early|late"
    r"|delayed|dynamic|cardiac|respiratory|diastolic|systolic|end|expiratory|inspiratory|multi|all|\d+ ?%?) phase\b"
)
_TEXTS = {  # in descriptions, whatever the rest of the header says
    "phase": r"\bphase (map|image)s?\b|\b(relative|unwrapped) phase\b",
    "a parameter map": (
        r"\bapparent diffusion coeff|\bfractional anisotropy\b|\bmm2/s\b|\biodine (map|density|concentration)\b"
        r"|\buni (den|images?)\b|\bmp2rage\b.* uni\b|\b(adc|b0|b1) ?map\b|\beffective (z|atomic)\b"
    ),
}
_DERIVED_TEXTS = {  # in descriptions of derived images; elsewhere the same letters are techniques, such as flip angles
    "a subtraction": r"\bsubtract(ion|ed)\b",
    "a parameter map": (
        r"\b(e?adc|fa|r?cb[fv]|mtt|ttp|tmax|k ?trans|pdff|iodine|z ?eff|r2\*)\b|\b(fat fraction|stiffness)\b"
        r"|\b(t1|t2\*?) ?map\b"
    ),
}


_PROJECTIONS = (  # values of Image Type and of Volume Based Calculation Technique (0008,9207), "_" as a space
    r"(.* )?(MIP|MIN ?IP|MPIP|MAX ?IP|MEAN ?IP|AVE?R?A?G?E? ?IP|AIP|RAY ?SUM)( .*)?|PROJECTION IMAGE"
    r"|.*INTENSITY PROJECTION.*|AVERAGE|AVG|MEAN|MAXIMUM|MINIMUM"
)
_PROJECTION_TEXTS = (
    r"\b(?<!for )(t?mips?|(min|max|mean|ave?r?a?g?e?) ?ips?|aips?|ray ?sums?)\b|\bintensity projections?\b"
)


def _token(value: str) -> str:
    """A value of Image Type for the patterns above, on one line: over several they would take squares of its length."""
    return " ".join(value[:LONGEST_TEXT].upper().replace("_", " ").split())


def _plain(text: str) -> str:
    """A description in lower case, with spaces for its punctuation."""
    return re.sub(r"[_\-.,;:()]+", " ", text[:LONGEST_TEXT].lower())


def by_image_type(values: Sequence[str], modality: Modality | None) -> str | None:
    """What an Image Type or Frame Type says that its pixels are; ``None`` for an image."""
    tokens = [_token(value) for value in values[:_MOST_VALUES]]
    derived = tokens[:1] == ["DERIVED"]
    for place, token in enumerate(tokens[2:], 2):
        if re.fullmatch(_MOSAICS, token):
            return MOSAIC
        for what, pattern in IMAGE_TYPES.get(modality, {}).items() if modality else ():
            if re.fullmatch(pattern, token):
                return what
        if (derived and re.fullmatch(_FLAVOURS, token)) or (place >= 3 and re.fullmatch(_CONTRASTS, token)):
            return "a parameter map"
    return None


def by_component(component: str) -> str | None:
    """What a Complex Image Component says that the pixels are; ``None`` for magnitude, or a mixture."""
    return _COMPONENTS.get(component[:LONGEST_TEXT].strip().upper())


def by_unit(unit: str) -> str | None:
    """The same by the unit (UCUM) that values are mapped to; magnitude and HU need no mapping."""
    text = unit[:LONGEST_TEXT].strip().lower()
    if re.fullmatch(_PLAIN_UNITS, text):
        return None
    return "phase" if text in ("rad", "radian", "radians", "deg") else "a parameter map"


def by_text(text: str, derived: bool) -> str | None:
    """The same by a free description."""
    plain = _OTHER_PHASES.sub(" ", _plain(text))
    tables = (_TEXTS, _DERIVED_TEXTS) if derived else (_TEXTS,)
    found = (what for table in tables for what, pattern in table.items() if re.search(pattern, plain))
    return next(found, None)


def projection_note(values: Sequence[str], technique: str = "", text: str = "") -> str | None:
    """What to know about maximum, minimum and mean intensity projections, which are images; ``None`` for slices.

    Args:
        values: of Image Type or Frame Type.
        technique: Volume Based Calculation Technique.
        text: free description; original images, thin ones "for MIP", are not told by it.
    """
    tokens = [_token(value) for value in values[:_MOST_VALUES]]
    plain = _plain(text)
    if any(re.fullmatch(_PROJECTIONS, token) for token in (*tokens[2:], _token(technique))):
        by = "Image Type"
    elif any(tokens) and tokens[:2] != ["ORIGINAL", "PRIMARY"] and re.search(_PROJECTION_TEXTS, plain):
        by = "description"
    else:
        return None
    return (
        f"an intensity projection (MIP, minIP, average) by its {by}: its noise is not that of a slice, which is what "
        "experts were trained on; better restore the slices and project those"
    )


def refusal(what: str, by: str, modality: Modality | None) -> str:
    """Why pixels of another meaning are not restored, with the way out.

    Args:
        what: from the functions above.
        by: what says so, for example ``"Image Type"``.
        modality: of the series.
    """
    if what == MOSAIC:
        return f"{what} by its {by}: as one picture it would be restored across slices; convert it with dcm2niix first"
    if what == LABELS:
        return f"{what} by its {by}, not an image: nothing to restore"
    wanted = modality.profile.quantity if modality else "image values"
    return f"{what} by its {by}: its values are no {wanted}; restore the series whose values are"
