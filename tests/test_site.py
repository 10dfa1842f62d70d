"""The manual builds without a warning, every link in it leads somewhere, and its pages load nothing from elsewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.data import CHECKOUT

HOSTS = {
    "arxiv.org", "download.pytorch.org", "github.com", "huggingface.co",
    "jobqueue.dask.org", "keepachangelog.com", "medicaldecathlon.com",
    "semver.org", "www.aapm.org", "www.cancerimagingarchive.net",
}  # fmt: skip
"""Where links of ours lead: looked at by a person when one is added, since tests ask no network."""
EXAMPLES = ("127.0.0.1", "example", "localhost", "pacs.example", "host")
PAGES = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("bundles/*/docs/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_links_to_elsewhere_are_well_formed_and_known(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"https?://[^\s)>\]\"'`|]+", text):
        parts = urlsplit(link.rstrip(".,;"))
        if parts.hostname in EXAMPLES:
            continue
        assert parts.scheme == "https", link
        assert parts.hostname in HOSTS, f"look at {link}, then add its host"


def undocumented(path: Path) -> list[str]:
    """Public names of a module that say nothing of themselves; stubs (protocols, overloads) are told elsewhere."""
    found = []

    def look(node: ast.Module | ast.ClassDef, prefix: str) -> None:
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name[0] == "_":
                continue
            stub = len(child.body) == 1 and ast.unparse(child.body[0]) == "..."
            if not stub and not ast.get_docstring(child):
                found.append(f"{path.relative_to(CHECKOUT)}: {prefix}{child.name}")
            if isinstance(child, ast.ClassDef):
                look(child, f"{child.name}.")

    look(ast.parse(path.read_text()), "")
    return found


def test_every_public_name_is_documented() -> None:
    modules = [path for path in (CHECKOUT / "monai_sasm").rglob("*.py") if "SASM" not in path.parts]
    assert len(modules) > 200
    assert [name for path in modules for name in undocumented(path)] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "-q", "-f", "docs/site/mkdocs.yml", "-d", str(folder))
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stdout + result.stderr
    return folder


@pytest.mark.slow
def test_the_manual_is_whole(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    names = {path: set(re.findall(r'\s(?:id|name)="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        if path.name == "404.html":
            continue  # its links begin at the root of the server
        for link in re.findall(r'\s(?:href|src)="([^"]+)"', text):
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in names.get(target, set())):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []
    assert len(pages) > 50
    loaded = (
        r'<(?:script|img|iframe)[^>]*\ssrc="https?:[^"]+"',
        r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*"https?:',
    )
    assert [found for text in pages.values() for kind in loaded for found in re.findall(kind, text)] == []


@pytest.mark.slow
def test_the_manual_shows_what_it_is_made_from(site: Path) -> None:
    def page(name: str) -> str:
        return (site / name / "index.html").read_text()

    assert page("tour").count("<img") >= 9, "pictures of the notebook"
    assert "<math" in page("tour")
    assert "lowdose_ct_unet" in page("bundles/lowdose_ct_unet")
    assert re.search(r"series of \d+ slices", page("hardware"))
    assert "Restorer" in page("api/restoration")
    assert ":class:" not in page("api/restoration"), "Sphinx roles are translated"
    assert "Report a vulnerability" in page("security")
