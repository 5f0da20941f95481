"""Create a plugin project from templates: package, recipe, tests, README, CI workflow."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from string import Template

from reasonrl.contracts.specs import NAME_PATTERN
from reasonrl.errors import PluginConflictError, RecipeError
from reasonrl.plugins import Kind, Plugins
from reasonrl.version import API_VERSION, __version__

TEMPLATES = Path(__file__).resolve().parent / "templates"
SUFFIX = ".tmpl"
MAX_NAME = 40
MODEL = "countdown-base"
"""The model that a new model plugin starts from."""
# Destination of each template; flat names with a suffix keep tools from picking templates up.
PLACES: Mapping[str, str] = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "gitignore": ".gitignore",
    "ci.yml": ".github/workflows/ci.yml",
    "init.py": "src/$package/__init__.py",
    "algorithm.py": "src/$package/algorithm.py",
    "backend.py": "src/$package/backend.py",
    "recipes.py": "src/$package/recipes/__init__.py",
    "recipe.yaml": "src/$package/recipes/${module}_smoke.yaml",
    "test_conformance.py": "tests/test_conformance.py",
}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The texts of a plugin kind. ``takes``: the component kinds that get its name."""

    about: str
    parts: str
    takes: tuple[Kind, ...] = ()
    commands: tuple[str, ...] = ()


OFFERS: Mapping[str, Offer] = {
    "task": Offer(
        about="The task $name for reasonrl.",
        parts="- `src/$package/__init__.py` is the whole plugin: problems, reference answers and the reward.",
        takes=("task", "reward"),
        commands=("reasonrl tasks preview $name",),
    ),
    "reward": Offer(
        about="The reward $name for reasonrl.",
        parts="- `src/$package/__init__.py` is the whole plugin: the reward of a completion.",
        takes=("reward",),
    ),
    "algorithm": Offer(
        about="The algorithm $name for reasonrl.",
        parts="- `src/$package/algorithm.py` computes advantages and the loss; `__init__.py` registers it without "
        "importing torch.",
        takes=("algorithm",),
    ),
    "rollout_backend": Offer(
        about="The rollout backend $name for reasonrl.",
        parts="- `src/$package/backend.py` samples; `__init__.py` registers it without importing torch.",
        takes=("rollout_backend",),
    ),
    "observer": Offer(
        about="The observer $name for reasonrl.",
        parts="- `src/$package/__init__.py` is the whole plugin: what happens after a step.",
    ),
    "model": Offer(
        about="The model $name for reasonrl.",
        parts=f"- `src/$package/models/$name` is the model, a copy of {MODEL}: replace it with your own folder.",
        takes=("model",),
        commands=("reasonrl generate $name",),
    ),
    "recipes": Offer(
        about="The recipes $name for reasonrl.",
        parts="- Every YAML file in the folder below is a packaged recipe; its first line is its summary.",
    ),
}
KINDS_OFFERED = tuple(OFFERS)
MULTI_TURN = "conversation"
"""The templates of a task that replies, instead of those of ``task``."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """The created project: folder, relative file paths, and commands to try next."""

    folder: Path
    files: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Maps paths in the project to their text or to the file to copy."""

    texts: Mapping[str, str]
    copies: Mapping[str, Path] = field(default_factory=dict)


def create(name: str, kind: str, parent: Path, plugins: Plugins, *, multi_turn: bool = False) -> Project:
    """Create the project ``reasonrl-<name>`` in the folder ``parent``, atomically.

    Args:
        name: Name of the component; a leading ``reasonrl-`` is dropped.
        kind: One of ``KINDS_OFFERED``.
        plugins: The installed plugins, whose names are taken.
        multi_turn: Whether the task replies to the model.

    Raises:
        RecipeError: If the name is invalid, the folder cannot be written, or ``multi_turn`` is set for another kind.
        PluginConflictError: If the name is taken.
    """
    if kind not in KINDS_OFFERED:
        raise RecipeError(f"kind must be one of {', '.join(KINDS_OFFERED)}, got {kind!r}")
    if multi_turn and kind != "task":
        raise RecipeError(f"--multi-turn is for --kind task, got {kind}")
    values = _values(_validate_name(name), kind)
    _refuse_taken(values, kind, plugins)
    folder = parent.expanduser() / values["distribution"]
    if folder.exists():
        raise RecipeError(f"{folder} already exists; use another name or --dir")
    contents = Contents(texts=_texts(MULTI_TURN if multi_turn else kind, values), copies=_copies(kind, values, plugins))
    try:
        _write(folder, contents)
    except OSError as err:
        raise RecipeError(f"cannot write {folder}: {err.strerror or err}") from err
    files = sorted([*contents.texts, *contents.copies])
    return Project(folder=folder, files=tuple(files), commands=_commands(kind, values))


def _validate_name(name: str) -> str:
    bare = name.removeprefix("reasonrl-").removeprefix("reasonrl_")
    if not NAME_PATTERN.match(bare) or len(bare) > MAX_NAME or bare.endswith(("-", "_")):
        raise RecipeError(
            f"name {name!r}: expected lower-case letters, digits, - and _, a letter first, at most {MAX_NAME}"
        )
    return bare


def _values(name: str, kind: str) -> dict[str, str]:
    module = name.replace("-", "_")
    slug = re.sub(r"[-_]+", "-", name)
    values = {
        "name": name,
        "kind": kind,
        "module": module,
        "package": f"reasonrl_{module}",
        "distribution": f"reasonrl-{slug}",
        "klass": "".join(part.capitalize() for part in module.split("_")),
        "bounds": _bounds(__version__),
        "api": str(API_VERSION),
        "year": str(date.today().year),
    }
    offer = OFFERS[kind]
    texts = {key: Template(text).substitute(values) for key, text in (("about", offer.about), ("parts", offer.parts))}
    return {**values, **texts, "commands": "\n".join(_commands(kind, values))}


def _bounds(version: str) -> str:
    """Return the version range for a new plugin: from this version to the next that may break the interface."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major + 1}" if major else f">=0.{minor},<0.{minor + 1}"


def _refuse_taken(values: Mapping[str, str], kind: str, plugins: Plugins) -> None:
    name = values["name"]
    names: list[tuple[Kind, str]] = [(taken, name) for taken in OFFERS[kind].takes]
    for key in (*names, ("recipe", f"{values['module']}_smoke")):
        if key in plugins.provided:
            owner = plugins.provided[key][0].record.label
            raise PluginConflictError(f"{key[0]} '{key[1]}' is provided by {owner}; use another name")
    for record in plugins.records:
        if record.name == name or record.distribution == values["distribution"]:
            raise PluginConflictError(f"plugin {record.label} is installed; use another name")


def _texts(templates: str, values: Mapping[str, str]) -> dict[str, str]:
    """Render the templates, by path in the project."""
    texts = {f"src/{values['package']}/py.typed": ""}
    for folder in (TEMPLATES / "common", TEMPLATES / templates):
        for template in sorted(folder.glob(f"*{SUFFIX}")):
            place = Template(PLACES[template.name.removesuffix(SUFFIX)]).substitute(values)
            texts[place] = Template(template.read_text(encoding="utf-8")).substitute(values)
    return texts


def _copies(kind: str, values: Mapping[str, str], plugins: Plugins) -> dict[str, Path]:
    if kind != "model":
        return {}
    place = f"src/{values['package']}/models/{values['name']}"
    source = Path(plugins.get("model", MODEL).path)
    return {f"{place}/{path.name}": path for path in sorted(source.iterdir()) if path.is_file()}


def _write(folder: Path, contents: Contents) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        for place in (*contents.texts, *contents.copies):
            (made / place).parent.mkdir(parents=True, exist_ok=True)
        for place, text in contents.texts.items():
            (made / place).write_text(text, encoding="utf-8")
        for place, source in contents.copies.items():
            shutil.copyfile(source, made / place)
        shutil.move(made, folder)


def _commands(kind: str, values: Mapping[str, str]) -> tuple[str, ...]:
    own = [Template(command).substitute(values) for command in OFFERS[kind].commands]
    check = f"reasonrl plugins check {values['distribution']}"
    return ("pip install -e . pytest", *own, check, f"reasonrl train {values['module']}_smoke", "pytest")
