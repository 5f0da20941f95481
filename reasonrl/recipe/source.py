"""Read recipe files into plain data: YAML, ``extends``, overrides, and the file and line of each key."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasonrl.errors import RecipeError, one_line
from reasonrl.recipe.limits import LOADER, MAX_BYTES, refuse_oversized, too_large
from reasonrl.recipe.scalars import as_yaml, surprises
from reasonrl.redact import REDACTED, holds_secret, is_secret_name, looks_secret, redact_text, remember
from reasonrl.text import clip

Keys = tuple[str, ...]

SLOTS = ("task", "algorithm", "rollout_backend")
SUITES = ("evaluation", "suites")
_ENV = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)(,[^${}]*)?\}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_PARENTS = 16


@dataclass(kw_only=True)
class Source:
    """Plain recipe data and, for each key path, where its value was written."""

    path: Path
    data: dict[str, Any]
    origins: dict[Keys, str] = field(default_factory=dict)
    is_extended: bool = False
    """It has a parent, which is merged into ``data``."""
    hints: dict[str, list[str]] = field(default_factory=dict)
    """Key name -> the dotted places where a key of that name is valid."""

    def where(self, keys: Keys) -> str:
        """``recipes/x.yaml:12`` or ``override 'x=y'`` of the key, or of the closest one that contains it."""
        for length in range(len(keys), 0, -1):
            if origin := self.origins.get(keys[:length]):
                return origin
        return str(self.path)

    def folder(self, keys: Keys) -> Path | None:
        """The folder of the file that wrote the key; None for an override."""
        file, _, line = self.where(keys).rpartition(":")
        return Path(file).parent if line.isdecimal() else None

    def error(self, keys: Keys, message: str) -> RecipeError:
        """An error about ``keys``; ``message`` follows the dotted key: `` must be ...`` or ``: ...``."""
        return RecipeError(one_line(f"{self.where(keys)}: {'.'.join(keys)}{message}"))


def read_source(path: Path, overrides: Sequence[str]) -> Source:
    """Read a recipe, its ancestors and the overrides.

    Raises:
        RecipeError: with file and line for anything that is not a mapping of plain data.
    """
    source = _read_chain(path, ())
    _apply_overrides(source, overrides)
    _check_values(source)
    return source


def command_line_source(slot: str, name: str, options: Sequence[str]) -> Source:
    """A source that holds one slot, given as a component's name and ``key=value`` options."""
    source = Source(path=Path("command line"), data={slot: {"name": name}})
    for option in options:
        keys, value, origin = _parse_override(option)
        _insert(source, (slot, *keys), value, origin.replace("override", "option", 1))
    _check_values(source)
    return source


def _read_chain(path: Path, below: tuple[Path, ...]) -> Source:
    if len(below) > _MAX_PARENTS:
        raise RecipeError(f"{path}: more than {_MAX_PARENTS} recipes that extend one another; merge some")
    if path.resolve() in below:
        raise RecipeError(f"{path}: extends itself, through {' -> '.join(str(p.name) for p in below)}")
    source = parse_text(path, _read_text(path))
    parent = source.data.pop("extends", None)
    if parent is None:
        return source
    if not isinstance(parent, str):
        raise source.error(("extends",), f" must be the path of one recipe file, got {parent!r}")
    target = path.parent / parent
    if not os.path.isfile(target):
        raise source.error(("extends",), f": no such file: {target}")
    base = _read_chain(target, (*below, path.resolve()))
    merge_into(base.data, source.data, base.origins, source.origins)
    return Source(path=path, data=base.data, origins=base.origins, is_extended=True)


def parse_text(path: Path, text: str) -> Source:
    """The data of one file, ``extends`` among them.

    Raises:
        RecipeError: with file and line.
    """
    origins: dict[Keys, str] = {}
    try:
        refuse_oversized(text, str(path))
        node = yaml.compose(text, Loader=LOADER)
        if node is None:
            raise RecipeError(f"{path}: is empty; see `reasonrl recipes list` for examples to copy")
        _refuse_duplicates(path, node, set())
        for (keys, line), message in surprises(node):
            if not in_secret(keys, message):
                raise RecipeError(f"{path}:{line}: {'.'.join(keys)}: {one_line(message)}")
        data = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except yaml.YAMLError as err:
        raise RecipeError(_yaml_text(path, err)) from err
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as err:
        if isinstance(err, RecipeError):
            raise
        raise RecipeError(f"{path}: {one_line(err)}") from err
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}:1: a recipe must be a mapping of keys, got {_kind(node)}")
    _collect_lines(path, node, (), origins)
    return Source(path=path, data=data, origins=origins)  # type: ignore[arg-type]


def _read_text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise too_large(str(path), size)
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise RecipeError(f"{path}: not a text file (UTF-8 expected)") from err
    except OSError as err:
        raise RecipeError(f"{path}: cannot be read: {err.strerror}") from err


def _yaml_text(path: Path, err: yaml.YAMLError) -> str:
    mark = getattr(err, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    problem = getattr(err, "problem", None) or str(err)
    return one_line(f"{path}{line}: not valid YAML: {problem}")


def _kind(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _refuse_duplicates(path: Path, node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in first and key.value != "<<":
            raise RecipeError(f"{path}:{line}: duplicate key '{key.value}', first on line {first[key.value]}")
        if isinstance(key, yaml.ScalarNode):
            first[key.value] = line
        _refuse_duplicates(path, value, seen)


def _collect_lines(path: Path, node: yaml.Node, at: Keys, origins: dict[Keys, str]) -> None:
    # Only called after OmegaConf has refused recursive and exploding aliases.
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        keys = (*at, str(key.value))
        origins[keys] = f"{path}:{key.start_mark.line + 1}"
        _collect_lines(path, value, keys, origins)


def merge_into(
    base: dict[str, object], child: Mapping[str, object], base_origins: dict[Keys, str], child_origins: dict[Keys, str]
) -> None:
    """Merge ``child`` over ``base`` in place, key by key; lists, empty mappings and null replace.

    A slot whose ``name`` changes replaces the whole slot, so that no field of another component is inherited;
    ``model.path`` replaces ``model.name`` and the other way round. Null takes a suite away.
    """
    replaced: set[Keys] = set()
    dropped: set[Keys] = set()
    _merge(base, child, (), replaced, dropped)
    _forget(base_origins, replaced)
    base_origins.update(child_origins)
    _forget(base_origins, dropped)


def _merge(
    base: dict[str, object], child: Mapping[str, object], at: Keys, replaced: set[Keys], dropped: set[Keys]
) -> None:
    """``replaced``: keys whose origins in ``base`` are gone; ``dropped``: those gone from ``child`` too."""
    if _replaces(base, child, at):
        replaced.update((*at, key) for key in base)
        base.clear()
    for key, value in child.items():
        keys, below = (*at, key), base.get(key)
        if value is None and at == SUITES and key in base:
            del base[key]
            dropped.add(keys)
        elif isinstance(value, dict) and value and isinstance(below, dict):
            _merge(below, value, keys, replaced, dropped)
        else:
            base.pop(key, None)  # a replaced key moves to the end
            base[key] = value
            replaced.add(keys)
    if at == ("model",) and (child.get("path") or child.get("name")):
        for key in ("path", "name"):
            if child.get(key) is None and base.pop(key, dropped) is not dropped:
                dropped.add((*at, key))


def _replaces(base: Mapping[str, object], child: Mapping[str, object], at: Keys) -> bool:
    is_slot = (len(at) == 1 and at[0] in SLOTS) or (at[:2] == SUITES and at[3:] == ("task",))
    return is_slot and "name" in child and child["name"] != base.get("name")


def _forget(origins: dict[Keys, str], gone: set[Keys]) -> None:
    for known in [k for k in origins if any(k[:length] in gone for length in range(1, len(k) + 1))]:
        del origins[known]


def _apply_overrides(source: Source, overrides: Sequence[str]) -> None:
    # Names first: a changed name clears its slot, and must not clear what another override puts into it.
    parsed = [_parse_override(text) for text in overrides]
    for keys, value, origin in sorted(parsed, key=lambda p: p[0][-1] != "name"):
        _insert(source, keys, value, origin)


def _insert(source: Source, keys: Keys, value: object, origin: str) -> None:
    nested = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        nested = {key: nested}
    origins = {keys[:length]: origin for length in range(1, len(keys) + 1)}
    # The sections around the key stay where they were written; only the key is new.
    known = {k: v for k, v in source.origins.items() if k in origins and k != keys}
    merge_into(source.data, nested, source.origins, origins)
    source.origins.update(known)


def _parse_override(text: str) -> tuple[Keys, object, str]:
    dotted, equals, raw = text.partition("=")
    keys = tuple(dotted.strip().split("."))
    origin = name_override(text)
    if not equals or not all(keys):
        raise RecipeError(f"{origin}: expected section.key=value")
    if not raw.strip():
        raise RecipeError(f"{origin}: no value; write {dotted}=null or {dotted}=\"''\"")
    try:
        _refuse_surprises(f"value: {raw}", keys, origin)
        value = OmegaConf.to_container(OmegaConf.create(f"value: {raw}"), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as err:
        if isinstance(err, RecipeError):
            raise
        problem = getattr(err, "problem", None) or one_line(err)
        raise RecipeError(f"{origin}: the value is not valid YAML: {one_line(problem)}") from err
    if not isinstance(value, dict) or set(value) != {"value"}:
        raise RecipeError(f"{origin}: the value is not valid YAML")
    return keys, value["value"], origin


def name_override(text: str) -> str:
    """``override 'key=value'``, as errors name it; without secrets."""
    keys = tuple(text.partition("=")[0].strip().split("."))
    return f"override '{clip(one_line(_without_secret(text, keys)), 120)}'"


def parse_value(override: str) -> object:
    """The value of ``key=value``.

    Raises:
        RecipeError: If it is not YAML.
    """
    return _parse_override(override)[1]


def _refuse_surprises(text: str, keys: Keys, origin: str) -> None:
    refuse_oversized(text, origin)
    node = yaml.compose(text, Loader=LOADER)
    for (below, _), message in surprises(node) if node is not None else ():
        at = (*keys, *below[1:])
        if not in_secret(at, message):
            raise RecipeError(f"{origin}: {'.'.join(at)}: {one_line(message)}")


def _without_secret(text: str, keys: Keys) -> str:
    return f"{'.'.join(keys)}={REDACTED}" if is_secret_name(keys[-1]) and "${" not in text else redact_text(text)


def _check_values(source: Source) -> None:
    for keys, value in leaves(source.data):
        if any(not isinstance(key, str) for key in keys):
            text = tuple(str(key) for key in keys)
            raise source.error(text, f": a key must be text, got {keys[-1]!r}; quote it")
        _refuse_secrets(source, keys, value)
        if not all(map(_is_writable, (*keys, value))):
            raise source.error(keys, ": a zero byte or half a character (a surrogate); remove it")
        if not isinstance(value, str):
            continue
        if value == "???":
            raise source.error(keys, " has no value; set it here or with key=value on the command line")
        if "${" in _ENV.sub("", value):
            got = REDACTED if in_secret(keys, value) else repr(value)
            raise source.error(keys, f": only ${{oc.env:NAME}} can be interpolated, got {got}")
        _remember_secrets(keys, value)


def _is_writable(value: object) -> bool:
    """Whether no file, path or terminal would refuse it."""
    return not isinstance(value, str) or ("\0" not in value and _SURROGATE.search(value) is None)


def _refuse_secrets(source: Source, keys: Keys, value: object) -> None:
    """A literal secret would lie in the run folder, in the shell's history and in the list of processes."""
    written = _ENV.sub(lambda found: found[2] or "", value) if isinstance(value, str) else value
    is_asked_for = isinstance(value, str) and not _ENV.sub("", value)
    if (in_secret(keys, written) and not (is_asked_for and written in ("", ",", ",null"))) or (
        isinstance(written, str) and looks_secret(written)
    ):
        raise source.error(keys, " must not be written into a recipe; use ${oc.env:NAME}")


def in_secret(keys: Keys, value: object) -> bool:
    """Whether the key, or a section around it, is named as a secret. Names that the user gives do not count."""
    own = [key for index, key in enumerate(keys) if not is_given_name(keys, index)]
    return any(holds_secret(key, value) for key in own)


def is_given_name(keys: Keys, index: int) -> bool:
    """The name of a reward or of a suite, which stands where others have a key."""
    return keys[:index] in (("rewards",), SUITES)


def _remember_secrets(keys: Keys, value: str) -> None:
    """What a recipe takes from the environment for a plugin, or by a secret's name, must not turn up in a text."""
    for found in _ENV.finditer(value):
        held = os.environ.get(found[1], "")
        for_plugin = keys[0] in (*SLOTS, "rewards") or "task" in keys
        is_secret = in_secret(keys, held) or is_secret_name(found[1])
        if is_secret or (for_plugin and not os.path.exists(held)):
            remember(held)


def leaves(data: object, at: Keys = ()) -> Iterator[tuple[Keys, object]]:
    """Every scalar with its key path; items of a list have the path of the list."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if not isinstance(key, str):
                yield (*at, key), None
            yield from leaves(value, (*at, key))
    elif isinstance(data, list):
        for item in data:
            yield from leaves(item, at)
    else:
        yield at, data


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader could take for a number, such as '1e-4' and 'nan'."""


def _text_node(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if as_yaml(text) else None)


_Dumper.add_representer(str, _text_node)


def to_yaml(data: Mapping[str, object]) -> str:
    """The data as YAML, in the order of the recipe."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
