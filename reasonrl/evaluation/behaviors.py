"""Behaviors of a suite's completions: those of the task, and general ones for any text."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from numbers import Real

from reasonrl.contracts.data import Completion, Problem, RewardOutput, ScoredGroup
from reasonrl.contracts.protocols import Task
from reasonrl.errors import RAISABLE, plugin_code
from reasonrl.evaluation.keywords import keyword_counts
from reasonrl.redact import WarnOnce, redacting_logger
from reasonrl.rewards.judging import UNSCORABLE

log = redacting_logger(__name__)

NAME = re.compile(r"[a-z][a-z0-9_]*")


class BehaviorMeter:
    """Measures the behaviors of one suite. Errors of the task are logged once and counted."""

    def __init__(self) -> None:
        self._warn_once = WarnOnce(log)

    def measure(self, task: Task, task_name: str, groups: Sequence[ScoredGroup]) -> dict[str, float]:
        """Average each behavior over the completions it applies to, without aborted completions.

        If the task describes behaviors, ``failed_frac`` is the share of completions for which it failed.
        """
        judged = [
            (group.group.request.problem, completion, reward)
            for group in groups
            for completion, reward in zip(group.group.completions, group.rewards, strict=True)
            if completion.finish_reason not in UNSCORABLE
        ]
        describe = getattr(task, "behaviors", None)
        own: list[Mapping[str, float]] = []
        failed: dict[str, float] = {}
        if describe is not None and judged:
            described = [self._describe(describe, task_name, p, c.text) for p, c, _ in judged]
            own = [figures for figures in described if figures is not None]
            failed = {"failed_frac": 1.0 - len(own) / len(described)}
        general = [_general(completion, reward) for _, completion, reward in judged]
        return {**means(own), **means(general), **failed}

    def _describe(
        self, describe: Callable[[Problem, str], object], task_name: str, problem: Problem, text: str
    ) -> Mapping[str, float] | None:
        own_copy = replace(problem, info=deepcopy(dict(problem.info)))
        try:
            with plugin_code(f"task {task_name!r}: behaviors"):
                return _validate(describe(own_copy, text))
        except RAISABLE as err:  # a plugin may raise anything; what a run does must not depend on a figure about it
            self._warn_once(task_name, "task %r: behaviors failed; skipping the completion", task_name, error=err)
            return None


def means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each name over the entries that have it, in order of first appearance."""
    values: dict[str, list[float]] = {}
    for one in figures:
        for name, value in one.items():
            if not math.isnan(value):
                values.setdefault(name, []).append(value)
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def _general(completion: Completion, reward: RewardOutput) -> dict[str, float]:
    figures: dict[str, float] = {}
    if reward.correct is not None:
        name = "length_tokens_correct" if reward.correct else "length_tokens_wrong"
        figures[name] = float(completion.sampled_tokens)
    for name, hits in keyword_counts("\n".join(completion.replies)).items():
        figures[f"keyword_{name}"] = float(hits > 0)
        figures[f"keyword_{name}_hits"] = float(hits)
    return figures


def _validate(raw: object) -> dict[str, float]:
    """Validate a result of ``Task.behaviors``; raise ValueError if it is invalid."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"behaviors returned {type(raw).__name__}, expected a mapping of names to numbers")
    figures: dict[str, float] = {}
    for name, value in raw.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"behaviors returned the name {name!r}, expected one like 'attempts_made'")
        if not isinstance(value, Real) or math.isinf(value):
            raise ValueError(f"behaviors returned {value!r} for {name!r}, expected a finite number or NaN")
        figures[name] = float(value)
    return figures
