"""Who may import whom, read from the source; and what the light commands must not load."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    "rundir": 2,
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
ALLOWED_IN_ANALYSIS = {"contracts", "rundir", "errors"}
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
    "rundir",
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


def wrong_core_imports(path: Path) -> Iterator[str]:
    part = file_part(path)
    if part in ANYWHERE or part == "__init__":
        return
    for dotted in imports(path):
        target = part_of(dotted)
        if target is None or target == part:
            continue
        if target in ANYWHERE:
            allowed = part == "cli"
        elif part == "analysis":
            allowed = target in ALLOWED_IN_ANALYSIS
        else:
            allowed = LEVELS[target] < LEVELS[part] or (part, target) in WITHIN_LEVEL
        if not allowed:
            yield f"{path.relative_to(ROOT)}: {part} imports {dotted}"


def test_every_part_has_a_level() -> None:
    known = LEVELS.keys() | ANYWHERE | {"__init__"}
    assert {file_part(path) for path in modules(CORE)} <= known, "add the part to LEVELS, as the design says"


def test_core_imports_point_downwards() -> None:
    assert not [fault for path in modules(CORE) for fault in wrong_core_imports(path)]


def test_core_imports_no_plugin() -> None:
    assert not [(path, d) for path in modules(CORE) for d in imports(path) if d.startswith("reasonrl_")]


def wrong_plugin_imports(path: Path) -> Iterator[str]:
    own = next(part for part in path.relative_to(PLUGINS).parts if part.startswith("reasonrl"))
    for dotted in imports(path):
        if dotted.startswith("reasonrl_") and dotted.split(".")[0] != own.replace("-", "_"):
            yield f"{path.relative_to(ROOT)}: {own} imports another plugin: {dotted}"
        if part_of(dotted) not in {None, *ALLOWED_IN_PLUGINS}:
            yield f"{path.relative_to(ROOT)}: {own} imports {dotted}"


def test_plugins_import_only_the_surface() -> None:
    assert not [fault for path in modules(PLUGINS) for fault in wrong_plugin_imports(path)]


def test_light_parts_do_not_import_torch_when_they_are_imported() -> None:
    light = [p for p in modules(CORE) if file_part(p) in TORCH_FREE and p.name != "batch.py"]
    heavy = ("torch", "transformers")
    assert not [(p, d) for p in light for d in imports(p, at_module_level=True) if d.split(".")[0] in heavy]


def prints(path: Path) -> bool:
    calls = (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


def test_only_the_command_line_prints() -> None:
    assert not [path for path in modules(CORE) if file_part(path) != "cli" and prints(path)]


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
