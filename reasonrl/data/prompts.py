"""Which prompts fit, and what is done with those that do not: counted over whole splits, or redrawn one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reasonrl.contracts.data import Problem
from reasonrl.data.render import PromptRenderer, RenderedPrompt
from reasonrl.data.stream import ProblemStream
from reasonrl.errors import RecipeError

CHUNK = 512
"""Prompts tokenized together."""
MAX_REDRAWS = 100
"""Overlong prompts in a row at one position of an endless task."""
DROP = "sampling.overlong_prompts=drop"

Fetch = Callable[[int], Problem]
Measured = tuple[int, int]
"""Index of a problem, tokens of its prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLimit:
    """The most tokens of a prompt: ``max_prompt_tokens``, or what the model's context leaves beside a completion.

    ``overlong``: whether a longer prompt stops the run, or is dropped.

    Raises:
        RecipeError: if the context leaves nothing.
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
        if self.context is None:
            return self.max_prompt_tokens
        return min(self.max_prompt_tokens, self.context - self.completion_tokens)

    def check(self, problem: Problem, tokens: int, *, or_else: str = "") -> None:
        """Raise RecipeError if a prompt of ``tokens`` tokens is over the limit; ``or_else`` is another way out."""
        if tokens > self.tokens:
            raise RecipeError(
                f"the prompt of problem {problem.id!r} has {tokens} tokens, over {self.said()}; "
                f"{self.advice(tokens)}{or_else}"
            )

    def said(self) -> str:
        """The limit in words, with the key that sets it."""
        if self.tokens == self.max_prompt_tokens:
            return f"sampling.max_prompt_tokens={self.max_prompt_tokens}"
        beside = f"max_completion_tokens={self.completion_tokens}" if self.completion_tokens > 1 else "a completion"
        return f"the {self.tokens} that the model's context of {self.context} leaves beside {beside}"

    def advice(self, longest: int) -> str:
        """What to change so that a prompt of ``longest`` tokens fits."""
        keys = [f"sampling.max_prompt_tokens={longest}"] if longest > self.max_prompt_tokens else []
        if self.context is not None and longest >= self.context:
            return f"it does not fit into the model's context of {self.context} tokens"
        if self.context is not None and longest + self.completion_tokens > self.context:
            keys.append(f"max_completion_tokens={self.context - longest}")
        return f"{' and '.join(keys)} would fit it"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptCheck:
    """What a split's prompts were found to be. ``longest`` is over those that fit."""

    name: str
    checked: int
    overlong: int
    longest: int
    limit: PromptLimit

    def line(self) -> str:
        """For people."""
        dropped = f" and dropped, {self.checked - self.overlong:,} left" if self.overlong else ""
        return (
            f"{self.name}: {self.checked:,} checked, {self.overlong:,} over {self.limit.tokens:,} tokens{dropped}; "
            f"longest {self.longest:,}"
        )


def check_lines(checks: Sequence[PromptCheck]) -> Iterator[str]:
    """A line for every split that has overlong prompts, and one for all others of the same limit."""
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
    """Index and prompt tokens of each problem.

    Raises:
        RecipeError: if a prompt cannot be rendered, is empty, or holds a token that the model does not know.
    """
    for start in range(0, len(indices), CHUNK):
        chunk = indices[start : start + CHUNK]
        prompts = renderer.render_all([fetch(index) for index in chunk])
        yield from ((index, len(prompt.ids)) for index, prompt in zip(chunk, prompts, strict=True))


def judge(name: str, fetch: Fetch, measured: Sequence[Measured], limit: PromptLimit) -> PromptCheck:
    """The finding of a split.

    Raises:
        RecipeError: naming the worst prompt if overlong ones are there and stop the run, or leave no other.
    """
    over = [pair for pair in measured if pair[1] > limit.tokens]
    if over and (limit.overlong == "stop" or len(over) == len(measured)):
        index, longest = max(over, key=lambda pair: pair[1])
        leave_out = f"; or leave out such prompts with {DROP}" if limit.overlong == "stop" else ""
        raise RecipeError(
            f"{name}: {len(over):,} of {len(measured):,} prompts are over {limit.said()}; the longest, of problem "
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
    """Measured problems from the first candidate on, until ``wanted`` of them fit or no candidate is left."""
    measured: list[Measured] = []
    missing = wanted
    while missing and len(measured) < len(candidates):
        chunk = candidates[len(measured) : len(measured) + missing]
        measured += measure(fetch, chunk, renderer)
        missing = wanted - sum(tokens <= limit.tokens for _, tokens in measured)
    return measured


@dataclass(frozen=True, slots=True)
class Drawn:
    """A training problem and its prompt; ``redraws``: overlong ones that were passed over for it."""

    problem: Problem
    prompt: RenderedPrompt
    redraws: int


class PromptSource:
    """Training problems by position of the stream, each with its prompt.

    An endless task with an overlong prompt at a position gives other problems there, the same ones in every process.
    """

    def __init__(self, stream: ProblemStream, renderer: PromptRenderer, limit: PromptLimit) -> None:
        self.stream, self._renderer, self.limit = stream, renderer, limit

    @property
    def redraws(self) -> bool:
        """Whether overlong prompts are found, and replaced, as they are drawn."""
        return self.stream.size is None and self.limit.overlong == "drop"

    def draw(self, position: int) -> Drawn:
        """The problem at ``position``.

        Raises:
            RecipeError: if its prompt is overlong and stops the run, or cannot be rendered.
        """
        for attempt in range(MAX_REDRAWS if self.redraws else 1):
            problem = self.stream.problem(position, attempt)
            prompt = self._renderer.render(problem)
            if len(prompt.ids) <= self.limit.tokens:
                return Drawn(problem, prompt, attempt)
        if not self.redraws:
            self.limit.check(problem, len(prompt.ids), or_else=f"; or leave out such prompts with {DROP}")
        raise RecipeError(
            f"task {self.stream.task_name!r}: {MAX_REDRAWS} prompts in a row are over {self.limit.said()}, the last "
            f"with {len(prompt.ids):,} tokens; raise the limit or give the task other options"
        )
