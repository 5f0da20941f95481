"""What the code imports is declared, so that another package's change of mind does not break an installation."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {"reasoning_gym": "reasoning-gym", "yaml": "pyyaml"}
OPTIONAL = {
    "peft": "lora",
    "gguf": "gguf",
    "mlflow": "mlflow",
    "pandas": "trackio",
    "trackio": "trackio",
    "swanlab": "swanlab",
    "bitsandbytes": "low-memory",
    "pytest": "test",
    "vllm": "vllm",
    "httpx2": "vllm",
    "anyio": "vllm",
}
"""Modules that not everybody needs, and the extra that brings them."""


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


PLUGIN_PROJECTS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
"""Separate distributions: each declares what it imports itself."""


def undeclared(project: Path, files: list[Path]) -> list[str]:
    """What the files import from third parties and the project's pyproject does not list."""
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = set().union(*map(imported, files)) - set(sys.stdlib_module_names) - {"_typeshed"}
    third_party = {m for m in modules if not m.startswith("reasonrl")}
    extras = {**table.get("optional-dependencies", {}), None: table["dependencies"]}
    return sorted(m for m in third_party if DISTRIBUTIONS.get(m, m) not in _names(extras.get(OPTIONAL.get(m), [])))


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_-]", text)[0] for text in requirements}


def test_every_import_is_declared() -> None:
    files = [*(ROOT / "reasonrl").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    bundled = [f for f in files if not any(f.is_relative_to(project) for project in PLUGIN_PROJECTS)]
    assert not undeclared(ROOT, bundled), "imported but not declared"


@pytest.mark.parametrize("project", PLUGIN_PROJECTS, ids=lambda project: project.name)
def test_every_import_of_a_separate_distribution_is_declared(project: Path) -> None:
    assert not undeclared(project, sorted((project / "src").rglob("*.py"))), "imported but not declared"
