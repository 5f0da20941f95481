"""Refuse misleading bare values of YAML 1.1: ``010`` is 8, ``1:30`` is 90, ``on`` is true.

A bare value is a number if YAML and Python parse it as the same number. Values that only YAML parses as a number or
boolean are refused, with the spelling to use. Values that only Python parses as a number (``nan``, ``-.5``) are text;
if the key expects a number, the error shows how to write it.
"""

import math
import re
from collections.abc import Callable, Iterator

import yaml
from omegaconf import OmegaConf

Place = tuple[tuple[str, ...], int]
"""Key path, and line counted from 1."""

_PLAIN_BOOLS = ("true", "false")
_READERS: tuple[Callable[[str], float], ...] = (int, lambda text: int(text, 0), float)
_NUMBER = re.compile(r"[-+]?\.?[0-9]")
_RESOLVER = yaml.SafeLoader("")


def surprises(root: yaml.Node) -> Iterator[tuple[Place, str]]:
    """Where a bare value is not what it looks like, with what to write instead."""
    found = [(place, node) for place, node in _scalars(root, (), set()) if _is_suspicious(node)]
    for place, node in found:
        if node.value == "=":
            yield place, "= is a special value in YAML; write '=' in quotes"
    plain = [(place, node.value) for place, node in found if node.value != "="]
    for (place, text), value in zip(plain, _read([text for _, text in plain]), strict=True):
        if message := _difference(text, value):
            yield place, message


def as_yaml(text: str) -> str:
    """The number that Python reads in ``text``, as YAML has it; empty if there is none."""
    number = _as_python(text)
    return "" if number is None else _spelled(number)


def _scalars(node: yaml.Node, at: tuple[str, ...], seen: set[int]) -> Iterator[tuple[Place, yaml.ScalarNode]]:
    """Every value; items of a list have the path of the list. An alias is looked at once, so it may be recursive."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield (at, node.start_mark.line + 1), node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item, at, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, (*at, str(key.value)), seen)


def _is_suspicious(node: yaml.ScalarNode) -> bool:
    """Bare, without a tag, and perhaps a number or a switch to one of the two."""
    implicit = _RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False))
    if node.style not in (None, "") or node.tag != implicit:  # libyaml says "" for a bare one
        return False
    kind = implicit.rpartition(":")[2]
    # OmegaConf reads 1e-4 as a number, which YAML 1.1 does not.
    return kind in ("bool", "int", "float", "value") or _NUMBER.match(node.value) is not None


def _read(texts: list[str]) -> list[object]:
    """What a recipe's reader makes of bare values."""
    if not texts:
        return []
    try:
        return list(OmegaConf.create("\n".join(f"- {text}" for text in texts)))
    except ValueError:  # more digits than Python reads; the file's own reader says so
        return [0] * len(texts)


def _as_python(text: str) -> float | None:
    for read in _READERS:
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    return None


def _difference(text: str, value: object) -> str:
    """What is surprising in the value of a bare text; empty if nothing is."""
    quoted = f"'{text}' in quotes for text"
    if isinstance(value, bool):
        spelled = str(value).lower()
        return "" if text.lower() in _PLAIN_BOOLS else f"{text} is {spelled} in YAML; write {spelled}, or {quoted}"
    python = _as_python(text)
    if not isinstance(value, int | float) or (python is None and not math.isfinite(value)):
        return ""  # null, or YAML's own .inf and .nan
    if not math.isfinite(value):
        return f"{text} is too large for a number; write .inf, or {quoted}"
    if python is None:
        return f"{text} is {_spelled(value)} in YAML; write {_spelled(value)}, or {quoted}"
    if value != python:
        both = f"{_spelled(value)} or {_spelled(python)}"
        return f"{text} is {_spelled(value)} in YAML; write {both}, or {quoted}"
    return ""


def _spelled(number: float) -> str:
    if math.isnan(number):
        return ".nan"
    if math.isinf(number):
        return ".inf" if number > 0 else "-.inf"
    return repr(number)
