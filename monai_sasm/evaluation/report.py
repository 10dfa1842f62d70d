"""All protocols' JSON files become one page."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from monai_sasm.evaluation.table import Table

BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"
"""Marks around numbers that are written into a page that is else written by hand."""

PROTOCOLS = (
    "photo-awgn",
    "photo-real",
    "photo-ddpm",
    "raindrop-real",
    "raindrop-synth",
    "superres-photo",
    "inpaint",
    "ct-lowdose",
    "ct-simulated",
    "ct-lesions",
    "ct-phantom",
    "mri-noise",
    "mri-repeat",
    "mri-superres",
    "mri-heads",
    "mri-lesions",
    "brats",
    "no-harm",
    "coherence",
    "mixed",
    "refine",
    "cifar10",
    "gate",
    "speed",
)
"""In the order of the page; the module of each in ``protocols`` has underscores for hyphens, and its ``run`` takes a
Context and gives a Table.
"""
HEADER = """# Results

Written by `sasm evaluate PROTOCOL` from the JSON files in `{folder}/`; do not edit by hand.
Every number was measured by that command on the machine it ran on, except rows marked "published". What peers came to,
their seconds too, is kept in `{folder}/peers.json` and may be of an earlier run.
"""


def tables(folder: Path) -> dict[str, Table]:
    """Protocol -> its table, of those whose JSON file is in a folder."""
    return {path.stem: Table.read(path) for path in folder.glob("*.json") if path.stem in PROTOCOLS}


def report(output: Path) -> Path:
    """Merge ``<output>/<protocol>.json`` into ``RESULTS.md`` beside the folder, and write ``<output>/<protocol>.md``
    anew, which names weights that are no longer installed; returns the page's path.

    Args:
        output: folder of the JSON files, usually ``docs/results``.
    """
    from monai_sasm.evaluation.summary import summary

    known, versions = tables(output), installed_versions()
    names = [name for name in PROTOCOLS if name in known]
    sections = [section(known[name], versions, f"{output.name}/") for name in names]
    for name in names:
        (output / f"{name}.md").write_text(section(known[name], versions), encoding="utf-8")
    missing = [name for name in PROTOCOLS if name not in known]
    if missing:
        sections.append("Not run: " + ", ".join(missing) + ".\n")
    page = output.parent / "RESULTS.md"
    first = [HEADER.format(folder=output.name), summary(known, versions)]
    page.write_text("\n".join([*first, "# Protocols\n", *sections]), encoding="utf-8")
    return page


def section(table: Table, versions: Mapping[str, str], folder: str = "") -> str:
    """A table in Markdown, which names the weights it measured that are no longer installed.

    Args:
        table: of a protocol.
        versions: bundle -> installed version.
        folder: put before figure names.
    """
    from monai_sasm.evaluation.measured import measured, older

    return table.markdown(folder, older(measured(table), table, versions))


def replace_block(page: Path, block: str) -> None:
    """Write what stands between :data:`BEGIN` and :data:`END` in a page anew; ``block`` has both marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + block + rest.split(END, maxsplit=1)[1], encoding="utf-8")


def installed_versions() -> dict[str, str]:
    """Version of each shipped bundle."""
    from monai_sasm.bundles import available, read_metadata
    from monai_sasm.errors import BundleError

    found = {}
    for name, root in sorted(available().items()):
        with suppress(BundleError):
            found[name] = str(read_metadata(root).get("version", ""))
    return found
