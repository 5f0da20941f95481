"""Reads ``docs/algorithms/formulas.yaml`` and checks that whatever it names exists."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs" / "algorithms" / "formulas.yaml"
PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}(, .+)?")


@dataclass(frozen=True, kw_only=True)
class Formula:
    """One entry. ``paper`` and ``tests`` are tuples; ``module`` and ``name`` are the two halves of ``function``."""

    formula: str
    function: str
    tests: tuple[str, ...]
    paper: tuple[str, ...] = ()
    oracle: str = ""

    @property
    def module(self) -> str:
        return self.function.partition(":")[0]

    @property
    def name(self) -> str:
        return self.function.partition(":")[2]

    @property
    def file(self) -> Path:
        """Where the function is defined, relative to the repository."""
        folder = "" if self.module.startswith("reasonrl.") else "plugins/"
        return Path(f"{folder}{self.module.replace('.', '/')}.py")


def read(source: Path = SOURCE) -> list[Formula]:
    """Every entry, in the order of the file.

    Raises:
        ValueError: one line for each key, paper, function, oracle or test that is wrong, naming the entry.
    """
    entries = [_formula(entry) for entry in yaml.safe_load(source.read_text(encoding="utf-8"))]
    faults = [f"{source.name}: {entry.formula}: {fault}" for entry in entries for fault in _faults(entry)]
    if faults:
        raise ValueError("\n".join(faults))
    return entries


def _formula(entry: dict[str, Any]) -> Formula:
    unknown = entry.keys() - {field.name for field in fields(Formula)}
    if unknown or not {"formula", "function", "tests"} <= entry.keys():
        raise ValueError(f"{SOURCE.name}: {entry}: expected formula, function and tests, perhaps paper and oracle")
    papers = entry.get("paper", ())
    papers = (papers,) if isinstance(papers, str) else tuple(papers)
    return Formula(**{**entry, "tests": tuple(entry["tests"]), "paper": papers})


def _faults(entry: Formula) -> Iterator[str]:
    for paper in entry.paper:
        if not PAPER.fullmatch(paper):
            yield f"paper {paper!r} is not of the form 'arXiv:ID, where'"
    if entry.name not in defined(ROOT / entry.file):
        yield f"there is no function {entry.function}"
    if entry.oracle:
        module, _, name = entry.oracle.partition(".")
        if name not in defined(ROOT / "tests" / "reference" / f"{module}.py"):
            yield f"there is no oracle {entry.oracle} in tests/reference"
    if not entry.tests:
        yield "it names no test"
    for test in entry.tests:
        file, _, name = test.partition("::")
        if name not in defined(ROOT / "tests" / file):
            yield f"there is no test {test}"


@cache
def defined(file: Path) -> frozenset[str]:
    """Names of functions, classes, and methods as ``Class.method``; none if there is no such file."""
    if not file.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return frozenset(found)


def uses(cls: type) -> frozenset[str]:
    """Names of the functions that an algorithm's methods call: inherited methods too, overridden ones not."""
    names: set[str] = set()
    for attribute in dir(cls):
        for owner in cls.__mro__:
            if attribute in vars(owner):
                called = _called(vars(owner)[attribute])
                names |= called
                if "super" not in called:
                    break
    return frozenset(names)


def _called(value: Any) -> set[str]:
    code = getattr(getattr(value, "fget", value), "__code__", None)
    return set(code.co_names) if code is not None else set()


def recipes(algorithm: str) -> list[Path]:
    """The recipes that train with ``algorithm``, relative to the repository."""
    found = []
    for file in sorted((ROOT / "recipes").rglob("*.yaml")):
        slot = yaml.safe_load(file.read_text(encoding="utf-8")).get("algorithm") or {}
        if slot.get("name") == algorithm:
            found.append(file.relative_to(ROOT))
    return found
