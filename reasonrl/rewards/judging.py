"""Asking one reward, and checking what it says. The same in the trainer's process and in a worker."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from numbers import Real
from typing import Any, Literal

from reasonrl.contracts.data import Completion, FinishReason, Problem, RolloutGroup, Score
from reasonrl.contracts.protocols import GroupReward, Reward
from reasonrl.errors import RAISABLE, PluginContractError, describe, name_of, plugin_code
from reasonrl.text import clip

UNSCORABLE = frozenset({FinishReason.ABORT, FinishReason.ERROR})
NO_SCORE = "unscored"
"""The reason of a reward that returned None."""
CUT = "cut"
"""The reason of a tool's result that was over its limit."""
MAX_REASON, MAX_ANSWER = 2_000, 10_000
"""Characters of a score's texts; more are cut out of their middle."""
MAX_CHARS = 2**20
"""A longer text is refused with its score."""
MAX_TOKENS = 10_000_001
"""Token values of one completion that are read; no completion has as many."""
MAX_METRICS, MAX_NAME = 64, 100
"""Metrics of one completion, and characters of a name."""
DROPPED = "metrics_dropped"
"""The metric that counts those over the limit."""
MAX_TEXT = 300
"""Characters of a reward's text that go into a reason."""

Trouble = Literal["", "raised", "refused", "lost"]


class BadScoreError(ValueError):
    """A score that breaks the contract; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score, and what to complain of if the reward failed to give one.

    ``trouble``: ``raised`` (``error`` or ``details`` hold the traceback), ``refused`` (what it returned breaks the
    contract), ``lost`` (its worker had to be killed, or died); empty if nothing is wrong.
    """

    score: Score
    trouble: Trouble = ""
    error: BaseException | None = None
    details: str = ""


def failure(trouble: Trouble, reason: str, error: BaseException | None = None, details: str = "") -> Verdict:
    """A verdict without a score: the completion stays unscored, and its reason says why."""
    return Verdict(Score(value=None, reason=clip(reason, MAX_TEXT)), trouble, error, details)


Kind = Literal["each", "group", "call"]
"""What a worker is asked: to judge completions one by one or a group at once, or to call a tool."""


def kind_of(reward: object, name: str) -> Kind:
    """What to ask of what a factory has built.

    Raises:
        PluginContractError: if it does neither.
    """
    if isinstance(reward, GroupReward):
        return "group"
    if isinstance(reward, Reward):
        return "each"
    if callable(getattr(reward, "call_tool", None)):
        return "call"
    raise PluginContractError(
        f"reward {name!r}: its factory returned {type(reward).__name__}, "
        "which has neither score(problem, completion) nor score_group(group)"
    )


def unfinished(completion: Completion) -> Verdict | None:
    """The verdict on what was never finished; None for everything else."""
    if completion.finish_reason not in UNSCORABLE:
        return None
    return Verdict(Score(value=None, reason=completion.finish_reason.value))


def judge_one(
    reward: Reward,
    problem: Problem,
    completion: Completion,
    catch: tuple[type[BaseException], ...] = RAISABLE,
    *,
    name: str,
) -> Verdict:
    """What ``reward`` says of one completion. An error in ``catch`` becomes a verdict, any other passes."""
    return unfinished(completion) or _call_guarded(lambda: as_score(reward.score(problem, completion)), catch, name)


def judge_group(
    reward: GroupReward, group: RolloutGroup, catch: tuple[type[BaseException], ...] = RAISABLE, *, name: str
) -> list[Verdict]:
    """What a group reward says of each completion of ``group``."""
    size = len(group.completions)
    try:
        with plugin_code(_owner(name)):
            raw = list(islice(reward.score_group(group), size + 1))
    except catch as err:
        return [_from_error(err)] * size
    if len(raw) != size:
        given = len(raw) if len(raw) < size else f"over {size}"
        return [failure("refused", f"returned {given} scores for {size} completions")] * size
    judged = zip(raw, group.completions, strict=True)
    return [
        unfinished(completion) or _call_guarded(partial(as_score, value), catch, name) for value, completion in judged
    ]


def judge_call(
    box: Any, tool: str, arguments: Mapping[str, Any], catch: tuple[type[BaseException], ...] = RAISABLE, *, name: str
) -> Verdict:
    """The result of a tool, as the answer of a score; an error is its reason."""

    def call() -> Score:
        text, is_cut = box.call_tool(tool, arguments)
        return as_score(Score(value=1.0, answer=text, reason=CUT if is_cut else ""))

    verdict = _call_guarded(call, catch, name)
    return verdict if verdict.error is None else failure("raised", describe(verdict.error), error=verdict.error)


def _owner(name: str) -> str:
    return f"reward {name!r}"


def _call_guarded(call: Callable[[], Score], catch: tuple[type[BaseException], ...], name: str) -> Verdict:
    try:
        with plugin_code(_owner(name)):
            return Verdict(call())
    except BadScoreError as err:
        return failure("refused", str(err))
    except catch as err:  # a reward, or a lazy value that it returned, may raise anything
        return _from_error(err)


def _from_error(err: BaseException) -> Verdict:
    return failure("raised", f"raised {name_of(err)}", error=err)


def as_score(raw: object) -> Score:
    """``raw`` as a Score of plain Python values: numbers of other libraries would not go into JSON.

    Raises:
        BadScoreError: saying what is wrong with it; whatever a lazy value of the reward's raises.
    """
    if raw is None:
        return Score(value=None, reason=NO_SCORE)
    if not isinstance(raw, Score):
        if not isinstance(raw, Real):
            raise BadScoreError(f"returned {type(raw).__name__}, expected a Score, a number or None")
        raw = Score(value=_number(raw, "a value"))
    _expect(raw, "correct", bool, optional=True)
    _expect(raw, "answer", str, optional=True)
    _expect(raw, "reason", str)
    for text in (raw.answer or "", raw.reason):
        if len(text) > MAX_CHARS:
            raise BadScoreError(f"returned a text of {len(text)} characters, over the limit of {MAX_CHARS}")
    _expect(raw, "metrics", Mapping)
    _expect(raw, "token_values", Iterable)
    return replace(
        raw,
        value=None if raw.value is None else _number(raw.value, "a value"),
        token_values=tuple(_number(value, "a token value") for value in islice(raw.token_values, MAX_TOKENS)),
        metrics=_metrics(raw.metrics),
        reason=clip(raw.reason, MAX_REASON),
        answer=None if raw.answer is None else clip(raw.answer, MAX_ANSWER),
    )


def _metrics(raw: Mapping[str, object]) -> dict[str, float]:
    """The first ``MAX_METRICS`` of a completion's metrics, and how many there were beside them."""
    own = [(key, value) for key, value in raw.items() if key != DROPPED]
    metrics = {
        clip(str(key), MAX_NAME): _number(value, f"metric {str(key)[:40]!r}") for key, value in own[:MAX_METRICS]
    }
    if DROPPED in raw:  # from a worker, which has counted already
        metrics[DROPPED] = _number(raw[DROPPED], f"metric {DROPPED!r}")
    elif len(own) > MAX_METRICS:
        metrics[DROPPED] = float(len(own) - MAX_METRICS)
    return metrics


def _expect(score: Score, field: str, kind: type, *, optional: bool = False) -> None:
    value = getattr(score, field)
    if not isinstance(value, kind) and not (optional and value is None):
        or_none = " or None" if optional else ""
        raise BadScoreError(
            f"returned a Score with {field} of type {type(value).__name__}, expected {kind.__name__}{or_none}"
        )


def _number(value: object, what: str) -> float:
    if isinstance(value, Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise BadScoreError(f"returned {what} of {str(value)[:40]}, expected a finite number")


def fitted(verdict: Verdict, limits: tuple[float, float], completion: Completion) -> Verdict:
    """``verdict``, refused if its score does not fit the reward's range or the completion's tokens."""
    score, (low, high) = verdict.score, limits
    if score.value is not None and not low <= score.value <= high:
        return failure("refused", f"returned {score.value}, outside its declared range [{low}, {high}]")
    if score.token_values and len(score.token_values) != len(completion.token_ids):
        given, tokens = len(score.token_values), len(completion.token_ids)
        return failure("refused", f"returned {given} token values for {tokens} tokens")
    if score.token_values and completion.sampled_mask is not None:
        lost = [
            at
            for at, (value, sampled) in enumerate(zip(score.token_values, completion.sampled_mask, strict=True))
            if value and not sampled
        ]
        if lost:
            return failure(
                "refused",
                f"returned a value of {score.token_values[lost[0]]:g} for token {lost[0]}, which the policy did not "
                "sample; Completion.turn_ends are the ends of its messages",
            )
    return verdict
