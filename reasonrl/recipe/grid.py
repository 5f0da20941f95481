"""The points of a sweep: every combination of the values that overrides list. Torch-free."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from reasonrl.errors import RecipeError
from reasonrl.recipe.source import name_override, parse_value

MAX_LABEL = 40
MAX_NAME = 200
SAYS_NOTHING = ("name", "path")
"""Last parts of a key that need the part before them: ``algorithm.name``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One combination. ``name``: of its run folder, ``learning_rate=1e-4_seed=0``; ``values``: key -> text."""

    name: str
    values: Mapping[str, str]
    overrides: tuple[str, ...]


def grid(words: Sequence[str]) -> tuple[Point, ...]:
    """Combine ``key=value`` and ``key=value,value`` words; the last key varies fastest.

    Raises:
        RecipeError: If the values cannot be told apart, or no key has several.
    """
    axes = {key: values for key, values in _axes(words).items() if len(values) > 1}
    if not axes:
        raise RecipeError("nothing to vary: no key has several values; list them with commas, such as seed=0,1,2")
    names = short_names(list(axes))
    labels = {key: _labels(key, values) for key, values in axes.items()}
    fixed = [word for word in words if word.partition("=")[0].strip() not in axes]
    points = []
    for chosen in itertools.product(*(range(len(values)) for values in axes.values())):
        values = {key: axes[key][i] for key, i in zip(axes, chosen, strict=True)}
        parts = [f"{names[key]}={labels[key][i]}" for key, i in zip(axes, chosen, strict=True)]
        overrides = (*fixed, *(f"{key}={value}" for key, value in values.items()))
        points.append(Point(name=_fitting("_".join(parts)), values=values, overrides=overrides))
    return tuple(points)


def split_values(word: str) -> tuple[str, ...]:
    """The values of ``key=v1,v2``: commas in brackets, braces and quotes do not separate.

    Raises:
        RecipeError: If that is not a list of values.
    """
    raw = word.partition("=")[2]
    if "," not in raw:
        return (raw,)
    try:
        node = yaml.compose(f"[{raw}]", Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or raw.rstrip().endswith(","):
        raise RecipeError(
            f"{name_override(word)}: cannot tell its values apart; separate values with single commas, write a "
            "list in brackets, [a,b], and a text that has a comma in quotes, \"'a,b'\""
        )
    return tuple(raw[item.start_mark.index - 1 : item.end_mark.index - 1] for item in node.value)


def as_one_list(point: Point, key: str, words: Sequence[str]) -> tuple[str, ...]:
    """The overrides of ``point`` if all values of ``key`` were meant as one list."""
    (given,) = [word for word in words if word.partition("=")[0].strip() == key]
    return (*point.overrides, f"{key}=[{given.partition('=')[2]}]")


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> the shortest end of it that no other key has: ``learning_rate``, ``algorithm.name``."""
    return {key: next(end for end in _ends(key) if sum(_ends_with(k, end) for k in keys) == 1) for key in keys}


def _ends(key: str) -> Iterator[str]:
    parts = key.split(".")
    for count in range(1, len(parts)):
        if parts[-count:][0] not in SAYS_NOTHING:
            yield ".".join(parts[-count:])
    yield key


def _ends_with(key: str, end: str) -> bool:
    return key == end or key.endswith(f".{end}")


def _axes(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Key -> values. A key that is given again replaces the first, as in ``train``, if both have one value."""
    axes: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, values = word.partition("=")[0].strip(), split_values(word)
        if len(values) > 1 and not key:
            raise RecipeError(f"{name_override(word)}: expected section.key=value,value")
        if max(len(values), len(axes.get(key, ()))) > 1 and key in axes:
            raise RecipeError(f"{name_override(word)}: {key} is given twice; list all its values in one place")
        _refuse_repeats(word, key, values)
        axes[key] = values
    return axes


def _refuse_repeats(word: str, key: str, values: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for value in values if len(values) > 1 else ():
        meaning = json.dumps(parse_value(f"{key}={value}"))
        if meaning in seen:
            raise RecipeError(f"{name_override(word)}: {seen[meaning]} and {value} are the same value; remove one")
        seen[meaning] = value


def _labels(key: str, values: Sequence[str]) -> list[str]:
    """A readable text for each value that a folder may be named after; no two are the same in any letter case."""
    labels = [_label(parse_value(f"{key}={value}"), value) for value in values]
    lower = [label.lower() for label in labels]
    return [
        f"{label}-{_digest(value)}" if lower.count(label.lower()) > 1 else label
        for label, value in zip(labels, values, strict=True)
    ]


def _label(meaning: object, written: str) -> str:
    text = meaning if isinstance(meaning, str) else written
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text.strip("[]{}'\"/ "))[:MAX_LABEL] or "empty"


def _fitting(name: str) -> str:
    """File systems allow 255 bytes."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
