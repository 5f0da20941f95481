"""Who may import whom, read from the source; and what the light commands must not load."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from reasonrl.rundir import layout

ROOT = Path(__file__).parents[2]
CORE = ROOT / "reasonrl"
PLUGINS = ROOT / "plugins"

# A part may import the parts above it in this list, and itself. Those up to `recipe` never load torch.
ORDER = (
    "redact",
    "statistics",
    "text",
    "version",
    "signals",
    "restore",
    "errors",
    "importing",
    "contracts",
    "datafiles",
    "rundir",
    "analysis",
    "plugins",
    "rewards",
    "recipe",
    "export",
    "functional",
    "data",
    "conversations",
    "model",
    "evaluation",
    "observability",
    "trainer",
    "runs",
    "planning",
    "__init__",
    "scaffold",
    "testing",
    "cli",
    "__main__",
)
ALLOWED_IN_PLUGINS = {"__init__", "contracts", "functional", "testing", "errors", "datafiles"}
TORCH_FREE = {*ORDER[: ORDER.index("functional")], "__init__", "scaffold", "cli", "__main__"}


def modules(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def imports(path: Path, *, functions: bool = True, types: bool = True) -> Iterator[str]:
    """Dotted names that a file imports, inside functions and under ``if TYPE_CHECKING`` or not."""
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), functions=functions, types=types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def nodes(tree: ast.Module, *, functions: bool, types: bool) -> Iterator[ast.AST]:
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if not functions and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        yield node
        todo.extend(ast.iter_child_nodes(node))


def part_of(dotted: str) -> str | None:
    """The part of the core that ``reasonrl.x.y`` belongs to; None for what is not of the core."""
    first, _, rest = dotted.partition(".")
    part = rest.partition(".")[0]
    return None if first != "reasonrl" else part if part in ORDER else "__init__"


def file_part(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def wrong_core_imports(path: Path) -> Iterator[str]:
    part = file_part(path)
    for dotted in imports(path):
        target = part_of(dotted)
        if target is not None and ORDER.index(target) > ORDER.index(part):
            yield f"{path.relative_to(ROOT)}: {part} imports {dotted}"


def test_every_part_has_its_place() -> None:
    assert {file_part(path) for path in modules(CORE)} == set(ORDER), "a part is missing in ORDER, or gone"


def test_core_imports_point_downwards() -> None:
    assert not [fault for path in modules(CORE) for fault in wrong_core_imports(path)]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def file_graph(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Which file imports which, anywhere in the file but under TYPE_CHECKING."""
    named = {module_name(path): path for path in paths}
    found = {
        name: {d if d in named else d.rpartition(".")[0] for d in imports(named[name], types=False)} for name in named
    }
    return {name: targets & named.keys() - {name} for name, targets in found.items()}


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of a graph, as ``[a, b, a]``; empty if there is none."""
    left = dict(graph)
    while done := [name for name, targets in left.items() if not targets & left.keys()]:
        left = {name: targets for name, targets in left.items() if name not in done}
    path = [min(left)] if left else []
    while path and path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return path[path.index(path[-1]) :] if path else []


def test_no_file_imports_itself_through_others() -> None:
    graph = file_graph(modules(CORE))
    assert " -> ".join(find_circle(graph)) == ""
    graph["reasonrl.redact"] |= {"reasonrl.runs.start"}  # and one would be found
    assert {"reasonrl.redact", "reasonrl.runs.start"} <= set(find_circle(graph))


def texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_layout_of_a_run_folder_is_known_in_one_file() -> None:
    names = {layout.RUN, layout.METRICS, layout.SUMMARY, layout.TRACEBACK, layout.LOCK, layout.TRAINER_STATE, "step_"}
    others = [path for path in modules(CORE) if path != Path(layout.__file__)]
    assert not [(path, text) for path in others for text in texts(path) if text in names]


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
    assert not [(p, d) for p in light for d in imports(p, functions=False, types=False) if d.split(".")[0] in heavy]


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
        timeout=600,
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
