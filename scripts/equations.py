"""Renders the equations of the documentation as MathML: browsers show it without a script, so no page needs a network.

A hook of MkDocs, see ``mkdocs.yml``. As on GitHub, a fence of the language ``math`` is a display equation, and
``$`x`$`` an inline one. An equation that the converter does not understand stops the build.
"""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any
from xml.etree import ElementTree

from latex2mathml.commands import MATRICES
from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from pymdownx.superfences import SuperFencesException

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)
MI, MO, MTEXT = (f"{{{NAMESPACE}}}{name}" for name in ("mi", "mo", "mtext"))
NOT_ON_GITHUB = ("operatorname", "mbox", "phantom", "newcommand", "def")

INLINE = r"\$`([^`]+)`\$"
BEFORE_CODE = 195
"""Priority of the inline pattern: above that of code spans, 190."""


class EquationError(PluginError, SuperFencesException):
    """Stops the build; superfences swallows any other exception and shows the source instead."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add both kinds of equations to the site's Markdown."""
    config.markdown_extensions.append(InlineEquations())  # type: ignore[arg-type]
    superfences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    superfences.setdefault("custom_fences", []).append({"name": "math", "class": "math", "format": display_equation})
    return config


def display_equation(source: str, *_: Any, **__: Any) -> str:
    """A display equation in a box that scrolls when it is wider than the page."""
    return f'<div class="equation">{mathml(source, "block")}</div>'


class InlineEquations(Extension):
    """Inline equations, ``$`x`$``."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Inline(INLINE, md), "equation", BEFORE_CODE)


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        return self.md.htmlStash.store(mathml(m[1], "inline")), m.start(0), m.end(0)


def mathml(latex: str, display: str) -> str:
    """The equation as MathML.

    Raises:
        EquationError: naming what is wrong with it.
    """
    try:
        tree = ElementTree.fromstring(convert(latex, display=display))
    except Exception as error:
        raise EquationError(f"{type(error).__name__} {error} in the equation: {latex.strip()}") from error
    faults = list(_faults(latex, "".join(tree.itertext())))
    if faults:
        raise EquationError(f"{', '.join(faults)} in the equation: {latex.strip()}")
    _space_names(tree)
    return ElementTree.tostring(tree, encoding="unicode")


def _faults(latex: str, shown: str) -> Iterator[str]:
    """What the converter lets pass: it prints a command that it does not know, and closes what was left open."""
    bare = re.sub(r"\\[{}]", "", latex)
    if bare.count("{") != bare.count("}"):
        yield "unbalanced braces"
    yield from (f"unknown command {command}" for command in re.findall(r"\\\w*", shown))
    for command in re.findall(r"\\([a-zA-Z]+)", latex):
        if command in NOT_ON_GITHUB:
            yield f"GitHub does not render \\{command}"
    for environment in re.findall(r"\\begin\{(.*?)\}", latex):
        if f"\\{environment}" not in MATRICES:
            yield f"unknown environment {environment}"


def _space_names(row: ElementTree.Element) -> None:
    """Set function names as TeX does, ``ln p`` and ``clip(r)``; the converter gives no space or too much."""
    for element, following in zip_longest(row, row[1:]):
        _space_names(element)
        is_name = len(element.text or "") > 1 and str(element.text).isalpha()
        is_call = following is not None and "".join(following.itertext())[:1] in ("(", "[")
        if is_name and (element.tag in (MI, MO) or (element.tag == MTEXT and is_call)):
            element.tag = MO
            rspace = "0" if is_call or following is None else "0.17em"
            element.attrib |= {"form": "prefix", "lspace": "0.17em", "rspace": rspace}
