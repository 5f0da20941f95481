"""SFT demonstrations: a random search that checks itself correctly and gives up at random.

A model trained on them knows the format and the arithmetic and searches poorly, which leaves reinforcement
learning something to find: to search longer, to choose better, to answer only what it has checked. Like the texts
that larger models are trained on, they are of mixed quality: a share of them, ``aimed_frac``, begins by repeating the
target and chooses the last operation of every attempt with an eye on it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from reasonrl_countdown.calculator import RESULT
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Instance, apply_exact

MAX_RESULT = 500
"""Upper bound of results: every integer up to 499 is one token of the tiny model's tokenizer."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to combine all numbers: its steps in words, its expression and its value."""

    steps: tuple[str, ...]
    expression: str
    value: int


@dataclass(frozen=True, slots=True)
class _Operand:
    value: int
    text: str
    is_compound: bool = False

    @property
    def in_parentheses(self) -> str:
        return f"({self.text})" if self.is_compound else self.text


def demonstrate(instance: Instance, rng: random.Random, config: CountdownConfig) -> str:
    """Write a search and its answer, right or wrong, to follow an opened ``<think>`` and a newline."""
    lines: list[str] = []
    failures_left = _patience(config, rng)
    aim = instance.target if _is_aimed(config, rng) else None
    if aim is not None:
        lines.append(f"aim {aim}\n")
    while True:
        attempt = random_attempt(instance.numbers, rng, aim=aim)
        is_right = attempt.value == instance.target
        lines.append(_written(attempt, is_right, config))
        failures_left -= 1
        if is_right:
            break
        if failures_left == 0:
            lines.append("stop\n")
            break
    return f"{''.join(lines)}</think>\n<answer>{attempt.expression}</answer>"


def _written(attempt: Attempt, is_right: bool, config: CountdownConfig) -> str:
    """The line of an attempt. With a calculator that is a call and its result."""
    if config.calculator == "none":
        return f"{', '.join(attempt.steps)} {'yes' if is_right else 'no'}\n"
    return f"<calc>{attempt.expression}</calc>{RESULT.replace('{result}', str(attempt.value))}"


def random_attempt(numbers: Sequence[int], rng: random.Random, *, aim: int | None = None) -> Attempt:
    """Combine random pairs by random operations, uniformly among those with results in [0, MAX_RESULT).

    With ``aim``, the last operation is one whose result comes nearest to it.
    """
    operands = [_Operand(n, str(n)) for n in numbers]
    steps: list[str] = []
    while len(operands) > 1:
        if aim is not None and len(operands) == 2:
            result, step = _nearest_step(operands, rng, aim)
        else:
            result, step = _random_step(operands, rng)
        operands.append(result)
        steps.append(step)
    return Attempt(tuple(steps), operands[0].text, operands[0].value)


def _random_step(operands: list[_Operand], rng: random.Random) -> tuple[_Operand, str]:
    """Draw until a step is allowed; then remove its two operands and return its result."""
    while True:
        # Subtracting the smaller from the larger is always allowed, so this ends.
        i, j = rng.sample(range(len(operands)), 2)
        operator = rng.choice("+-*/")
        step = _step(operands[i], operator, operands[j])
        if step is not None:
            break
    for index in sorted((i, j), reverse=True):
        del operands[index]
    return step


def _nearest_step(operands: list[_Operand], rng: random.Random, aim: int) -> tuple[_Operand, str]:
    """Remove the last two operands and pick at random among their allowed steps nearest to ``aim``."""
    left, right = operands
    operands.clear()
    pairs = ((left, right), (right, left))
    steps = [step for a, b in pairs for o in "+-*/" if (step := _step(a, o, b)) is not None]
    distances = [abs(result.value - aim) for result, _ in steps]
    nearest = min(distances)
    return rng.choice([step for step, far in zip(steps, distances, strict=True) if far == nearest])


def _step(left: _Operand, operator: str, right: _Operand) -> tuple[_Operand, str] | None:
    """The result and the step in words; None when it is not allowed."""
    value = apply_exact(operator, left.value, right.value)
    if value is None or (value >= MAX_RESULT and operator != "-"):
        return None
    text = f"{left.in_parentheses}{operator}{right.in_parentheses}"
    return _Operand(value, text, True), f"{left.value}{operator}{right.value}={value}"


def _is_aimed(config: CountdownConfig, rng: random.Random) -> bool:
    return config.aimed_frac > 0.0 and rng.random() < config.aimed_frac


def _patience(config: CountdownConfig, rng: random.Random) -> int:
    """Draw the number of failures before giving up. Some patient searches keep long traces in distribution."""
    if config.patient_frac > 0.0 and rng.random() < config.patient_frac:
        return rng.randint(1, config.patient_attempts)
    return _geometric(rng, config.mean_attempts)


def _geometric(rng: random.Random, mean: float) -> int:
    """Number of trials up to the first success, at least 1, of the given mean."""
    count = 1
    while rng.random() >= 1.0 / mean:
        count += 1
    return count
