"""Write README's numbers from the JSON files of the protocols; ``tests/test_readme.py`` fails where they differ.

python scripts/readme_numbers.py
"""

from __future__ import annotations

from pathlib import Path

from monai_sasm.evaluation.report import BEGIN, END, installed_versions, replace_block, tables
from monai_sasm.evaluation.summary import summary

ROOT = Path(__file__).parents[1]
TASKS = (
    "CT at quarter dose",
    "MR, 6 % noise, single slices",
    "MR, 6 % noise, slices as close as pixels",
    "MR, coarse x2 (brains)",
    "photo, noise 25/255",
    "photo behind drops (real)",
    "photo, drops here, noise there",
)
"""Lines of the first page of docs/RESULTS.md; of a task the first, which is that of the expert that the gate calls."""
OLDER = "\nA version behind an expert: measured with those weights of it or of the gate; others are installed now."
HEAD = "| image | by | gain | best other method, same run | keeps |\n|---|---|---|---|---|"


def block(results: Path = ROOT / "docs" / "results") -> str:
    """Table between the marks, Markdown; a line whose protocol was not run is left out."""
    rows: dict[str, str] = {}
    for line in summary(tables(results), installed_versions()).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in TASKS:
            rows.setdefault(cells[0], f"| {' | '.join(cells[:5])} |")
    found = [rows[task] for task in TASKS if task in rows]
    return "\n".join([BEGIN, HEAD, *found, *([OLDER] if any("` (" in row for row in found) else []), END])


def main() -> None:
    """Replace the block of README.md."""
    replace_block(ROOT / "README.md", block())


if __name__ == "__main__":
    main()
