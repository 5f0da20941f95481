"""Who may import whom, read from the source; and what the light commands must not load."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "reasonrl"
PLUGINS = ROOT / "plugins"

# A part may import parts of a lower number, and itself.
LEVELS = {
    "redact": -1,
    "errors": 0,
    "plugin_directory": 0,
    "contracts": 1,
    "functional": 2,
    "datafiles": 2,
    "recipe": 3,
    "scaffold": 4,
    "plugins": 3,
    "plugin_loading": 3,
    "plugin_specs": 3,
    "data": 3,
    "model": 3,
    "rewards": 3,
    "checkpoint": 4,
    "observability": 4,
    "evaluation": 4,
    "trainer": 5,
    "analysis": 5,
    "cli": 6,
    "__main__": 7,
}
# Parts of one level that may import one another, in this direction only.
WITHIN_LEVEL = {
    ("recipe", "plugins"),
    ("plugins", "plugin_loading"),
    ("plugin_loading", "plugins"),
    ("plugin_loading", "plugin_specs"),
    ("model", "recipe"),
    ("observability", "evaluation"),
}
ANYWHERE = {"testing"}
ALLOWED_IN_ANALYSIS = {"contracts", "observability", "errors"}
ALLOWED_IN_PLUGINS = {"contracts", "functional", "testing", "errors", "datafiles"}
TORCH_FREE = (
    "redact",
    "errors",
    "contracts",
    "datafiles",
    "recipe",
    "plugins",
    "plugin_loading",
    "plugin_directory",
    "plugin_specs",
    "rewards",
    "scaffold",
    "analysis",
    "cli",
    "__init__",
    "__main__",
)


def modules(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def imports(path: Path, *, at_module_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; optionally only those that run when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = module_level(tree) if at_module_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "reasonrl")


def module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements outside functions and outside ``if TYPE_CHECKING``."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        yield node
        todo.extend(ast.iter_child_nodes(node))


def part_of(dotted: str) -> str | None:
    """The part of the core that ``reasonrl.x.y`` belongs to; None for anything else."""
    names = dotted.split(".")
    if names[0] != "reasonrl" or len(names) == 1:
        return None
    known = names[1] in LEVELS or names[1] in ANYWHERE
    return names[1] if known else None


def file_part(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_imports_point_downwards(path: Path) -> None:
    part = file_part(path)
    if part in ANYWHERE or part == "__init__":
        return
    assert part in LEVELS, f"add the part '{part}' to LEVELS, as the design says"
    for dotted in imports(path):
        target = part_of(dotted)
        if target is None or target == part:
            continue
        assert target not in ANYWHERE or part == "cli", f"the core must not import {dotted}"
        if target in ANYWHERE:
            continue
        assert part != "analysis" or target in ALLOWED_IN_ANALYSIS, f"analysis must not import {dotted}"
        downwards = LEVELS[target] < LEVELS[part]
        assert downwards or (part, target) in WITHIN_LEVEL, f"{part} must not import {dotted}"


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_imports_no_plugin(path: Path) -> None:
    for dotted in imports(path):
        assert not dotted.startswith("reasonrl_"), f"{path}: the core imports the plugin {dotted}"


@pytest.mark.parametrize("path", modules(PLUGINS), ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_import_only_the_surface(path: Path) -> None:
    own = next(part for part in path.relative_to(PLUGINS).parts if part.startswith("reasonrl"))
    for dotted in imports(path):
        if dotted.startswith("reasonrl_"):
            assert dotted.split(".")[0] == own.replace("-", "_"), f"{own} imports another plugin: {dotted}"
        target = part_of(dotted)
        assert target is None or target in ALLOWED_IN_PLUGINS, f"plugins must not import {dotted}"


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(ROOT)))
def test_light_parts_do_not_import_torch_when_they_are_imported(path: Path) -> None:
    if file_part(path) not in TORCH_FREE or path.name == "batch.py":
        return
    heavy = {d for d in imports(path, at_module_level=True) if d.split(".")[0] in ("torch", "transformers")}
    assert not heavy


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_command_line_prints(path: Path) -> None:
    if file_part(path) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not is_print, f"{path} prints"


LIGHT_COMMANDS = [
    ["--help"],
    ["--version"],
    ["train", "--help"],
    ["plugins", "list"],
    ["plugins", "list", "--json"],
    ["plugins", "show", "ppo"],
    ["recipes", "list"],
    ["recipes", "check", "countdown_ppo"],
    ["recipes", "show", "countdown_grpo"],
    ["tasks", "preview", "countdown", "-n", "2", "--json"],
]
PROBE = """
import json, sys
from reasonrl.cli.app import app

for arguments in json.loads(sys.argv[1]):
    print("$", *arguments)
    try:
        app(arguments, prog_name="reasonrl")
    except SystemExit as done:
        assert not done.code, (arguments, done.code)
    loaded = {name.split(".")[0] for name in sys.modules}
    heavy = loaded & {"torch", "transformers", "accelerate", "datasets", "vllm"}
    assert not heavy, (arguments, heavy)
"""


def test_light_commands_never_load_torch_and_fit_80_columns() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(LIGHT_COMMANDS)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "80", "REASONRL_PLUGINS": "reasonrl"},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for section in done.stdout.split("$ ")[1:]:
        command, *lines = section.splitlines()
        assert lines, command
        if "--json" not in command and "recipes show" not in command:
            assert max(map(len, lines)) <= 80, command
