"""The scripts that tests of the documentation call."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")


@pytest.fixture(scope="session")
def gen_docs() -> Iterator[ModuleType]:
    sys.path.insert(0, SCRIPTS)
    yield importlib.import_module("gen_docs")
    sys.path.remove(SCRIPTS)


@pytest.fixture(scope="session")
def formulas(gen_docs: ModuleType) -> ModuleType:
    return importlib.import_module("formulas")
