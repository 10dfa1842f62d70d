"""BIDS derivatives: names, sidecars and the description of the data set.

BIDS 1.10, "Derivatives dataset and pipeline description" and "Common data types and metadata": a derivative keeps the
entities of its source, adds ``desc-``, keeps the suffix, and says in its sidecar what it was made from. Sidecars and
tables of directions, labels and events hold for all files below whose names have their entities ("The Inheritance
Principle"); a derivative lies in another data set, so that it takes along what holds for its source.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai_sasm.io.commit import replacing
from monai_sasm.io.nifti.names import read_object, stem

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
LABEL = "denoised"
NOT_RAW = ("derivatives", "sourcedata", "code")  # folders of a data set that hold something else than its images
_NAME = re.compile(r"(?P<entities>sub-[A-Za-z0-9+]+(?:_[A-Za-z0-9]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)")
_IGNORED = "manifest.jsonl\n*_change*\n*_weight-*\n*_trust*\n*_uncertainty*\n"
"""Maps of `--save-maps` have no names in BIDS. A star and an ending like ``.nii.gz`` match nothing in its validator."""
_TABLES = {"asl": ("aslcontext", ".tsv"), "bold": ("events", ".tsv")}  # suffix -> suffix and ending of its table
_OF_THICK_SLICES = ("SliceTiming", "SliceThickness", "SpacingBetweenSlices")
_README = "Restored by monai_sasm {version}: dataset_description.json names the source, each sidecar its image.\n"


def derived_name(name: str) -> str | None:
    """File name of the result: ``sub-1_T1w.nii.gz`` -> ``sub-1_desc-denoised_T1w.nii.gz``; ``None`` if not BIDS.

    A ``desc-`` that is there already is extended: there can be only one, and it comes last.
    """
    stem, dot, end = name.partition(".")
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    entities = match["entities"]
    if "_desc-" in entities:
        entities += LABEL.capitalize()
    else:
        entities += f"_desc-{LABEL}"
    return f"{entities}_{match['suffix']}{dot}{end}"


def is_root(folder: Path) -> bool:
    """Whether a folder is the root of a BIDS data set."""
    return (folder / DESCRIPTION).is_file()


def describe(output: Path, source: Path) -> None:
    """Write ``dataset_description.json`` and README of the derivatives, and what validators shall pass over; once."""
    from monai_sasm import __version__

    if (output / DESCRIPTION).exists():
        return
    origin = _handed_on(source)
    description: dict[str, Any] = {
        "Name": f"{origin.get('Name', 'Images')}, restored",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "monai_sasm", "Version": __version__}],
        **({"Authors": origin["Authors"]} if "Authors" in origin else {}),
    }
    if is_root(source):
        description["DatasetLinks"] = {"raw": _link(source, output)}
        description["SourceDatasets"] = [
            {"DOI": origin["DatasetDOI"]} if "DatasetDOI" in origin else {"URL": "bids:raw:"}
        ]
    with replacing(output / DESCRIPTION) as file:
        file.write(json.dumps(description, indent=2).encode() + b"\n")
    for name, text in ((".bidsignore", _IGNORED), ("README", _README.format(version=__version__))):
        with suppress(FileExistsError), open(output / name, "x", encoding="utf-8") as file:  # through no link
            file.write(text)


def complete_sidecar(sidecar: Path, image: Path, root: Path) -> None:
    """Let a result's sidecar say what those of its source say, name its source as a BIDS URI, and say that nothing was
    stripped from a raw image; the tables of a raw image are laid beside it.

    Args:
        sidecar: the JSON file beside the result.
        image: the source.
        root: of the source's data set, or the folder that was given.
    """
    own = read_object(sidecar)
    record = _inherited(image, root) | own
    if "factor" in own.get("Parameters", {}):
        record = {key: value for key, value in record.items() if key not in _OF_THICK_SLICES}
    if is_root(root):
        place = image.relative_to(root)
        if "IntendedFor" in record:
            record["IntendedFor"] = _in_raw(record["IntendedFor"], place.parts[0])
        record["Sources"] = [f"bids:raw:{place.as_posix()}"]
        if "_desc-" not in image.name:
            record["SkullStripped"] = False
            for name, table in _tables(image, root):
                with replacing(sidecar.with_name(name), sources=[table]) as file:
                    file.write(table.read_bytes())
    with replacing(sidecar, sources=[sidecar]) as file:
        file.write(json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")


def told_of(image: Path, root: Path) -> str:
    """sha256 over what sidecars and tables say of an image, which its derivative says as well."""
    tables = [(name, hashlib.sha256(table.read_bytes()).hexdigest()) for name, table in _tables(image, root)]
    return hashlib.sha256(json.dumps([_inherited(image, root), tables], sort_keys=True).encode()).hexdigest()


def _inherited(image: Path, root: Path) -> dict[str, Any]:
    """What the sidecars say that hold for an image; of two, the nearer one."""
    match = _NAME.fullmatch(stem(image))
    told: dict[str, Any] = {}
    for file in _holding(image, root, match["suffix"], ".json") if match else ():
        told |= read_object(file)
    return told


def _tables(image: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """Directions, labels or events of a raw image: their names beside its derivative, and where they lie.

    They get the name of the image without ``desc-``, which its derivatives inherit from; validators know no other.
    """
    match = _NAME.fullmatch(stem(image))
    if match is None:
        return
    suffix = match["suffix"]
    for kind, ending in ((suffix, ".bval"), (suffix, ".bvec"), *([_TABLES[suffix]] if suffix in _TABLES else [])):
        entities = match["entities"]
        if kind == "events":  # of all echoes, whose tables would be the same
            if re.search(r"_echo-(?!0*1(_|$))|_part-(?!mag(_|$))", entities):
                continue
            entities = re.sub(r"_(echo|part)-[A-Za-z0-9+]+", "", entities)
        found = _holding(image, root, kind, ending)
        if found:
            yield f"{entities}_{kind}{ending}", found[-1]


def _holding(image: Path, root: Path, suffix: str, ending: str) -> list[Path]:
    """Files of that suffix and ending that hold for an image, the nearest last: from the root down to its folder."""
    folders = [one for one in image.parents if one.is_relative_to(root)] or [image.parent]
    entities = set(stem(image).split("_"))
    found: list[Path] = []
    for folder in reversed(folders):
        here = [one for one in folder.glob(f"*{suffix}{ending}") if one.is_file()]
        names = {one: one.name.removesuffix(ending).split("_") for one in here}
        fit = [one for one in here if names[one][-1] == suffix and entities >= {*names[one][:-1]}]
        found += sorted(fit, key=lambda one: (len(names[one]), one.name))
    return found


def _in_raw(intended: Any, participant: str) -> Any:
    """Paths of ``IntendedFor``, which begin below the participant, or URIs, as URIs that hold in the derivatives."""
    if isinstance(intended, list):
        return [_in_raw(one, participant) for one in intended]
    if not isinstance(intended, str):
        return intended
    if intended.startswith("bids::"):
        return f"bids:raw:{intended.removeprefix('bids::')}"
    return intended if intended.startswith("bids:") else f"bids:raw:{participant}/{intended}"


def _link(source: Path, output: Path) -> str:
    source, output = source.resolve(), output.resolve()
    return os.path.relpath(source, output) if output.is_relative_to(source) else source.as_uri()


def _handed_on(source: Path) -> dict[str, Any]:
    """What the description of a data set says that its derivatives say as well, where it is of the type BIDS wants."""
    origin = read_object(source / DESCRIPTION)
    texts = {key: origin[key] for key in ("Name", "DatasetDOI") if isinstance(origin.get(key), str)}
    authors = origin.get("Authors")
    known = isinstance(authors, list) and all(isinstance(one, str) for one in authors)
    return texts | ({"Authors": authors} if known else {})
