"""Writes where the project is published into what an index shows; the release workflow, which knows it, runs this.

A clone names no address: the links of README lead to the files beside it. An index shows README alone, so those of a
release are absolute and lead to the files of its tag; ``[project.urls]`` of ``pyproject.toml`` gets the address, too.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)(\[[^\]]*\]\()(?!https?://|#|mailto:)([^)\s]+)")
_PICTURES = (".png", ".jpg")


def absolute(text: str, repository: str, ref: str) -> str:
    """``text`` (Markdown) with each link to a file of the repository as an address on GitHub.

    A picture, shown or linked, is led to its bytes; any other file to the page that shows it. ``repository`` is
    ``OWNER/NAME``, ``ref`` a tag or branch.
    """

    def lead(found: re.Match[str]) -> str:
        mark, label, path = found.groups()
        raw = mark or path.endswith(_PICTURES)
        base = f"https://raw.githubusercontent.com/{repository}" if raw else f"https://github.com/{repository}/blob"
        return f"{mark}{label}{base}/{ref}/{path}"

    return _LINK.sub(lead, text)


def urls(repository: str, ref: str) -> str:
    """Table ``[project.urls]`` of a project at ``OWNER/NAME`` on GitHub, whose manual is on its pages."""
    owner, name = repository.split("/")
    home = f"https://github.com/{repository}"
    lines = {
        "Homepage": home,
        "Documentation": f"https://{owner.lower()}.github.io/{name}/",
        "Changelog": f"{home}/blob/{ref}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    return "\n".join(["[project.urls]", *(f'{key} = "{value}"' for key, value in lines.items()), "", ""])


def main() -> None:
    """Rewrites README.md and pyproject.toml of this checkout; they must not hold an address yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("repository", help="OWNER/NAME at github.com")
    parser.add_argument("--ref", default="main", help="tag or branch that links lead to")
    options = parser.parse_args()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repository):
        parser.error(f"{options.repository!r} is not OWNER/NAME")
    project = ROOT / "pyproject.toml"
    text = project.read_text()
    if "[project.urls]" in text:
        parser.error("pyproject.toml holds [project.urls] already")
    project.write_text(
        text.replace("[project.scripts]", urls(options.repository, options.ref) + "[project.scripts]", 1)
    )
    readme = ROOT / "README.md"
    readme.write_text(absolute(readme.read_text(), options.repository, options.ref))


if __name__ == "__main__":
    main()
