"""``guess_number``: the model guesses, the task says higher or lower. The smallest task of several turns."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonrl import Completion, Message, NoConfig, Problem, RewardContext, Score, Split, TaskContext, Transcript, Turn
from reasonrl.contracts.options import require, require_choice

HELD_OUT = 5
"""Every fifth lowest number is held out."""
HINTS = ("none", "direction", "range")
MAX_NUMBER = 9999
_INTEGER = re.compile(r"\d+")
_MAX_TEXT = 20_000
_THINK_CLOSE = "</think>"
_WORDS = ("wrong", "higher", "lower")
_SIGNS = ("x", "+", "-")
"""The same for tiny models: a token each."""


@dataclass(frozen=True)
class GuessConfig:
    """Ranges and prompts. Raises ValueError naming the field when a value is out of range."""

    template: str = field(default="chat", metadata={"help": "chat (messages) or compact (raw text for tiny models)"})
    size: int = field(default=31, metadata={"help": "numbers in a range, at least 2"})
    max_low: int = field(default=60, metadata={"help": "ranges begin at 1 to this number, at least 10"})
    guesses: int = field(default=5, metadata={"help": "guesses per number, at least 1"})
    hints: str = field(
        default="direction",
        metadata={
            "help": "of a wrong guess: none, direction (higher or lower) or range (also what is left of the range)"
        },
    )

    def __post_init__(self) -> None:
        require_choice("template", self.template, ("chat", "compact"))
        require(2 <= self.size <= MAX_NUMBER, "size", f"in [2, {MAX_NUMBER}]", self.size)
        require(10 <= self.max_low <= MAX_NUMBER, "max_low", f"in [10, {MAX_NUMBER}]", self.max_low)
        require(1 <= self.guesses <= 100, "guesses", "in [1, 100]", self.guesses)
        require_choice("hints", self.hints, HINTS)


class GuessTask:
    """``info`` is ``{"low", "high", "number"}``; the state counts guesses and keeps the bounds that the hints leave."""

    def __init__(self, config: GuessConfig, context: TaskContext) -> None:
        self._config, self._seed = config, context.seed

    def size(self, split: Split) -> int | None:
        """Endless."""
        return None

    def problem(self, split: Split, index: int) -> Problem:
        """A range and a secret number in it; no range is in both splits."""
        rng = random.Random(f"{self._seed}/guess_number/{split}/{index}")
        lows = [low for low in range(1, self._config.max_low + 1) if (low % HELD_OUT == 0) == (split == "eval")]
        low = rng.choice(lows)
        high = low + self._config.size - 1
        return Problem(
            id=f"guess_number/{split}/{index}",
            prompt=self._prompt(low, high),
            info={"low": low, "high": high, "number": rng.randint(low, high)},
        )

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        """Say higher or lower; end with the right guess or the last one."""
        info = transcript.problem.info
        before = transcript.state or {"low": info["low"], "high": info["high"], "guesses": 0, "fitting": 0}
        guess = find_guess(transcript.text)
        is_right = guess == info["number"]
        state = {**before, "guesses": before["guesses"] + 1, "found": is_right}
        if guess is not None:
            state["fitting"] += before["low"] <= guess <= before["high"]
            if not is_right:
                state["low"], state["high"] = self._bounds(before["low"], before["high"], guess, info["number"])
        if is_right or state["guesses"] >= self._config.guesses:
            return None, state
        if guess is None:
            return self._turn("one number, please"), state
        return self._turn(self._hint(guess, info["number"], state["low"], state["high"])), state

    def demonstration(self, problem: Problem, rng: random.Random) -> tuple[Message, ...]:
        """A game whose player guesses any number that may still be right."""
        tried: set[int] = set()
        transcript = Transcript(problem=problem, messages=())
        while True:
            state = transcript.state or problem.info
            guess = rng.choice([n for n in range(state["low"], state["high"] + 1) if n not in tried])
            tried.add(guess)
            end = "\n" if self._config.template == "compact" else ""
            said = (*transcript.messages, Message(role="assistant", content=f"{guess}{end}"))
            turn, after = self.respond(Transcript(problem=problem, messages=said, state=transcript.state))
            if turn is None:
                return said
            replies = (Message(role="user", content=turn.content),) if isinstance(turn.content, str) else turn.content
            transcript = Transcript(problem=problem, messages=(*said, *replies), state=after)

    def difficulty(self, problem: Problem) -> str:
        """Return the size of the range."""
        return f"{problem.info['high'] - problem.info['low'] + 1} numbers"

    def _prompt(self, low: int, high: int) -> str | tuple[Message, ...]:
        if self._config.template == "compact":
            return f"Numbers: {low} {high}.\n"
        told = "it is mine" if self._config.hints == "none" else "mine is higher or lower"
        text = (
            f"I am thinking of a whole number from {low} to {high}. You have {self._config.guesses} guesses. Write one "
            f"number in each message; I will say whether {told}."
        )
        return (Message(role="user", content=text),)

    def _hint(self, guess: int, secret: int, low: int, high: int) -> str:
        """What is said of a wrong guess; ``low`` to ``high`` is what it leaves of the range."""
        is_compact = self._config.template == "compact"
        words = _SIGNS if is_compact else _WORDS
        if self._config.hints == "none":
            return words[0]
        hint = words[1] if guess < secret else words[2]
        if self._config.hints == "direction":
            return hint
        return f"{hint} {low} {high}" if is_compact else f"{hint}, from {low} to {high}"

    def _bounds(self, low: int, high: int, guess: int, secret: int) -> tuple[int, int]:
        """Return what is left of the range after the hint."""
        if self._config.hints == "none":
            return low, high
        return (max(low, guess + 1), high) if guess < secret else (low, min(high, guess - 1))

    def _turn(self, hint: str) -> Turn:
        if self._config.template == "compact":
            return Turn(content=f"{hint}\n")
        return Turn(content=(Message(role="user", content=f"{hint.capitalize()}."),))


def find_guess(text: str) -> int | None:
    """Return the only whole number after the thinking; None without exactly one."""
    found = _INTEGER.findall(text[-_MAX_TEXT:].rpartition(_THINK_CLOSE)[2])
    return int(found[0]) if len(found) == 1 and len(found[0]) <= len(str(MAX_NUMBER)) + 1 else None


class GuessReward:
    """1.0 if one of the guesses was right. The state says so, not the text: a model can write "higher" itself."""

    def __init__(self, config: NoConfig, context: RewardContext) -> None:
        del config, context

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Score the game's last state."""
        state: Mapping[str, Any] = completion.state
        guesses = state.get("guesses", 0)
        if not guesses:
            return Score(value=0.0, correct=False, reason="no_guess")
        found = state["found"]
        return Score(
            value=float(found),
            correct=found,
            answer=completion.replies[-1].strip()[:20],
            metrics={"guesses": guesses, "fitting_frac": state["fitting"] / guesses},
            reason="found" if found else "not_found",
        )
