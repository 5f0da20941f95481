"""A plugin project from templates: package, recipe, tests, read-me, CI workflow."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import reasonrl
from reasonrl.contracts.specs import NAME_PATTERN
from reasonrl.errors import PluginConflictError, RecipeError
from reasonrl.plugins import KINDS, Plugins

TEMPLATES = Path(__file__).resolve().parent / "templates"
KINDS_OFFERED = ("task", "reward", "algorithm", "rollout")
SUFFIX = ".tmpl"
MAX_NAME = 40
# Where a template goes; the names of templates are flat, and no tool takes them for what they are templates of.
PLACES: Mapping[str, str] = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "ci.yml": ".github/workflows/ci.yml",
    "init.py": "src/$package/__init__.py",
    "algorithm.py": "src/$package/algorithm.py",
    "engine.py": "src/$package/engine.py",
    "recipe.yaml": "recipes/${module}_smoke.yaml",
    "test_conformance.py": "tests/test_conformance.py",
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """What was written: the folder, its files relative to it, and commands to try next."""

    folder: Path
    files: tuple[str, ...]
    commands: tuple[str, ...]


def create(name: str, kind: str, parent: Path, plugins: Plugins) -> Project:
    """Write the project ``reasonrl-<name>`` into the folder ``parent``. All of it or nothing.

    Args:
        name: of the component; a leading ``reasonrl-`` is left out.
        kind: task, reward, algorithm or rollout.
        plugins: what is installed; its names are taken.
    Raises: RecipeError for a bad name or a folder that cannot be written, PluginConflictError for a taken name.
    """
    if kind not in KINDS_OFFERED:
        raise RecipeError(f"kind must be one of {', '.join(KINDS_OFFERED)}, got {kind!r}")
    values = _values(_checked(name), kind)
    _refuse_taken(values, kind, plugins)
    folder = parent.expanduser() / values["distribution"]
    if folder.exists():
        raise RecipeError(f"{folder}: exists already; give another name or --dir")
    texts = _texts(kind, values)
    try:
        _write(folder, texts)
    except OSError as err:
        raise RecipeError(f"{folder}: cannot be written: {err.strerror or err}") from err
    return Project(folder=folder, files=tuple(sorted(texts)), commands=_commands(kind, values))


def _checked(name: str) -> str:
    bare = name.removeprefix("reasonrl-").removeprefix("reasonrl_")
    if not NAME_PATTERN.match(bare) or len(bare) > MAX_NAME or bare.endswith(("-", "_")):
        raise RecipeError(
            f"name {name!r}: expected lower-case letters, digits, - and _, a letter first, at most {MAX_NAME}"
        )
    return bare


def _values(name: str, kind: str) -> dict[str, str]:
    module = name.replace("-", "_")
    slug = re.sub(r"[-_]+", "-", name)
    return {
        "name": name,
        "kind": kind,
        "module": module,
        "package": f"reasonrl_{module}",
        "distribution": f"reasonrl-{slug}",
        "klass": "".join(part.capitalize() for part in module.split("_")),
        "bounds": _bounds(reasonrl.__version__),
        "api": str(reasonrl.API_VERSION),
    }


def _bounds(version: str) -> str:
    """What a plugin written today requires: this version, below the next that may change the interface."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major + 1}" if major else f">=0.{minor},<0.{minor + 1}"


def _refuse_taken(values: Mapping[str, str], kind: str, plugins: Plugins) -> None:
    name = values["name"]
    kinds = ("task", "reward") if kind == "task" else (kind,)
    taken = [k for k in KINDS if k in kinds and (k, name) in plugins.provided]
    if taken:
        owner = plugins.provided[taken[0], name][0].record.label
        raise PluginConflictError(f"{taken[0]} '{name}' is provided by {owner}; give another name")
    for record in plugins.records:
        if record.name == name or record.distribution == values["distribution"]:
            raise PluginConflictError(f"plugin {record.label} is installed; give another name")


def _texts(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    """Path in the project -> text."""
    texts = {f"src/{values['package']}/py.typed": ""}
    for folder in (TEMPLATES / "common", TEMPLATES / kind):
        for template in sorted(folder.glob(f"*{SUFFIX}")):
            place = Template(PLACES[template.name.removesuffix(SUFFIX)]).substitute(values)
            texts[place] = Template(template.read_text(encoding="utf-8")).substitute(values)
    return texts


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        for place, text in texts.items():
            path = made / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        shutil.move(made, folder)


def _commands(kind: str, values: Mapping[str, str]) -> tuple[str, ...]:
    preview = (f"reasonrl tasks preview {values['name']}",) if kind == "task" else ()
    recipe = f"reasonrl train recipes/{values['module']}_smoke.yaml"
    check = f"reasonrl plugins check {values['distribution']}"
    return ("pip install -e . pytest", *preview, check, recipe, "pytest")
