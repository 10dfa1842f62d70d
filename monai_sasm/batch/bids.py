"""BIDS derivatives: names, sidecars and the description of the data set.

BIDS 1.10, "Derivatives dataset and pipeline description" and "Common data types and metadata": a derivative keeps the
entities of its source, adds ``desc-``, keeps the suffix, and says in its sidecar what it was made from.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai_sasm.io.commit import replacing
from monai_sasm.io.nifti.names import read_object

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
LABEL = "denoised"
NOT_RAW = ("derivatives", "sourcedata", "code")  # folders of a data set that hold something else than its images
_NAME = re.compile(r"(?P<entities>sub-[A-Za-z0-9+]+(?:_[A-Za-z0-9]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)")
_IGNORED = "manifest.jsonl\n*_change*\n*_weight-*\n*_trust*\n*_uncertainty*\n"
"""Maps of `--save-maps` have no names in BIDS. A star and an ending like ``.nii.gz`` match nothing in its validator."""
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
    """Let a result's sidecar name its source as a BIDS URI, and say that nothing was stripped from a raw image.

    Args:
        sidecar: the JSON file beside the result.
        image: the source.
        root: of the source's data set, or the folder that was given.
    """
    record = read_object(sidecar)
    if is_root(root):
        record["Sources"] = [f"bids:raw:{image.relative_to(root).as_posix()}"]
        if "_desc-" not in image.name and image.parent.name == "anat":
            record["SkullStripped"] = False
    with replacing(sidecar) as file:
        file.write(json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")


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
