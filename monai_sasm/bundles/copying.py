"""A new bundle from an existing one: its configuration and weights under a new name, and nothing claimed about it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_sasm.bundles.finding import available
from monai_sasm.bundles.metadata import read_metadata
from monai_sasm.errors import BundleError

FIRST_VERSION = "0.0.1"
MAX_NAME = 64
RESERVED = {"clean", "gate", "input"}  # the identity class, the gate's choice in viewers, the input's row in tables

_README = """\
# {name}

A copy of `{origin}` {version}, made by `sasm bundles new`. Its weights are still those of `{origin}`, whose
documentation tells their data, terms and limits. Nothing has been measured with this bundle yet: rewrite this file when
it is trained, and `name`, `description`, `data_source`, `authors` and `copyright` in `configs/metadata.json`.

## Use

```bash
python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir IN --output_dir OUT
```

From any directory, give the full path of the config.

## Data

To be written: which images, how many patients, from where, under which terms.

## Training

To be written: the command, its seed, time and hardware, and a hash of the data.

## Numbers

To be written: measured on images that were never trained on (`sasm evaluate --bundle {origin} --bundle {name}`).

## Limits

To be written: for which images it must not be used.
"""


def new_bundle(name: str, origin: str | Path, folder: Path, extra: Sequence[Path] = ()) -> Path:
    """Copy a bundle under a new name.

    Configuration, licence and weights are copied as they are, but for the default folders of training and evaluation,
    which get the new name. The metadata start anew: name, version, changelog, no numbers, and no refiner stays the
    default of its modality by being copied. ``docs/README.md`` is a form to fill in.

    Args:
        name: letters, digits, ``_`` and ``-``; the folder's name, and the name of the gate's class for an expert.
        origin: name of an available bundle, or a bundle's folder.
        folder: where the new bundle's folder is made.
        extra: further folders to look for bundles in, see :func:`monai_sasm.bundles.available`.

    Returns:
        The new bundle's folder.

    Raises:
        ValueError: a name that is not allowed.
        BundleError: there is no such bundle to copy, or its metadata cannot be used.
        FileExistsError: there is a bundle of that name, or something else in its place. Nothing is ever replaced.
    """
    found = available(extra)
    check_name(name)
    target = folder.resolve() / name
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists already; remove it or choose another name")
    taken = namesake(name, found)
    if taken is not None:
        raise FileExistsError(f"a bundle of that name exists already, {taken}; choose another name")
    source = found.get(str(origin)) or Path(origin).resolve()
    if not (source / "configs" / "metadata.json").is_file():
        raise BundleError(f"{str(origin)!r} is no bundle; available: {', '.join(sorted(found)) or 'none'}")
    read_metadata(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new_bundle_") as temporary:
        work = Path(temporary) / name
        left_out = shutil.ignore_patterns("docs", "__pycache__", ".git")
        shutil.copytree(source, work, ignore=left_out, copy_function=shutil.copyfile)  # an installed one is read-only
        _rename_outputs(work, source.name)
        _start_metadata(work, source.name)
        work.rename(target)
    return target


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a bundle.

    Raises:
        ValueError: other characters, too many, or a word that means something else.
    """
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}", name) or name.lower() in RESERVED:
        raise ValueError(
            f"a bundle's name has at most {MAX_NAME} letters, digits, '_' and '-', begins with a letter or digit, and "
            f"is none of {', '.join(sorted(RESERVED))}, got {name!r}"
        )


def namesake(name: str, found: Mapping[str, Path]) -> Path | None:
    """Folder of the bundle of that name, in capitals or not: some disks do not tell them apart."""
    return {one.lower(): path for one, path in found.items()}.get(name.lower())


def _rename_outputs(root: Path, origin: str) -> None:
    """Give the copy default folders of its own below ``runs`` and ``evaluation``.

    Else ``--resume`` would go on from the checkpoints of the bundle it was copied from.
    """
    for path in (root / "configs").glob("*.yaml"):
        text = re.sub(
            rf"\b(runs|evaluation)/{re.escape(origin)}", rf"\g<1>/{root.name}", path.read_text(encoding="utf-8")
        )
        others = rf"^(output_dir: (?:\./)?(?:runs|evaluation)/)(?!{re.escape(root.name)}(?![A-Za-z0-9-]))"
        path.write_text(re.sub(others, rf"\g<1>{root.name}_", text, flags=re.MULTILINE), encoding="utf-8")


def _start_metadata(root: Path, origin: str) -> None:
    metadata = read_metadata(root)
    version = str(metadata.get("version", "0"))
    # the copy is to be trained: neither the range nor the weights for thin slices of the other bundle will be its own
    section = {key: value for key, value in metadata["sasm"].items() if key not in ("default", "range", "thinning")}
    metadata |= {
        "version": FIRST_VERSION,
        "changelog": {FIRST_VERSION: f"Copy of {origin} {version}, not trained yet"},
        "name": root.name,
        "description": f"Copy of {origin} {version}, to be described",
        "eval_metrics": {},
        "sasm": section | {"copy_of": f"{origin} {version}"},
    }
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    (root / "docs").mkdir()
    readme = _README.format(name=root.name, origin=origin, version=version)
    (root / "docs" / "README.md").write_text(readme, encoding="utf-8")
