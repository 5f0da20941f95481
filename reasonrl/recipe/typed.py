"""Convert plain data to config dataclasses, with the full key path in every error.

The walk over nested dataclasses is ours, so that an error knows its whole path; each leaf is converted by
OmegaConf against the declared type.
"""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, Field, fields, is_dataclass, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from reasonrl.errors import RecipeError, one_line, usable_paths
from reasonrl.recipe.scalars import as_yaml
from reasonrl.recipe.source import Keys, Source, in_secret
from reasonrl.redact import REDACTED, hide_values
from reasonrl.text import suggest

T = TypeVar("T")

RENAMED = {
    "rollout": "rollout_backend",
    "algorithm.kl_coef": "algorithm.kl.coef",
    "algorithm.kl_estimator": "algorithm.kl.estimator",
}
"""Keys of earlier versions, for the error that names the new one."""


def build(cls: type[T], data: object, source: Source, at: Keys, *, of: str = "") -> T:
    """An instance of the dataclass ``cls`` from the mapping at ``at``.

    Args:
        of: what the keys belong to, for messages: ``"algorithm 'ppo'"``.

    Raises:
        RecipeError: for an unknown or missing key, a wrong type, or a value that ``cls`` itself refuses.
    """
    if not isinstance(data, Mapping):
        raise source.error(at, f" must be a mapping of keys, got {_got(data, at)}")
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in known:
            raise unknown_key(source, (*at, key), sorted(known), of)
    for name, spec in known.items():
        if name not in data and spec.default is MISSING and spec.default_factory is MISSING:
            raise source.error((*at, name), f" is missing{_help(spec)}")
    values = {key: _value(hints[key], data[key], source, (*at, key)) for key in data}
    try:
        with usable_paths(f"{source.where(at)}: {'.'.join(at)}"):
            return cls(**values)
    except RecipeError:
        raise
    except (ValueError, TypeError) as err:
        # A value from the environment is told as the recipe has it: ${oc.env:NAME}.
        written = {str(values[key]): str(data[key]) for key in data if "${" in str(data[key])}
        message = hide_values(one_line(err), written)
        cause = None if written else err
        if isinstance(err, TypeError):  # a __post_init__ that compares what a plain union let through
            raise source.error(at, f": {message}") from cause
        raise _refused(source, at, message, known, data) from cause


def _value(declared: object, value: object, source: Source, at: Keys) -> object:
    declared = _narrowed(declared, value)
    plain, optional = _strip_none(declared)
    if value is None and not optional:
        raise source.error(at, f" must be {type_text(declared)}, got null")
    if value is not None and isinstance(plain, type) and is_dataclass(plain):
        return build(plain, value, source, at)
    if value is not None and _is_typed_mapping(plain):
        if not isinstance(value, Mapping):
            raise source.error(at, f" must be a mapping of names, got {_got(value, at)}")
        item = get_args(plain)[1]
        return {name: _value(item, entry, source, (*at, name)) for name, entry in value.items()}
    return _leaf(declared, value, source, at)


def _leaf(declared: object, value: object, source: Source, at: Keys) -> object:
    if not _is_strictly(declared, value):
        raise source.error(at, f" must be {type_text(declared)}, got {_got(value, at)}{_spelling(declared, value)}")
    plain, _ = _strip_none(declared)
    if plain is int and isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise source.error(at, f" must be an integer in [-2**63, 2**63), got {show(value)}")
    if value is None or _is_converted(plain, value):
        _check_range(value, value, source, at)
        return deepcopy(value)  # this is most of a recipe, and OmegaConf takes 1 ms for each
    try:
        leaf = OmegaConf.structured(make_dataclass("Leaf", [("value", declared)]))
        node: object = OmegaConf.merge(leaf, {"value": value})["value"]  # type: ignore[index]
        result: object = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node
    except InterpolationResolutionError as err:
        # The text of a resolved value stays out of the message: it may be a secret.
        reason = "an environment variable is not set" if "not found" in str(err) else "its value is invalid"
        raise source.error(at, f" must be {type_text(declared)}, got {show(value)}: {reason}") from None
    except (OmegaConfBaseException, TypeError, ValueError) as err:
        if isinstance(err, RecipeError):
            raise
        cause = None if "${" in str(value) else err
        raise source.error(at, f" must be {type_text(declared)}, got {_got(value, at)}") from cause
    _check_range(result, value, source, at)
    return result


def _check_range(found: object, written: object, source: Source, at: Keys) -> None:
    """Refuse a number that float32 turns into 0 or infinity. An infinite one is left to the field's own range."""
    for number in found if isinstance(found, list) else (found,):
        size = abs(number) if isinstance(number, float) else 0.0
        if 0.0 < size < math.inf and not _TINY <= size <= _HUGE:
            raise source.error(at, f" must be 0 or from {_TINY:g} to {_HUGE:g} in size, got {_got(written, at)}")


def _is_converted(plain: object, value: object) -> bool:
    """Whether the value already is what OmegaConf would make of it."""
    if "${" in str(value):
        return False
    item = (get_args(plain) or (None,))[-1]
    if get_origin(plain) is list:
        return isinstance(value, list) and item in _SCALARS and all(type(entry) is item for entry in value)
    return (plain in _SCALARS and type(value) is plain) or (plain == dict[str, Any] and isinstance(value, dict))


def _is_strictly(declared: object, value: object) -> bool:
    """OmegaConf turns 3 into True and 010 into "8"; both are more likely mistakes than wishes."""
    plain, _ = _strip_none(declared)
    if value is None or (isinstance(value, str) and "${" in value):
        return True
    if plain is bool:
        return isinstance(value, bool)
    if plain is str:
        return isinstance(value, str)
    if plain in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(plain) is list and get_args(plain) and isinstance(value, list):
        return all(item is not None and _is_strictly(get_args(plain)[0], item) for item in value)
    return True


def _spelling(declared: object, value: object) -> str:
    """How YAML has the number that was meant by a text such as ``nan`` or ``-.5``."""
    plain, _ = _strip_none(declared)
    if get_origin(plain) is list and isinstance(value, list):
        return next(filter(None, (_spelling(get_args(plain)[0], item) for item in value)), "")
    spelled = as_yaml(value) if plain in (int, float) and isinstance(value, str) else ""
    return f"; write {spelled}" if spelled else ""


def _narrowed(declared: object, value: object) -> object:
    """Of a union with a list, what may hold the value: the list for a list, else the rest."""
    parts = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else ()
    lists = [part for part in parts if get_origin(part) is list]
    fitting = lists if isinstance(value, list) else [part for part in parts if part not in lists]
    return Union[tuple(fitting)] if lists and fitting else declared  # noqa: UP007 - of parts that are not written here


def _strip_none(declared: object) -> tuple[object, bool]:
    """``X | None`` -> (X, True); a union of several types is left as it is."""
    if declared is Any:
        return declared, True
    if get_origin(declared) not in (Union, types.UnionType):
        return declared, False
    rest = [arg for arg in get_args(declared) if arg is not type(None)]
    optional = len(rest) < len(get_args(declared))
    return (rest[0] if len(rest) == 1 else declared), optional


def _is_typed_mapping(declared: object) -> bool:
    return get_origin(declared) is dict and get_args(declared)[1] is not Any


_MAX_INT = 2**63
_TINY, _HUGE = 1.2e-38, 3.4e38
"""The normal numbers of float32."""
_SCALARS = (bool, int, float, str)
_NOUNS: dict[object, str] = {
    int: "an integer",
    float: "a number",
    str: "text (quote it)",
    bool: "true or false",
    dict: "a mapping",
    tuple: "a list",
    Path: "a path (text)",
}


def type_text(declared: object) -> str:
    """A type in words: ``an integer or null``."""
    if get_origin(declared) in (Union, types.UnionType):
        return " or ".join(type_text(arg) for arg in get_args(declared))
    if declared is type(None):
        return "null"
    if get_origin(declared) is Literal:
        return f"one of {', '.join(str(a) for a in get_args(declared))}"
    if get_origin(declared) is list:
        return f"a list, each item {type_text(get_args(declared)[0])}"
    if is_dataclass(declared):
        return "a mapping of keys"
    if isinstance(declared, type) and issubclass(declared, Enum):
        return f"one of {', '.join(str(entry.value) for entry in declared)}"
    return _NOUNS.get(get_origin(declared) or declared, getattr(declared, "__name__", str(declared)))


def _got(value: object, at: Keys) -> str:
    """A refused value as the user wrote it, unless its key says that it is a secret."""
    return REDACTED if in_secret(at, value) and "${" not in str(value) else show(value)


def show(value: object) -> str:
    """A value as the user wrote it, shortened."""
    if isinstance(value, Mapping):
        return f"a mapping with {len(value)} keys"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def unknown_key(source: Source, keys: Keys, known: Sequence[str], of: str) -> RecipeError:
    """What is wrong, the new name, the nearest valid key or the section that has this key."""
    if renamed := RENAMED.get(".".join(keys)):
        return source.error(keys, f": renamed to '{renamed}'")
    message = f": unknown key for {of}" if of else ": unknown key"
    section = ".".join(keys[:-1])
    places = [place for place in source.hints.get(keys[-1], []) if place != section]
    if places:
        message += f"; '{keys[-1]}' belongs in {' or '.join(places)}"
    elif hint := suggest(keys[-1], known):
        message += hint
    elif len(known) <= 20:
        message += f"; known: {', '.join(known) or 'none'}"
    return source.error(keys, message)


def _refused(
    source: Source, at: Keys, message: str, known: Mapping[str, Field[object]], data: Mapping[str, object]
) -> RecipeError:
    subject, _, rest = message.partition(" ")
    field_name = subject.rpartition(".")[2]
    if field_name in known:
        return source.error((*at, field_name), f" {rest}")
    return source.error(at, f": {message}" if at else message)


def _help(spec: Field[object]) -> str:
    text = spec.metadata.get("help")
    return f" ({text})" if text else ""
