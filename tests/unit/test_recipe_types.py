"""The types that a plugin's config may declare, what they accept, and what they say when they do not."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from reasonrl.errors import RecipeError
from reasonrl.recipe.sampling import SamplingConfig
from reasonrl.recipe.schema import CriticConfig, OptimizerConfig, TrainerConfig
from reasonrl.recipe.source import Source
from reasonrl.recipe.suites import SuiteConfig
from reasonrl.recipe.typed import build


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    x: int = 1


@dataclass(frozen=True)
class Config:
    path: Path = Path("x")
    either: int | str = 1
    several: str | list[str] | None = None
    maybe: Optional[int] = None  # noqa: UP045 - the older spelling must work too
    numbers: list[float] = field(default_factory=list)
    nested: list[list[int]] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    part: Part | None = None
    parts: list[Part] = field(default_factory=list)
    named: dict[str, Part] = field(default_factory=dict)
    color: Color = Color.RED
    anything: Any = None
    choice: Literal[1, 2] = 1
    ratio: float = 1.0
    pair: tuple[int, ...] = ()


def build_config(data: dict[str, Any]) -> Config:
    return build(Config, data, Source(path=Path("r.yaml"), data={}), ("task",))


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("path", "a/b", Path("a/b")),
        ("either", "z", "z"),
        ("either", 3, 3),
        ("several", "a", "a"),
        ("several", ["a", "b"], ["a", "b"]),
        ("several", None, None),
        ("maybe", 3, 3),
        ("maybe", None, None),
        ("numbers", [1, 2.5], [1.0, 2.5]),
        ("nested", [[1], []], [[1], []]),
        ("table", {"a": 1}, {"a": 1.0}),
        ("part", {"x": 2}, Part(x=2)),
        ("parts", [{"x": 2}], [Part(x=2)]),
        ("named", {"a": {}}, {"a": Part()}),
        ("color", "red", Color.RED),
        ("anything", {"k": [1]}, {"k": [1]}),
        ("choice", 2, 2),
        ("ratio", 2, 2.0),
        ("pair", [1, 2], (1, 2)),
    ],
)
def test_accepted(key: str, given: Any, expected: Any) -> None:
    found = getattr(build_config({key: given}), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("maybe", 2.0, "task.maybe must be an integer or null, got 2.0"),
        ("maybe", "3", "task.maybe must be an integer or null, got '3'; write 3"),
        ("numbers", ["a"], "task.numbers must be a list, each item a number, got ['a']"),
        ("numbers", [1, True], "task.numbers must be a list, each item a number, got [1, True]"),
        ("numbers", 3, "task.numbers must be a list, each item a number, got 3"),
        ("table", {"a": "x"}, "task.table.a must be a number, got 'x'"),
        ("table", {"a": None}, "task.table.a must be a number, got null"),
        ("part", {"z": 2}, "task.part.z: unknown key; known: x"),
        ("named", {"a": {"x": "y"}}, "task.named.a.x must be an integer, got 'y'"),
        ("named", {"a": None}, "task.named.a must be a mapping of keys, got null"),
        ("choice", 3, "task.choice must be one of 1, 2, got 3"),
        ("ratio", "1e-3", "task.ratio must be a number, got '1e-3'; write 0.001"),
        ("ratio", None, "task.ratio must be a number, got null"),
        ("color", 3, "task.color must be one of red, got 3"),
        ("part", 3, "task.part must be a mapping of keys, got 3"),
        ("parts", [3], "task.parts must be a list, each item a mapping of keys, got [3]"),
        ("pair", 3, "task.pair must be a list, got 3"),
        ("path", 3, "task.path must be a path (text), got 3"),
    ],
)
def test_refused(key: str, given: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_config({key: given})
    assert str(caught.value) == f"r.yaml: {message}"


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (TrainerConfig, {"steps": 1, "prompts_per_step": 1, "update_epochs": 10**9}, "update_epochs must be <= 10000"),
        (OptimizerConfig, {"learning_rate": 1e300}, r"learning_rate must be <= 1e\+38"),
        (CriticConfig, {"learning_rate": 1e300}, r"learning_rate must be <= 1e\+38"),
        (SamplingConfig, {"temperature": 1e-300}, r"temperature must be in \[0.001, 1000\]"),
        (SamplingConfig, {"temperature": 1e300}, r"temperature must be in \[0.001, 1000\]"),
        (SamplingConfig, {"temperature": float("nan")}, "temperature must be"),
        (SuiteConfig, {"temperature": 1e-300}, r"temperature must be 0, or in \[0.001, 1000\]"),
        (SuiteConfig, {"temperature": -0.5}, "temperature must be 0"),
    ],
)
def test_numbers_that_no_computation_survives_are_refused(config: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)
    SuiteConfig(temperature=0.0)
