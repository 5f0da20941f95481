"""The ``evaluation`` section of a recipe as frozen dataclasses."""

# ruff: noqa: RUF009 - ``option`` only wraps ``dataclasses.field``

import re
from dataclasses import dataclass
from typing import Any

from reasonrl.contracts.options import require
from reasonrl.recipe.fields import MANY, at_least, at_most, option, temperature

NAME_PATTERN = re.compile(r"^(?!\.)[A-Za-z0-9._-]{1,128}\Z")

Slot = dict[str, Any]
"""``{name: component, **fields of its config}``."""


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """One set of held-out problems."""

    problems: int = option("number of problems, from the start of the eval split", 256)
    samples: int = option("completions per problem", 1)
    pass_at: list[int] = option(
        "the k of pass@k and maj@k, each at most samples; empty = samples, if there are several", factory=list
    )
    temperature: float = option("0 = greedy", 1.0)
    top_p: float = option("sample from the fewest tokens whose probabilities sum to this; 1 = all tokens", 1.0)
    top_k: int | None = option("sample from this many most likely tokens; null = all tokens", None)
    max_completion_tokens: int | None = option("null = sampling.max_completion_tokens", None)
    task: Slot | None = option("another task; null = the recipe's", None)

    def __post_init__(self) -> None:
        at_least(self, 1, "problems", "samples", "max_completion_tokens", "top_k")
        at_most(self, MANY, "problems", "max_completion_tokens")
        at_most(self, MANY // self.problems, "samples")
        temperature(self.temperature, or_zero=True)
        require(0.0 < self.top_p <= 1.0, "top_p", "in (0, 1]", self.top_p)
        expected = f"different numbers from 1 to samples ({self.samples})"
        ks = self.pass_at
        require(len(set(ks)) == len(ks) and all(1 <= k <= self.samples for k in ks), "pass_at", expected, ks)
        if self.temperature == 0 and self.is_truncated:
            raise ValueError("top_p and top_k have no effect with temperature 0 (greedy); remove them")

    @property
    def is_truncated(self) -> bool:
        """Whether samples come from a part of the vocabulary."""
        return self.top_p < 1.0 or self.top_k is not None

    @property
    def ks(self) -> list[int]:
        """The k of pass@k and maj@k, in order."""
        return sorted(self.pass_at) or ([self.samples] if self.samples > 1 else [])


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When and on what the model is evaluated."""

    every: int = option("steps between evaluations; 0 = only before the first and after the last step", 20)
    suites: dict[str, SuiteConfig] = option(
        "suites by name; the first one selects the best checkpoint; null = no evaluation, <name>: null = disable it",
        factory=dict,
    )

    def __post_init__(self) -> None:
        at_least(self, 0, "every")
        for name in self.suites:
            require(bool(NAME_PATTERN.match(name)), "suites", f"named like {NAME_PATTERN.pattern}", name)
