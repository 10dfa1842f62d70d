"""Docstrings are written with Sphinx roles; the site shows them as code and as formulae."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert

_MATH = re.compile(r":math:`([^`]+)`")
_BLOCK = re.compile(r"^\.\. math::(.*(?:\n[ \t]+.*|\n(?=\n[ \t]))*)", re.MULTILINE)
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([^`]+)`")
_TABLE = re.compile(r"^=+(?: +=+)+\n(?:.+\n)+?=+(?: +=+)+$", re.MULTILINE)
_LITERAL = re.compile(r"::\n\n((?:(?: {4}.*)?\n?)+)")


class Roles(Extension):
    """Turns what Sphinx understands into Markdown."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Each module, class, function and attribute as it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring, dedented, with formulae as MathML, roles as code, and tables of text as they are."""
    text = _BLOCK.sub(lambda found: _formula(found[1], "block") + "\n", text)
    text = _MATH.sub(lambda found: _formula(found[1], "inline"), text)
    text = _ROLE.sub(r"`\1`", text)
    text = _TABLE.sub(r"```text\n\g<0>\n```", text)
    return _LITERAL.sub(lambda found: f":\n\n{found[1]}" if found[1].strip() else found[0], text)


def _formula(latex: str, display: str) -> str:
    return convert(" ".join(latex.split()), display=display)
