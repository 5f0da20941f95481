"""Scores groups with every reward of a recipe and combines the scores.

A reward that raises or returns nonsense leaves that completion *unscored*: masked in training, out of the group's
statistics, counted; never a silent 0. The first traceback of each reward goes to the log, later ones are counted.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol

from reasonrl.contracts.data import (
    Completion,
    FinishReason,
    Problem,
    RewardOutput,
    RolloutGroup,
    Score,
    ScoredGroup,
)
from reasonrl.contracts.protocols import GroupReward, Reward, RewardContext
from reasonrl.contracts.specs import RewardSpec
from reasonrl.errors import RAISABLE, PluginContractError

log = logging.getLogger(__name__)

UNSCORABLE = frozenset({FinishReason.ABORT, FinishReason.ERROR})


class _BadScoreError(ValueError):
    """A score that breaks the contract; says what is wrong with it."""


class RewardSlot(Protocol):
    """A resolved reward of a recipe."""

    @property
    def spec(self) -> RewardSpec: ...
    @property
    def config(self) -> Any: ...
    @property
    def weight(self) -> float: ...


class Builder(Protocol):
    """Builds components from specs; the plugin registry is one."""

    def build(self, spec: Any, config: Any, context: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Judge:
    name: str
    spec: RewardSpec
    reward: Any
    weight: float


class RewardRunner:
    """All rewards of one recipe, in its order."""

    def __init__(self, judges: Sequence[_Judge], logged: set[tuple[str, str]]) -> None:
        self._judges = tuple(judges)
        self._logged = logged

    @classmethod
    def build(
        cls,
        rewards: Mapping[str, RewardSlot],
        plugins: Builder,
        context: RewardContext,
        logged: set[tuple[str, str]] | None = None,
    ) -> "RewardRunner":
        """Build every reward of ``rewards`` (name -> spec, config, weight).

        ``logged`` remembers what was complained of; runners that share it complain once between them.
        """
        judges = [_build_judge(name, slot, plugins, context) for name, slot in rewards.items()]
        return cls(judges, set() if logged is None else logged)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(judge.name for judge in self._judges)

    def score(self, group: RolloutGroup) -> ScoredGroup:
        """One ``RewardOutput`` for each completion of ``group``."""
        columns = [self._judge_group(judge, group) for judge in self._judges]
        outputs = tuple(
            self._combine([column[i] for column in columns]) for i in range(len(group.completions))
        )
        return ScoredGroup(group=group, rewards=outputs)

    def _judge_group(self, judge: _Judge, group: RolloutGroup) -> list[Score]:
        if isinstance(judge.reward, GroupReward):
            own = replace(group, request=replace(group.request, problem=_own_copy(group.request.problem)))
            raw = self._guard(judge, lambda: list(judge.reward.score_group(own)))
            if isinstance(raw, Score):
                return [raw] * len(group.completions)
            if len(raw) != len(group.completions):
                reason = f"returned {len(raw)} scores for {len(group.completions)} completions"
                return [self._refuse(judge, reason)] * len(group.completions)
            pairs = list(zip(raw, group.completions, strict=True))
        else:
            pairs = [(self._score_one(judge, group, c), c) for c in group.completions]
        return [self._checked(judge, value, completion) for value, completion in pairs]

    def _score_one(self, judge: _Judge, group: RolloutGroup, completion: Completion) -> Any:
        if completion.finish_reason in UNSCORABLE:
            return Score(value=None, reason=completion.finish_reason.value)
        problem = _own_copy(group.request.problem)
        return self._guard(judge, lambda: judge.reward.score(problem, completion))

    def _guard(self, judge: _Judge, call: Any) -> Any:
        try:
            return call()
        except RAISABLE as err:  # a reward may raise anything; the completion stays unscored
            return self._raised(judge, err)

    def _raised(self, judge: _Judge, err: BaseException) -> Score:
        if (judge.name, "raised") not in self._logged:
            self._logged.add((judge.name, "raised"))
            log.warning("reward %r raised; the completion stays unscored", judge.name, exc_info=err)
        return Score(value=None, reason=f"raised {type(err).__name__}")

    def _checked(self, judge: _Judge, raw: Any, completion: Completion) -> Score:
        if completion.finish_reason in UNSCORABLE:
            return Score(value=None, reason=completion.finish_reason.value)
        try:
            score = _as_score(raw)
            _check_fit(score, judge.spec, completion)
        except _BadScoreError as err:
            return self._refuse(judge, str(err))
        except RAISABLE as err:  # a lazy value, such as a generator of token values, is the reward's own code
            return self._raised(judge, err)
        return score

    def _refuse(self, judge: _Judge, problem: str) -> Score:
        if (judge.name, "refused") not in self._logged:
            self._logged.add((judge.name, "refused"))
            log.warning("reward %r %s; the completion stays unscored", judge.name, problem)
        return Score(value=None, reason=problem)

    def _combine(self, scores: Sequence[Score]) -> RewardOutput:
        named = list(zip(self._judges, scores, strict=True))
        values = [score.value for score in scores]
        unscored = any(value is None for value in values)
        total = None if unscored else sum(j.weight * s.value for j, s in named if s.value is not None)
        return RewardOutput(
            total=total,
            components={judge.name: score.value for judge, score in named},
            correct=None if unscored else _verdict(named),
            answer=next((s.answer for s in scores if s.answer is not None), None),
            token_values=() if unscored else _add_token_values(named),
            metrics={f"{j.name}/{key}": value for j, s in named for key, value in s.metrics.items()},
            reasons={judge.name: score.reason for judge, score in named if score.reason},
        )


def _build_judge(name: str, slot: RewardSlot, plugins: Builder, context: RewardContext) -> _Judge:
    if slot.spec.isolation != "inline":
        raise PluginContractError(
            f"reward {name!r} asks for isolation {slot.spec.isolation!r}; this version runs 'inline' rewards only"
        )
    reward = plugins.build(slot.spec, slot.config, context)
    if not isinstance(reward, (Reward, GroupReward)):
        raise PluginContractError(
            f"reward {name!r}: its factory returned {type(reward).__name__}, "
            "which has neither score(problem, completion) nor score_group(group)"
        )
    return _Judge(name, slot.spec, reward, slot.weight)


def _own_copy(problem: Problem) -> Problem:
    """``info`` holds lists that a reward could sort or empty, for itself and for every later epoch."""
    return replace(problem, info=deepcopy(dict(problem.info)))


def _as_score(raw: Any) -> Score:
    """``raw`` as a Score of plain Python values: numbers of other libraries would not go into JSON.

    Raises: _BadScoreError saying what is wrong with it; whatever a lazy value of the reward's raises.
    """
    if raw is None:
        return Score(value=None, reason="unscored")
    if not isinstance(raw, Score):
        if not isinstance(raw, Real):
            raise _BadScoreError(f"returned {type(raw).__name__}, expected a Score, a number or None")
        raw = Score(value=_number(raw, "a value"))
    _expect(raw, "correct", bool, optional=True)
    _expect(raw, "answer", str, optional=True)
    _expect(raw, "reason", str)
    _expect(raw, "metrics", Mapping)
    _expect(raw, "token_values", Iterable)
    return replace(
        raw,
        value=None if raw.value is None else _number(raw.value, "a value"),
        token_values=tuple(_number(value, "a token value") for value in raw.token_values),
        metrics={str(key): _number(value, f"metric {key!r}") for key, value in raw.metrics.items()},
    )


def _expect(score: Score, field: str, kind: type, *, optional: bool = False) -> None:
    value = getattr(score, field)
    if not isinstance(value, kind) and not (optional and value is None):
        or_none = " or None" if optional else ""
        raise _BadScoreError(
            f"returned a Score with {field} of type {type(value).__name__}, expected {kind.__name__}{or_none}"
        )


def _number(value: Any, what: str) -> float:
    if isinstance(value, Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _BadScoreError(f"returned {what} of {str(value)[:40]}, expected a finite number")


def _check_fit(score: Score, spec: RewardSpec, completion: Completion) -> None:
    """Raises _BadScoreError if the score does not fit the reward's range or the completion's tokens."""
    low, high = spec.range
    if score.value is not None and not low <= score.value <= high:
        raise _BadScoreError(f"returned {score.value}, outside its declared range [{low}, {high}]")
    if score.token_values and len(score.token_values) != len(completion.token_ids):
        raise _BadScoreError(
            f"returned {len(score.token_values)} token values for {len(completion.token_ids)} tokens"
        )


def _verdict(named: Sequence[tuple[_Judge, Score]]) -> bool | None:
    """The first reward that states whether the completion is correct; if none does, the first one's range."""
    stated = next((score.correct for _, score in named if score.correct is not None), None)
    if stated is not None or not named:
        return stated
    judge, score = named[0]
    return score.value is not None and score.value >= judge.spec.range[1]


def _add_token_values(named: Sequence[tuple[_Judge, Score]]) -> tuple[float, ...]:
    weighted = [[j.weight * v for v in s.token_values] for j, s in named if s.token_values]
    return tuple(sum(column) for column in zip(*weighted, strict=True))
