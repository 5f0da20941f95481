"""What the code imports is declared, so that another package's change of mind does not break an installation."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {"yaml": "pyyaml"}
OPTIONAL = {"peft"}


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^A-Za-z0-9_-]", text)[0] for text in project["dependencies"]}
    files = [*(ROOT / "reasonrl").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    modules = set().union(*map(imported, files)) - set(sys.stdlib_module_names) - OPTIONAL
    third_party = {DISTRIBUTIONS.get(m, m) for m in modules if not m.startswith("reasonrl")}
    assert third_party <= declared, f"imported but not declared: {sorted(third_party - declared)}"
