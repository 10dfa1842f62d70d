"""Pages of the site that are made from other files: experts, API reference, the tour, the repository's own pages."""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path
from typing import Any

import tomllib
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
URLS = PROJECT.get("urls", {})  # in a release only: scripts/set_address.py
SOURCES = {
    "security.md": "SECURITY.md",
    "licences.md": "THIRD_PARTY.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "row.schema.json": "configs/row.schema.json",
}
"""Files of the site -> files outside of ``docs`` that they are made from."""
API = (
    "restoration", "io", "degradations", "experts", "gate", "functional", "diffusion", "refine", "bundles", "recipes",
    "training", "losses", "transforms", "datasets", "evaluation",
)  # fmt: skip
"""Packages for whoever builds on this one; the others (command line, batch, node, ...) are used, not imported."""
_LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)\s#]+)")
_MATH = re.compile(r"\$([^$]+)\$")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Address, repository, and the parts of the navigation that are listed nowhere else."""
    if URLS:
        config.site_url, config.repo_url = URLS["Documentation"], URLS["Homepage"]
        config.repo_name = config.repo_url.removeprefix("https://github.com/")
    config.site_description = PROJECT["description"]
    config.nav.insert(-2, {"Experts": [f"bundles/{name}.md" for name in _bundles()]})
    config.nav.insert(-1, {"API": ["api/index.md", *(f"api/{name}.md" for name in API)]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that are made, beside those in ``docs``."""
    pages = {page: _relinked((ROOT / source).read_text(), ROOT) for page, source in SOURCES.items()}
    for name in _bundles():
        folder = ROOT / "bundles" / name / "docs"
        pages[f"bundles/{name}.md"] = _relinked(_titled(folder, name), folder)
    pages["api/index.md"] = _public()
    pages |= {f"api/{name}.md": _package(name) for name in API}
    tour, pictures = _tour(ROOT / "docs" / "tour.ipynb")
    made: dict[str, str | bytes] = {**pages, "tour.md": tour, **pictures}
    made["style.css"] = (Path(__file__).parent / "style.css").read_text()
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links of the pages in ``docs`` to what is no page, and the tables of run times."""
    if page.file.generated_by is not None:
        return markdown
    speed = (ROOT / "docs" / "results" / "speed.md").read_text().partition("\n### ")[2]
    return _relinked(markdown.replace("<!-- speed -->", f"### {speed}"), ROOT / "docs")


def _bundles() -> list[str]:
    """Names of the shipped bundles."""
    return sorted(path.parents[1].name for path in ROOT.glob("bundles/*/docs/README.md"))


def _titled(folder: Path, name: str) -> str:
    """A bundle's page, which begins with its name: the commands ask for that."""
    text = (folder / "README.md").read_text()
    title, _, rest = text.partition("\n")
    licence = json.loads((folder.parent / "configs" / "metadata.json").read_text())["sasm"]["weights_license"]
    return f"{title}\n\n`{name}`, weights under {licence}.\n{rest}"


def _relinked(text: str, folder: Path) -> str:
    """Links lead to files of the site; a link to what is not in it stays, and the build warns."""

    def lead(found: re.Match[str]) -> str:
        name, hash_sign, part = found[2].partition("#")
        target = (folder / name).resolve()
        page = next((page for page, source in SOURCES.items() if target == ROOT / source), None)
        if page is None and target.is_relative_to(ROOT / "docs"):
            page = target.relative_to(ROOT / "docs").as_posix().replace("tour.ipynb", "tour.md")
        if page is None:
            return found[0]
        return f"{found[1]}{'../' if 'bundles' in folder.parts else ''}{page}{hash_sign}{part}"

    return _LINK.sub(lead, text)


def _public() -> str:
    """What ``import monai_sasm`` gives, each name linked to its place."""
    tree = ast.parse((ROOT / "monai_sasm" / "__init__.py").read_text())
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "monai_sasm" in (node.module or "")
    ]
    names = {alias.name: f"{node.module}.{alias.name}" for node in found for alias in node.names}
    lines = [f"| `monai_sasm.{name}` | [`{place}`][{place}] |" for name, place in names.items()]
    modules = ("::: monai_sasm.types", "::: monai_sasm.errors")
    return "\n".join(["# API", "", "| name | place |", "|---|---|", *lines, "", *modules, ""])


def _package(name: str) -> str:
    """The reference of a package: each module with what it says of its public names."""
    folder = ROOT / "monai_sasm" / name
    modules = sorted(path for path in folder.rglob("*.py") if not path.name.startswith("_"))
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return "\n".join([f"# {name}", "", about, "", *(f"::: {module}" for module in dotted), ""])


def _tour(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook as a page, and its pictures by the paths they get."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(_mathml(source) if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data: dict[str, Any] = output.get("data", {})
            if "image/jpeg" in data:
                name = f"tour/{len(pictures)}.jpg"
                pictures[name] = base64.b64decode(data["image/jpeg"])
                parts.append(f"![]({name})")
            elif output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).strip()}\n```")
    return "\n\n".join(parts), pictures


def _mathml(text: str) -> str:
    return _MATH.sub(lambda found: convert(" ".join(found[1].split())), text)
