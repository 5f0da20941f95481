"""Behaviors of a completion: attempts, verdicts, backtracking; exact for traces written as equations.

A *step* is an equation of whole numbers such as ``8*5=40`` or ``(3+5)*8 = 64``; an *attempt* is the steps that belong
together. Everything is read in one pass over the text, in linear time, and nothing in it is evaluated as code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from reasonrl_countdown.extraction import find_answer
from reasonrl_countdown.generator import apply_exact
from reasonrl_countdown.steps import Step, intern, postfix_of, read_steps

_THINK_CLOSE = "</think>"
_ANSWER_OPEN = "<answer>"


@dataclass(slots=True)
class _Attempt:
    """``key`` is the same for attempts that differ in the order of operands of + and * only."""

    steps: list[Step] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    pending: dict[int | Fraction, list[int]] = field(default_factory=dict)
    verdict: bool | None = None

    @property
    def value(self) -> int | Fraction:
        return self.steps[-1].value

    @property
    def key(self) -> tuple[int, ...]:
        return tuple(sorted(tree for trees in self.pending.values() for tree in trees))

    def uses_result(self, step: Step) -> bool:
        return any(operand in self.pending for operand in step.postfix if not isinstance(operand, str))

    def add(self, step: Step, table: dict[object, int]) -> None:
        """An operand is an earlier result of that value if there is one that nothing has used, else a number."""
        stack: list[int] = []
        for item in step.postfix:
            if isinstance(item, str):
                right = stack.pop()
                stack.append(intern(table, item, stack.pop(), right))
            else:
                stack.append(self._take(item, table))
        self.steps.append(step)
        self.pending.setdefault(step.value, []).append(stack.pop())

    def _take(self, value: int, table: dict[object, int]) -> int:
        trees = self.pending.get(value)
        if trees is None:
            self.leaves.append(value)
            return table.setdefault(value, len(table))
        if len(trees) == 1:
            del self.pending[value]
        return trees.pop()


@dataclass(frozen=True, slots=True)
class Trace:
    """The attempts of a completion.

    ``closed``: the search ended, with ``</think>`` or an answer. ``is_cut``: it was truncated inside an attempt,
    which is then not in ``attempts``. ``table`` has every expression that was tried.
    """

    attempts: tuple[_Attempt, ...]
    closed: bool
    is_cut: bool
    table: dict[object, int]


def behaviors(completion: str, numbers: Sequence[int], target: int) -> dict[str, float]:
    """Measure one completion; behaviors that do not apply are omitted. Never raises.

    Shares are in [0, 1]; ``attempts`` and ``repeated_attempts`` are counts. docs/behaviors.md defines each.
    """
    trace = read_trace(completion, len(numbers))
    attempts = trace.attempts
    distinct = len({attempt.key for attempt in attempts})
    figures = {"attempts": float(len(attempts)), "repeated_attempts": float(len(attempts) - distinct)}
    if attempts:
        count, wanted = len(attempts), sorted(numbers)
        agree = sum(a.verdict is not None and a.verdict == (a.value == target) for a in attempts)
        figures["true_arithmetic"] = _share([step.is_true for a in attempts for step in a.steps])
        figures["verification"] = agree / count
        figures["distinct_strategies"] = distinct / count
        figures["number_use_legal"] = sum(_uses(attempt, wanted) for attempt in attempts) / count
        aims = [aim for attempt in attempts if (aim := _is_aimed(attempt.steps[-1], target)) is not None]
        if aims:
            figures["aimed"] = _share(aims)
        last = attempts[-1]
        figures["gave_up"] = float(trace.closed and last.value != target and last.verdict is not True)
    _add_backtracking(figures, trace, target)
    claims = [attempt for attempt in attempts if attempt.verdict]
    if claims:
        figures["false_yes"] = 1.0 - _share([_reaches(attempt, target) for attempt in claims])
    answer = find_answer(completion).answer
    if answer is not None:
        figures["answer_checked"] = float(_tree(answer, trace.table) in {attempt.key for attempt in claims})
    return figures


def mark_attempts(info: Mapping[str, Any], completion: str) -> list[tuple[int, int, str]]:
    """Find start, end and kind of every attempt, for the report.

    ``right`` reaches the target by true steps, ``error`` has a false step, any other has ``failed``.
    """
    target = info["target"]
    found = []
    for attempt in read_trace(completion, len(info["numbers"])).attempts:
        is_true = all(step.is_true for step in attempt.steps)
        kind = "error" if not is_true else "right" if attempt.value == target else "failed"
        start, end = attempt.steps[0].start, attempt.steps[-1].end
        found.append((start, start + len(completion[start:end].rstrip()), kind))
    return found


def read_trace(completion: str, count: int) -> Trace:
    """The attempts of a completion whose problem has ``count`` numbers, in order.

    A step continues the previous attempt if it uses a result that nothing has used yet (on a later line only while
    numbers are left), or if it stands on the same line and numbers are left. A verdict ends an attempt.
    """
    text, closed = _thinking(completion)
    table: dict[object, int] = {}
    attempts: list[_Attempt] = []
    current: _Attempt | None = None
    for step in read_steps(text):
        if current is None or not _goes_on(current, step, count):
            current = _Attempt()
            attempts.append(current)
        current.add(step, table)
        if step.verdict is not None:
            current.verdict, current = step.verdict, None
    is_cut = not closed and current is not None and len(current.leaves) < count
    return Trace(tuple(attempts[:-1] if is_cut else attempts), closed, is_cut, table)


def _thinking(completion: str) -> tuple[str, bool]:
    end = completion.rfind(_THINK_CLOSE)
    if end < 0:
        end = completion.find(_ANSWER_OPEN)
    return (completion, False) if end < 0 else (completion[:end], True)


def _goes_on(attempt: _Attempt, step: Step, count: int) -> bool:
    has_numbers_left = len(attempt.leaves) < count
    if attempt.uses_result(step):
        return has_numbers_left or not step.on_new_line
    return has_numbers_left and not step.on_new_line


def _add_backtracking(figures: dict[str, float], trace: Trace, target: int) -> None:
    """Add the share of failed attempts that are followed by another one.

    The last attempt does not count if the text was truncated there.
    """
    failed = sum(attempt.value != target for attempt in trace.attempts)
    if not failed:
        return
    last_failed = trace.attempts[-1].value != target
    if last_failed and not trace.is_cut:
        followed, failed = failed - 1, failed if trace.closed else failed - 1
    else:
        followed = failed
    if failed:
        figures["backtracking"] = followed / failed


def _uses(attempt: _Attempt, wanted: list[int]) -> bool:
    return len(attempt.leaves) == len(wanted) and len(attempt.key) == 1 and sorted(attempt.leaves) == wanted


def _is_aimed(step: Step, target: int) -> bool | None:
    """Whether no other operation on the step's two numbers comes nearer to the target; None if it has not two."""
    if len(step.postfix) != 3:
        return None
    a, b, operator = step.postfix
    if not isinstance(a, int) or not isinstance(b, int):
        return None
    distances = {
        (o, x, y): abs(value - target)
        for o in "+-*/"
        for x, y in ((a, b), (b, a))
        if (value := apply_exact(o, x, y)) is not None
    }
    # A step that is not a whole number >= 0 is never one of these.
    return distances.get((str(operator), a, b)) == min(distances.values())


def _reaches(attempt: _Attempt, target: int) -> bool:
    return attempt.value == target and all(step.is_true for step in attempt.steps)


def _tree(answer: str, table: dict[object, int]) -> tuple[int, ...]:
    postfix = postfix_of(answer)
    if postfix is None:
        return ()
    stack: list[int] = []
    for item in postfix:
        if isinstance(item, str):
            right = stack.pop()
            stack.append(intern(table, item, stack.pop(), right))
        else:
            stack.append(table.setdefault(item, len(table)))
    return tuple(stack)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
