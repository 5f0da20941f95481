"""Check prompt lengths and stop at, drop or redraw overlong prompts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reasonrl.contracts.data import Problem
from reasonrl.data.render import PromptRenderer, RenderedPrompt
from reasonrl.data.stream import ProblemStream
from reasonrl.errors import RecipeError

CHUNK = 512
"""Number of prompts to tokenize together."""
MAX_REDRAWS = 100
"""Consecutive overlong prompts to tolerate at one position of an endless task."""
DROP = "sampling.overlong_prompts=drop"

Fetch = Callable[[int], Problem]
Measured = tuple[int, int]
"""Index of a problem and the number of tokens of its prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLimit:
    """The maximum prompt length: ``max_prompt_tokens``, or what the context leaves besides a completion.

    ``overlong``: whether a longer prompt stops the run or is dropped.

    Raises:
        RecipeError: If the context leaves no room for a prompt.
    """

    max_prompt_tokens: int
    completion_tokens: int
    context: int | None = None
    overlong: Literal["stop", "drop"] = "stop"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise RecipeError(
                f"max_completion_tokens={self.completion_tokens} leaves no room for a prompt in the model's context of "
                f"{self.context} tokens; lower it"
            )

    @property
    def tokens(self) -> int:
        """The longest prompt admitted, in tokens."""
        if self.context is None:
            return self.max_prompt_tokens
        return min(self.max_prompt_tokens, self.context - self.completion_tokens)

    def check(self, problem: Problem, tokens: int, *, or_else: str = "") -> None:
        """Raise RecipeError if a prompt of ``tokens`` tokens is over the limit; ``or_else`` adds an alternative fix."""
        if tokens > self.tokens:
            raise RecipeError(
                f"the prompt of problem {problem.id!r} has {tokens} tokens, over {self.describe()}; "
                f"{self.advice(tokens)}{or_else}"
            )

    def describe(self) -> str:
        """Describe the limit and the key that sets it."""
        if self.tokens == self.max_prompt_tokens:
            return f"sampling.max_prompt_tokens={self.max_prompt_tokens}"
        beside = f"max_completion_tokens={self.completion_tokens}" if self.completion_tokens > 1 else "a completion"
        return f"the {self.tokens} tokens that the model's context of {self.context} leaves besides {beside}"

    def advice(self, longest: int) -> str:
        """Say what to change so that a prompt of ``longest`` tokens fits."""
        keys = [f"sampling.max_prompt_tokens={longest}"] if longest > self.max_prompt_tokens else []
        if self.context is not None and longest >= self.context:
            return f"it does not fit the model's context of {self.context} tokens"
        if self.context is not None and longest + self.completion_tokens > self.context:
            keys.append(f"max_completion_tokens={self.context - longest}")
        return f"set {' and '.join(keys)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptCheck:
    """The result of checking a split. ``longest`` is the longest prompt that fits."""

    name: str
    checked: int
    overlong: int
    longest: int
    limit: PromptLimit

    def line(self) -> str:
        """Summarize the check in one line."""
        dropped = f" and dropped, {self.checked - self.overlong:,} left" if self.overlong else ""
        return (
            f"{self.name}: {self.checked:,} checked, {self.overlong:,} over {self.limit.tokens:,} tokens{dropped}; "
            f"longest {self.longest:,}"
        )


def check_lines(checks: Sequence[PromptCheck]) -> Iterator[str]:
    """Yield one line per split with overlong prompts, and one for all other splits of the same limit."""
    together: dict[int, list[PromptCheck]] = {}
    for check in checks:
        if check.overlong:
            yield check.line()
        else:
            together.setdefault(check.limit.tokens, []).append(check)
    for same in together.values():
        yield replace(
            same[0],
            name=", ".join(check.name for check in same),
            checked=sum(check.checked for check in same),
            longest=max(check.longest for check in same),
        ).line()


def measure(fetch: Fetch, indices: Sequence[int], renderer: PromptRenderer) -> Iterator[Measured]:
    """Measure the prompt length of each problem.

    Raises:
        RecipeError: If a prompt cannot be rendered, is empty, or has a token without an embedding.
    """
    for start in range(0, len(indices), CHUNK):
        chunk = indices[start : start + CHUNK]
        prompts = renderer.render_all([fetch(index) for index in chunk])
        yield from ((index, len(prompt.ids)) for index, prompt in zip(chunk, prompts, strict=True))


def judge(name: str, fetch: Fetch, measured: Sequence[Measured], limit: PromptLimit) -> PromptCheck:
    """Check the prompts of a split against the limit.

    Raises:
        RecipeError: If overlong prompts stop the run or leave no other; names the longest.
    """
    over = [pair for pair in measured if pair[1] > limit.tokens]
    if over and (limit.overlong == "stop" or len(over) == len(measured)):
        index, longest = max(over, key=lambda pair: pair[1])
        leave_out = f"; or skip such prompts with {DROP}" if limit.overlong == "stop" else ""
        raise RecipeError(
            f"{name}: {len(over):,} of {len(measured):,} prompts are over {limit.describe()}; the longest, of problem "
            f"{fetch(index).id!r}, has {longest:,} tokens: {limit.advice(longest)}{leave_out}"
        )
    return PromptCheck(
        name=name,
        checked=len(measured),
        overlong=len(over),
        longest=max((tokens for _, tokens in measured if tokens <= limit.tokens), default=0),
        limit=limit,
    )


def fitting(
    fetch: Fetch, candidates: range, wanted: int, renderer: PromptRenderer, limit: PromptLimit
) -> list[Measured]:
    """Measure candidates in order until ``wanted`` of them fit or none is left."""
    measured: list[Measured] = []
    missing = wanted
    while missing and len(measured) < len(candidates):
        chunk = candidates[len(measured) : len(measured) + missing]
        measured += measure(fetch, chunk, renderer)
        missing = wanted - sum(tokens <= limit.tokens for _, tokens in measured)
    return measured


@dataclass(frozen=True, slots=True)
class Drawn:
    """A training problem and its prompt; ``redraws``: the overlong prompts skipped before it."""

    problem: Problem
    prompt: RenderedPrompt
    redraws: int


class PromptSource:
    """Training problems by stream position, each with its prompt.

    If an endless task has an overlong prompt at a position, another problem is drawn there, the same in every process.
    """

    def __init__(self, stream: ProblemStream, renderer: PromptRenderer, limit: PromptLimit) -> None:
        self.stream, self._renderer, self.limit = stream, renderer, limit

    @property
    def redraws(self) -> bool:
        """Whether overlong prompts are replaced while drawing."""
        return self.stream.size is None and self.limit.overlong == "drop"

    def draw(self, position: int) -> Drawn:
        """Draw the problem at ``position``.

        Raises:
            RecipeError: If its prompt is overlong and stops the run, or cannot be rendered.
        """
        for attempt in range(MAX_REDRAWS if self.redraws else 1):
            problem = self.stream.problem(position, attempt)
            prompt = self._renderer.render(problem)
            if len(prompt.ids) <= self.limit.tokens:
                return Drawn(problem, prompt, attempt)
        if not self.redraws:
            self.limit.check(problem, len(prompt.ids), or_else=f"; or skip such prompts with {DROP}")
        raise RecipeError(
            f"task {self.stream.task_name!r}: {MAX_REDRAWS} consecutive prompts are over {self.limit.describe()}, "
            f"the last with {len(prompt.ids):,} tokens; raise the limit or change the task options"
        )
